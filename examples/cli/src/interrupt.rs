//! Ctrl-C: the first one ends the work at the next token, the second one the program.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C (and a polite `kill`) only asks to stop.
///
/// Called by commands that have something to finish, and not while standard input is read: a
/// program that waits for input must end at once.
pub fn catch() {
    // Without a handler Ctrl-C ends the program as it did before, which is no reason to fail.
    let _ = ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(crate::INTERRUPTED));
        }
    });
}

/// Whether the user wants an end.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
