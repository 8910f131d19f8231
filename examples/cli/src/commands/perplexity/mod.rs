//! `pocketgpt perplexity`

mod past;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde::Serialize;

use self::past::PastArgs;
use super::Outcome;
use crate::args::{ModelArgs, RunArgs};
use crate::engine::Engine;
use crate::model::Model;
use crate::perplexity::{TokenStream, score};
use crate::{input, interrupt, output, units};

/// Rows of logits made together: enough to use the head's weights well, little memory.
const LOGIT_ROWS: usize = 16;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt perplexity --text story.txt
  pocketgpt perplexity -m gpt2.pgpt --text wiki.txt --kv f32 --json
  pocketgpt perplexity --text story.txt --overflow refill --keep 4
  pocketgpt perplexity --text story.txt --overflow refill --limit 3000 --anew --plot tails.svg \\
      --compare-keep 0,1,4,16 --compare-tail 64,128,255,384

Documents in the text are separated by <|endoftext|>. The text is read in windows of the model's
whole context, which do not overlap; the first token of each is not scored. With --overflow refill or
shadow it is one text instead, and what is scored are the tokens past the first window, which stop
cannot reach.")]
pub struct PerplexityArgs {
    /// Text file
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    past: PastArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    text: String,
    perplexity: f64,
    scored_tokens: usize,
    stream_tokens: usize,
    text_bytes: usize,
    nats_per_token: f64,
    nats_per_byte: f64,
    bits_per_byte: f64,
    tokens_per_second: Option<f64>,
    seconds: f64,
    isa: &'static str,
    threads: usize,
    kv: &'static str,
}

pub fn run(args: &PerplexityArgs) -> Result<Outcome> {
    args.past.check()?;
    let model = Model::open_to_run(&args.model, &args.run)?;
    let text_name = args.text.display();
    let eos = model.weights()?.config().eos_token_id.ok_or_else(|| {
        anyhow!("{}: the model names no token that separates documents; convert it again with eos_token_id in its config.json", model.name())
    })?;
    let stream = TokenStream::new(&input::text_file(&args.text)?, &model.tokenizer()?, eos);
    if stream.tokens.len() < 2 {
        bail!("{text_name}: there is no text in the file; give one with some sentences");
    }
    if args.past.is_wanted() {
        return past::run(args, &model, &stream);
    }
    let mut engine = Engine::new(&model, &args.run, LOGIT_ROWS)?;
    interrupt::catch();

    let bar = output::progress_bar(stream.tokens.len(), "tokens");
    let batch = engine.options().batch;
    let (mut session, par) = engine.session()?;
    let start = Instant::now();
    let score = score(&mut session, par, &stream.tokens, batch, |tokens| {
        bar.inc(tokens as u64);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let score = score.map_err(|error| {
        anyhow!("{}: {error}; check the file with pocketgpt verify", model.name())
    })?;
    let Some(score) = score else {
        output::note(format_args!("stopped before the end of {text_name}: no result"));
        return Ok(Outcome::Interrupted);
    };

    let report = Report {
        model: model.name().into(),
        text: text_name.to_string(),
        perplexity: score.perplexity(),
        scored_tokens: score.scored_tokens,
        stream_tokens: stream.tokens.len(),
        text_bytes: stream.text_bytes,
        nats_per_token: score.nats / score.scored_tokens as f64,
        nats_per_byte: score.nats / stream.text_bytes as f64,
        bits_per_byte: score.nats / stream.text_bytes as f64 / std::f64::consts::LN_2,
        tokens_per_second: units::per_second(score.scored_tokens, seconds),
        seconds,
        isa: engine.isa().name(),
        threads: engine.options().threads,
        kv: engine.options().kv.name(),
    };
    if args.json {
        output::json(&report)?;
    } else {
        output::write(&format!(
            "perplexity {:.4} ({:.4} nats per token, {:.4} bits per byte)\n\
             {} tokens scored of {}, {} tokens/s\n",
            report.perplexity,
            report.nats_per_token,
            report.bits_per_byte,
            report.scored_tokens,
            report.stream_tokens,
            units::speed(report.tokens_per_second),
        ))?;
    }
    Ok(Outcome::Done)
}
