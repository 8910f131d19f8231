//! Standard output and standard error: results to the first, everything else to the second.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use anyhow::{Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::terminal;

/// The program that read our standard output has gone: a reason to end, not an error.
#[derive(Debug)]
pub struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for ReaderGone {}

fn stdout_error(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return ReaderGone.into();
    }
    anyhow!("standard output: {error}; give it a place that can be written to")
}

/// Writes to standard output and flushes, so that a reader sees each token as it comes.
pub fn write(text: &str) -> Result<()> {
    write_bytes(text.as_bytes())
}

/// [`write()`], for text that a model wrote, or a stranger: a terminal must not take orders from it,
/// nor show another order of letters than there is, so there control characters but line breaks and
/// tabs, and those that turn the direction of writing, show as `\u{fffd}`. Elsewhere all stay.
pub fn write_foreign(text: &str) -> Result<()> {
    if io::stdout().is_terminal() { write(&without_controls(text)) } else { write(text) }
}

fn without_controls(text: &str) -> String {
    let harmless = |c: char| !is_order(c) || matches!(c, '\n' | '\t');
    text.chars().map(|c| if harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Whether a terminal obeys a character instead of showing it: controls, and embeddings, overrides and
/// isolates of writing from right to left, which may hold on behind the text.
pub fn is_order(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// [`write()`], for what is not text.
pub fn write_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(stdout_error)
}

/// Writes one JSON object on a line of its own.
pub fn json(value: &impl Serialize) -> Result<()> {
    write(&(serde_json::to_string(value)? + "\n"))
}

/// A line to standard error. That nobody may be there to read it is no reason to fail.
pub fn note(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// How far a work of `len` steps is, on standard error if that is a terminal; `what` they are.
pub fn progress_bar(len: usize, what: &str) -> ProgressBar {
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {what}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("a valid template");
    ProgressBar::new(len as u64).with_style(style)
}

/// The one line that an error is.
pub fn error(error: &anyhow::Error) {
    let colour = io::stderr().is_terminal() && !terminal::no_color();
    let label = if colour { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    // A file name may have control characters in it; the line must stay one line.
    let text: String =
        format!("{error:#}").chars().map(|c| if is_order(c) { ' ' } else { c }).collect();
    note(format_args!("{label} {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_takes_no_orders_from_a_text() {
        // A title, a clipboard, a cleared screen; C1 controls and DEL.
        let text = "a\x1b]0;title\x07b\x1b]52;c;eA==\x07c\x1b[2Jd\u{9b}2J\x7f\x08\r\n\tß 日本";
        let shown = without_controls(text);
        assert!(shown.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{shown:?}");
        assert!(shown.ends_with("\n\tß 日本"), "{shown:?}");
        assert_eq!(shown.chars().count(), text.chars().count());
        // Arabic with its marks stays; what would turn the text behind it does not.
        assert_eq!(without_controls("ك\u{200f}\u{202e}x\u{2066}"), "ك\u{200f}\u{fffd}x\u{fffd}");
    }
}
