//! Text that a command works on: from the command line, standard input, or a file.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::{Result, anyhow, bail};

use crate::args::UsageError;

/// Longest text taken: far beyond any context, and not all of a small machine's memory.
pub const MAX_TEXT_BYTES: u64 = 256 << 20;

/// The text given on the command line, or standard input if it is `-` or there is none.
///
/// Without a text and with a terminal as standard input this is a usage error, which ends the
/// program: waiting for someone to type would look like hanging.
pub fn text_or_stdin(text: Option<&str>, what: &str) -> Result<String> {
    match text {
        Some(text) if text != "-" => Ok(text.to_owned()),
        None if io::stdin().is_terminal() => {
            let text = format!("no {what}: give one, or pipe it to standard input");
            Err(UsageError::missing(text).into())
        }
        _ => read("standard input", io::stdin().lock()),
    }
}

/// The text of a file.
pub fn text_file(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    if path.is_dir() {
        bail!("{name}: this is a directory; give a text file");
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{name}: no such file; check the path")
        }
        Err(error) => bail!("{name}: {error}; check the file's permissions"),
    };
    read(&name, file)
}

fn read(name: &str, from: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_TEXT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| anyhow!("{name}: {error}; give something that can be read"))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        let max = crate::units::bytes(MAX_TEXT_BYTES);
        bail!("{name}: the text is longer than {max}; give a part of it");
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow!("{name}: not UTF-8, byte {at} is wrong; convert the text to UTF-8 first")
    })
}

/// `text` without one line break at its end: the one that `echo` and editors put there.
pub fn without_final_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
