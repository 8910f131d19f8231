//! `pocketgpt tokenize`

use std::fmt::Write;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::Outcome;
use crate::args::ModelArgs;
use crate::model::Model;
use crate::{input, output};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt tokenize \"Once upon a time\"
  pocketgpt tokenize --ids \"Once upon a time\"
  pocketgpt tokenize --json < story.txt

Standard input is taken as it is, with the line break at its end.")]
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
    let decodes_back = tokenizer.decode_to_string(&ids) == text;
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
        output::json(&Report { tokens, token_count, text_bytes: text.len(), decodes_back })?;
        return Ok(Outcome::Done);
    }

    let mut table = String::from("     id       bytes  token\n");
    for (id, span) in tokens {
        let span = format!("{}..{}", span.start, span.end);
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{id:7} {span:>11}  {}", quoted(bytes_of(id)));
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

/// A token in quotes, on one line: text as it is, other bytes as numbers.
pub fn quoted(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    }
}
