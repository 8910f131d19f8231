//! Where lines come from: a person at a terminal, or whatever standard input is.

use std::io::{self, BufRead, IsTerminal};
use std::path::Path;

use anyhow::{Result, anyhow, bail};

use crate::input;

const PROMPT: &str = "> ";

/// What the user does.
pub enum Line {
    /// Gives a line, without its line break.
    Text(String),
    /// Presses Ctrl-C while typing.
    #[cfg_attr(
        not(feature = "line-editing"),
        expect(dead_code, reason = "Ctrl-C is a signal then")
    )]
    Interrupted,
    /// Has no more.
    End,
}

/// Lines, one by one.
pub struct Lines {
    source: Source,
}

enum Source {
    #[cfg(feature = "line-editing")]
    Editor(Box<editor::Editor>),
    /// Typed, but not edited.
    Typed,
    Piped,
}

impl Lines {
    /// From standard input; `history` is a file that keeps what is typed.
    pub fn new(history: Option<&Path>) -> Result<Self> {
        let typed = io::stdin().is_terminal();
        #[cfg(feature = "line-editing")]
        if typed && io::stdout().is_terminal() {
            return Ok(Self { source: Source::Editor(Box::new(editor::Editor::new(history)?)) });
        }
        let _ = history;
        Ok(Self { source: if typed { Source::Typed } else { Source::Piped } })
    }

    /// Whether a person types them, who can correct an error.
    pub fn are_typed(&self) -> bool {
        !matches!(self.source, Source::Piped)
    }

    /// The next line.
    pub fn next(&mut self) -> Result<Line> {
        match &mut self.source {
            #[cfg(feature = "line-editing")]
            Source::Editor(editor) => editor.next(),
            Source::Typed => {
                // Standard output is for the text.
                eprint!("{PROMPT}");
                read_line()
            }
            Source::Piped => read_line(),
        }
    }

    /// Keeps what was typed, if it is to be kept.
    pub fn finish(self) -> Result<()> {
        match self.source {
            #[cfg(feature = "line-editing")]
            Source::Editor(editor) => editor.finish(),
            _ => Ok(()),
        }
    }
}

fn read_line() -> Result<Line> {
    line_of(io::stdin().lock(), input::MAX_TEXT_BYTES)
}

/// A line of at most `max` bytes: what has no end would take all of the memory.
fn line_of(from: impl BufRead, max: u64) -> Result<Line> {
    let mut line = Vec::new();
    from.take(max + 1)
        .read_until(b'\n', &mut line)
        .map_err(|error| anyhow!("standard input: {error}; give something that can be read"))?;
    if line.is_empty() {
        return Ok(Line::End);
    }
    if line.len() as u64 > max {
        let max = crate::units::bytes(max);
        bail!("standard input: a line is longer than {max}; give a part of it");
    }
    String::from_utf8(line).map(|line| Line::Text(super::without_break(line))).map_err(|_| {
        anyhow!("standard input: a line is not UTF-8; convert the text to UTF-8 first")
    })
}

#[cfg(feature = "line-editing")]
mod editor {
    use std::path::{Path, PathBuf};

    use anyhow::{Result, anyhow};
    use rustyline::error::ReadlineError;
    use rustyline::{Config, DefaultEditor};

    use super::{Line, PROMPT};

    /// A line editor with a history.
    pub struct Editor {
        editor: DefaultEditor,
        history: Option<PathBuf>,
    }

    impl Editor {
        pub fn new(history: Option<&Path>) -> Result<Self> {
            let config = Config::builder().auto_add_history(true).build();
            let mut editor = DefaultEditor::with_config(config)
                .map_err(|error| anyhow!("the terminal: {error}; use a pipe"))?;
            if let Some(path) = history {
                match editor.load_history(path) {
                    // It will be made at the end.
                    Err(ReadlineError::Io(error))
                        if error.kind() == std::io::ErrorKind::NotFound =>
                    {
                        editor.save_history(path)
                    }
                    loaded => loaded,
                }
                .map_err(|error| history_error(path, &error))?;
            }
            Ok(Self { editor, history: history.map(Path::to_owned) })
        }

        pub fn next(&mut self) -> Result<Line> {
            match self.editor.readline(PROMPT) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(anyhow!("the terminal: {error}; use a pipe")),
            }
        }

        pub fn finish(mut self) -> Result<()> {
            let Some(path) = &self.history else { return Ok(()) };
            self.editor.append_history(path).map_err(|error| history_error(path, &error))
        }
    }

    fn history_error(path: &Path, error: &ReadlineError) -> anyhow::Error {
        anyhow!("{}: {error}; choose another file for --history", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_an_end() {
        let line = |text: &'static [u8]| match line_of(text, 8) {
            Ok(Line::Text(line)) => Ok(line),
            Ok(_) => Ok("the end".into()),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(line(b"a line\nand another").unwrap(), "a line");
        assert_eq!(line(b"8 bytes\n").unwrap(), "8 bytes");
        assert_eq!(line(b"").unwrap(), "the end");
        assert!(line(b"12345678\n").unwrap_err().contains("a line is longer than 8 B"));
        assert!(line(b"a\xff\n").unwrap_err().contains("not UTF-8"));
        assert!(line_of(io::BufReader::new(io::repeat(b'x')), 1 << 20).is_err());
    }
}
