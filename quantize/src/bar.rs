//! The progress bar.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pocketgpt_quantize::Progress;

/// A bar on stderr, if that is a terminal, and the flag that an interrupt sets.
pub struct Bar {
    bar: ProgressBar,
    cancelled: Arc<AtomicBool>,
}

impl Bar {
    pub fn new(quiet: bool, cancelled: Arc<AtomicBool>) -> Self {
        Self::with(quiet, cancelled, "{bar:30} {bytes}/{total_bytes} {eta} {msg}")
    }

    /// One that counts parts instead of bytes.
    pub fn counting(quiet: bool, cancelled: Arc<AtomicBool>) -> Self {
        Self::with(quiet, cancelled, "{bar:30} {pos}/{len} {eta} {msg}")
    }

    fn with(quiet: bool, cancelled: Arc<AtomicBool>, template: &str) -> Self {
        let shown = !quiet && stderr().is_terminal();
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
        Self { bar, cancelled }
    }
}

impl Progress for Bar {
    fn start(&mut self, total_bytes: u64) {
        self.bar.set_length(total_bytes);
    }

    fn tensor(&mut self, name: &str) {
        self.bar.set_message(name.to_owned());
    }

    fn advance(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn finish(&mut self) {
        self.bar.finish_and_clear();
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // On an error as well, the message stands alone.
        self.bar.finish_and_clear();
    }
}
