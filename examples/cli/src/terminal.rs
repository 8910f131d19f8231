//! What standard output can show: colours, characters, and how many in a line.

use std::env;
use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};

/// Width of lines where there is no terminal to ask.
const DEFAULT_WIDTH: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum When {
    /// In a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, Args)]
pub struct ColorArgs {
    /// Use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Auto)]
    color: When,
}

impl ColorArgs {
    /// Whether standard output takes colours.
    pub fn on(self) -> bool {
        match self.color {
            When::Auto => {
                let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
                io::stdout().is_terminal() && !dumb && !no_color()
            }
            When::Always => true,
            When::Never => false,
        }
    }
}

/// Whether the user wants no colours anywhere: <https://no-color.org>.
pub fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Whether characters outside of ASCII can be shown, as far as the locale tells.
pub fn unicode() -> bool {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    cfg!(windows)
        || locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        })
}

/// Characters in a line.
pub fn width() -> usize {
    let told = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let asked = || console::Term::stdout().size_checked().map(|(_, columns)| columns.into());
    told.or_else(asked).filter(|&columns| columns > 0).unwrap_or(DEFAULT_WIDTH)
}

/// `text` as wide as `width` characters of a terminal: shortened, or with spaces behind it.
pub fn fitted(text: &str, width: usize) -> String {
    let short = console::truncate_str(text, width, if unicode() { "…" } else { "~" });
    console::pad_str(&short, width, console::Alignment::Left, None).into_owned()
}
