//! `pocketgpt tokenize`

use std::fmt::Write;
use std::ops::Range;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::Outcome;
use crate::args::ModelArgs;
use crate::model::Model;
use crate::terminal::ColorArgs;
use crate::{input, output};

/// Backgrounds that tokens have in turn, of the 256 colours that terminals have.
const BACKGROUNDS: [u8; 5] = [153, 222, 157, 218, 189];

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt tokenize \"Once upon a time\"
  pocketgpt tokenize --ids \"Once upon a time\"
  pocketgpt tokenize --json < story.txt

In a terminal the text comes first, with a colour for each token. Standard input is taken as it is,
with the line break at its end.")]
pub struct TokenizeArgs {
    /// Text; `-` or none reads it from standard input
    text: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Print only the ids, with commas between, as `logits --ids` takes them
    #[arg(long, conflicts_with = "json")]
    ids: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    color: ColorArgs,
}

#[derive(Debug, Serialize)]
struct Token {
    id: u32,
    /// Its bytes as text, U+FFFD in place of cut characters.
    text: String,
    start_byte: usize,
    end_byte: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    tokens: Vec<Token>,
    token_count: usize,
    text_bytes: usize,
    /// The text of the tokens.
    decoded: String,
    decodes_back: bool,
}

pub fn run(args: &TokenizeArgs) -> Result<Outcome> {
    let text = input::text_or_stdin(args.text.as_deref(), "text")?;
    let model = Model::open(&args.model)?;
    let tokenizer = model.tokenizer()?;
    let tokens = tokenizer.encode_with_spans(&text);
    let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
    if args.ids {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        output::write(&(ids.join(",") + "\n"))?;
        return Ok(Outcome::Done);
    }

    let bytes_of = |id| tokenizer.token_bytes(id).unwrap_or_default();
    let decoded = tokenizer.decode_to_string(&ids);
    let decodes_back = decoded == text;
    if args.json {
        let tokens: Vec<Token> = tokens
            .into_iter()
            .map(|(id, span)| Token {
                id,
                text: String::from_utf8_lossy(bytes_of(id)).into_owned(),
                start_byte: span.start,
                end_byte: span.end,
            })
            .collect();
        let token_count = tokens.len();
        let text_bytes = text.len();
        output::json(&Report { tokens, token_count, text_bytes, decoded, decodes_back })?;
        return Ok(Outcome::Done);
    }

    let mut table = String::new();
    if args.color.on() {
        table.push_str(&coloured(&text, &tokens));
    }
    table.push_str("     id       bytes  token\n");
    for (number, (id, span)) in tokens.into_iter().enumerate() {
        let span = format!("{}..{}", span.start, span.end);
        let mut token = quoted(bytes_of(id));
        if args.color.on() {
            token = on_background(number, &token);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{id:7} {span:>11}  {token}");
    }
    output::write(&table)?;
    output::note(format_args!(
        "{} tokens, {} bytes; the tokens decode back to {}",
        ids.len(),
        text.len(),
        if decodes_back { "the same text" } else { "another text" }
    ));
    Ok(Outcome::Done)
}

/// Black letters on the background of a token.
fn on_background(number: usize, text: &str) -> String {
    format!("\x1b[38;5;16;48;5;{}m{text}\x1b[0m", BACKGROUNDS[number % BACKGROUNDS.len()])
}

/// The text with a background for each token. Tokens that share a character share one.
fn coloured(text: &str, tokens: &[(u32, Range<usize>)]) -> String {
    let mut out = String::new();
    let mut start = 0;
    for (number, (_, span)) in tokens.iter().enumerate() {
        if !text.is_char_boundary(span.end) || span.end == start {
            continue;
        }
        // No background to the end of the line, and nothing that would command the terminal.
        for (i, line) in text[start..span.end].split('\n').enumerate() {
            if i > 0 {
                out.push_str(&on_background(number, "↵"));
                out.push('\n');
            }
            if !line.is_empty() {
                let shown = |c: char| if output::is_order(c) { '\u{fffd}' } else { c };
                out.push_str(&on_background(number, &line.chars().map(shown).collect::<String>()));
            }
        }
        start = span.end;
    }
    out + "\n\n"
}

/// A token in quotes, on one line: text as it is, other bytes as numbers.
pub fn quoted(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// A token as a label: on one line, with its spaces to be seen.
pub fn visible(bytes: &[u8]) -> String {
    let visible = |c| match c {
        ' ' => '·',
        '\n' => '↵',
        c if output::is_order(c) => '\u{fffd}',
        c => c,
    };
    String::from_utf8_lossy(bytes).chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text without its colours, and how many pieces have one.
    fn plain(coloured: &str) -> (String, usize) {
        let pieces: Vec<&str> = coloured.split("\x1b[0m").collect();
        let text = pieces.iter().map(|piece| match piece.split_once('m') {
            Some((before, text)) if before.contains("\x1b[") => {
                before.split("\x1b[").next().unwrap().to_owned() + text
            }
            _ => (*piece).to_owned(),
        });
        (text.collect(), pieces.len() - 1)
    }

    #[test]
    fn colours_leave_the_text_as_it_is() {
        let spans = [0..3, 3..5, 5..6];
        let tokens: Vec<_> = spans.map(|span| (0, span)).into();
        assert_eq!(plain(&coloured("abcdef", &tokens)), ("abcdef\n\n".into(), 3));
        // A character of three bytes in two tokens, and a line break.
        let tokens = [(0, 0..1), (0, 1..3), (0, 3..4), (0, 4..5)];
        assert_eq!(plain(&coloured("日\na", &tokens)), ("日↵\na\n\n".into(), 3));
        assert_eq!(plain(&coloured("\x1b[2J", &[(0, 0..4)])).0, "\u{fffd}[2J\n\n");
        assert_eq!(plain(&coloured("\u{202e}a", &[(0, 0..4)])).0, "\u{fffd}a\n\n");
    }

    #[test]
    fn labels_are_one_line() {
        assert_eq!(visible(b" two words\n"), "·two·words↵");
        assert_eq!(visible(b"\x1b\xff"), "\u{fffd}\u{fffd}");
        assert_eq!(visible("\u{2066}".as_bytes()), "\u{fffd}");
    }
}
