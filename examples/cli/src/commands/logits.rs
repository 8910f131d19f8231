//! `pocketgpt logits`

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use pocketgpt_runtime::tokenizer::TokenizerView;
use serde::Serialize;

use super::Outcome;
use super::tokenize::quoted;
use crate::args::{ModelArgs, RunArgs};
use crate::engine::Engine;
use crate::model::Model;
use crate::npy::NpyWriter;
use crate::{outfile, output};

/// Tokens shown per position.
const TOP: usize = 10;
/// Rows of logits made together.
const LOGIT_ROWS: usize = 16;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt logits --text \"Once upon a\"
  pocketgpt logits --ids 3478,813,258 --npy last.npy
  pocketgpt logits --ids 3478,813,258 --all --npy all.npy --json

The file has shape [vocab_size], with --all [tokens, vocab_size], f32. Without --npy the ten most
probable next tokens are printed.")]
pub struct LogitsArgs {
    #[command(flatten)]
    tokens: TokensArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// After every token, not only the last
    #[arg(long)]
    all: bool,
    /// Write the logits to this file (NumPy)
    #[arg(long, value_name = "FILE")]
    npy: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TokensArgs {
    /// Token ids with commas between
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    ids: Vec<u32>,
    /// Text
    #[arg(long)]
    text: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    ids: Vec<u32>,
    shape: Vec<usize>,
    npy: Option<String>,
    positions: Vec<Position>,
}

#[derive(Debug, Serialize)]
struct Position {
    position: usize,
    top: Vec<Guess>,
}

#[derive(Debug, Serialize)]
struct Guess {
    id: u32,
    /// Null where the file has no tokenizer.
    token: Option<String>,
    logit: f32,
    probability: f64,
}

pub fn run(args: &LogitsArgs) -> Result<Outcome> {
    if let Some(path) = &args.npy {
        outfile::check_beside(path, args.model.model.as_deref())?;
    }
    let model = Model::open_to_run(&args.model, &args.run)?;
    let ids = token_ids(args, &model)?;
    let tokenizer = model.weights()?.tokenizer().map_err(|error| model.format_error(&error))?;
    let mut engine = Engine::new(&model, &args.run, LOGIT_ROWS)?;
    let vocab_size = engine.model().config().vocab_size as usize;
    let shape = if args.all { vec![ids.len(), vocab_size] } else { vec![vocab_size] };

    let mut npy = match &args.npy {
        Some(path) => Some(NpyWriter::create(path, &shape)?),
        None => None,
    };
    let mut positions = Vec::new();
    let mut written = Ok(());
    let mut finite = true;
    let mut each = |position: usize, logits: &[f32]| {
        finite &= logits.iter().all(|x| x.is_finite());
        match &mut npy {
            Some(npy) if written.is_ok() => written = npy.write(logits),
            Some(_) => {}
            None => positions.push(Position { position, top: top(logits, tokenizer.as_ref()) }),
        }
    };
    let (mut session, par) = engine.session()?;
    if args.all {
        session.feed_all(&ids, par, &mut each)?;
    } else {
        each(ids.len() - 1, session.feed(&ids, par)?);
    }
    if !finite {
        bail!(
            "{}: a logit is not a finite number; the weights are damaged or overflow",
            model.name()
        );
    }
    written?;
    if let Some(npy) = npy {
        npy.finish()?;
    }

    let npy = args.npy.as_ref().map(|path| path.display().to_string());
    let report = Report { model: model.name().into(), ids, shape, npy, positions };
    if args.json {
        output::json(&report)?;
    } else if let Some(path) = &report.npy {
        output::note(format_args!("{path}: f32 {:?}", report.shape));
    } else {
        output::write(&table(&report.positions))?;
    }
    Ok(Outcome::Done)
}

fn token_ids(args: &LogitsArgs, model: &Model) -> Result<Vec<u32>> {
    if let Some(text) = &args.tokens.text {
        return model.prompt_ids(text);
    }
    let config = *model.weights()?.config();
    let ids = args.tokens.ids.clone();
    if let Some(id) = ids.iter().find(|id| **id >= config.vocab_size) {
        let last = config.vocab_size - 1;
        bail!("--ids {id}: {} has the token ids 0 to {last}; use one of these", model.name());
    }
    if ids.len() > config.n_ctx as usize {
        bail!("--ids: these are {} tokens, {} fit; give fewer", ids.len(), config.n_ctx);
    }
    Ok(ids)
}

/// The most probable tokens, the lower id first where two are equal.
fn top(logits: &[f32], tokenizer: Option<&TokenizerView<'_>>) -> Vec<Guess> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    ids.into_iter()
        .take(TOP)
        .map(|id| {
            let logit = logits[id as usize];
            let bytes = tokenizer.and_then(|tokenizer| tokenizer.token_bytes(id));
            Guess {
                id,
                token: bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
                logit,
                probability: f64::from(logit - max).exp() / sum,
            }
        })
        .collect()
}

fn table(positions: &[Position]) -> String {
    let mut text = String::new();
    for Position { position, top } in positions {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "after token {position}\n     id      logit  probability  token");
        for Guess { id, token, logit, probability } in top {
            let token = token.as_ref().map_or("-".into(), |token| quoted(token.as_bytes()));
            let _ = writeln!(text, "{id:7} {logit:10.4}  {probability:11.6}  {token}");
        }
    }
    text
}
