//! Ctrl-C: the first one ends the work at the next token, the second one the program.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);
/// Whether there is no work that could be ended: the program waits for its user.
static WAITING: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C (and a polite `kill`) only asks to stop.
///
/// Called by commands that have something to finish, and not while standard input is read: a
/// program that waits for input must end at once.
pub fn catch() {
    handle(|| {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            end();
        }
    });
}

/// From now on Ctrl-C asks to stop the piece of work at hand, however often it is pressed, and ends
/// the program only between two of them: see [`begin_work`] and [`begin_waiting`].
pub fn catch_each() {
    begin_waiting();
    handle(|| {
        REQUESTED.store(true, Ordering::Relaxed);
        if WAITING.load(Ordering::Relaxed) {
            end();
        }
    });
}

fn handle(handler: impl FnMut() + 'static + Send) {
    // Without a handler Ctrl-C ends the program as it did before, which is no reason to fail.
    let _ = ctrlc::set_handler(handler);
}

fn end() -> ! {
    std::process::exit(i32::from(crate::INTERRUPTED));
}

/// A piece of work begins, which nobody has asked to stop.
pub fn begin_work() {
    REQUESTED.store(false, Ordering::Relaxed);
    WAITING.store(false, Ordering::Relaxed);
}

/// The work is done.
pub fn begin_waiting() {
    WAITING.store(true, Ordering::Relaxed);
}

/// Whether the user wants an end.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
