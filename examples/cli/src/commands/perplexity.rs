//! `pocketgpt perplexity`

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::workspace::SessionOptions;
use serde::Serialize;

use super::Outcome;
use crate::args::{ModelArgs, RunArgs};
use crate::bench::float_twin;
use crate::divergence::{Divergence, compare};
use crate::engine::Engine;
use crate::model::{Model, copied_by};
use crate::perplexity::{TokenStream, score};
use crate::{input, interrupt, output, units};

/// Rows of logits made together: enough to use the head's weights well, little memory.
const LOGIT_ROWS: usize = 16;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt perplexity --text story.txt
  pocketgpt perplexity -m gpt2.pgpt --text wiki.txt --kv f32 --json
  pocketgpt perplexity -m gpt2-q4.pgpt --reference gpt2-f32.pgpt --text wiki.txt
  pocketgpt perplexity -m gpt2-q4.pgpt --reference gpt2-f32.pgpt --text wiki.txt --weights-only

Documents in the text are separated by <|endoftext|>. The text is read in windows of the model's
whole context, which do not overlap; the first token of each is not scored.

With --reference both models read the text side by side. The reference keeps its keys and values
in f32. What is told then: the ratio of perplexities, the Kullback-Leibler divergence of the
predictions in nats per token, and how often the most probable token is the same; behind ± stands
the standard error.")]
pub struct PerplexityArgs {
    /// Text file
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Model to compare with: the same checkpoint converted with --to f32
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Compute with the model's weights in f32, activations, keys and values as well: what
    /// quantized weights lose by themselves
    #[arg(long)]
    weights_only: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
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
    weights_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(flatten)]
    divergence: Option<Divergence>,
}

pub fn run(args: &PerplexityArgs) -> Result<Outcome> {
    let mut model = Model::open_to_run(&args.model, &args.run)?;
    let text_name = args.text.display();
    let eos = model.weights()?.config().eos_token_id.ok_or_else(|| {
        anyhow!("{}: the model names no token that separates documents; convert it again with eos_token_id in its config.json", model.name())
    })?;
    let stream = TokenStream::new(&input::text_file(&args.text)?, &model.tokenizer()?, eos);
    if stream.tokens.len() < 2 {
        bail!("{text_name}: there is no text in the file; give one with some sentences");
    }
    let reference = args
        .reference
        .as_deref()
        .map(|path| Model::load(path, copied_by(&args.model, &args.run)))
        .transpose()?;
    if let Some(reference) = &reference {
        check_reference(&model, reference)?;
    }
    let name = model.name().to_owned();
    if args.weights_only {
        model = float_twin(&model)?;
    }
    // The twin is a model in f32, so that its default is a cache in f32.
    let mut engine = Engine::new(&model, &args.run, LOGIT_ROWS)?;
    let in_f32 = |options| SessionOptions { kv: KvType::F32, logit_rows: LOGIT_ROWS, ..options };
    let mut reference_engine =
        reference.as_ref().map(|model| Engine::with(model, &args.run, in_f32)).transpose()?;
    interrupt::catch();

    let bar = output::progress_bar(stream.tokens.len(), "tokens");
    let batch = engine.options().batch;
    let (mut session, par) = engine.session()?;
    let start = Instant::now();
    let progress = |tokens| {
        bar.inc(tokens as u64);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let score = match &mut reference_engine {
        None => score(&mut session, par, &stream.tokens, batch, progress)
            .map(|score| score.map(|score| (score, None))),
        Some(reference) => {
            let (mut reference, _) = reference.session()?;
            compare((&mut session, &mut reference), par, &stream.tokens, batch, progress)
                .map(|found| found.map(|(score, divergence)| (score, Some(divergence))))
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let score =
        score.map_err(|error| anyhow!("{name}: {error}; check the file with pocketgpt verify"))?;
    let Some((score, divergence)) = score else {
        output::note(format_args!("stopped before the end of {text_name}: no result"));
        return Ok(Outcome::Interrupted);
    };

    let report = Report {
        model: name,
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
        weights_only: args.weights_only,
        reference: reference.map(|model| model.name().to_owned()),
        divergence,
    };
    if args.json {
        output::json(&report)?
    } else {
        output::write(&text(&report))?
    }
    Ok(Outcome::Done)
}

/// The same ids must mean the same, at the same positions.
fn check_reference(model: &Model, reference: &Model) -> Result<()> {
    let (ours, theirs) = (model.weights()?, reference.weights()?);
    let (ours, theirs) = (ours.config(), theirs.config());
    for (what, ours, theirs) in
        [("vocab_size", ours.vocab_size, theirs.vocab_size), ("n_ctx", ours.n_ctx, theirs.n_ctx)]
    {
        if ours != theirs {
            bail!(
                "{}: {what} is {theirs}, that of {} is {ours}; give the same model in f32",
                reference.name(),
                model.name()
            );
        }
    }
    Ok(())
}

/// The report for people.
fn text(report: &Report) -> String {
    let mut out = format!(
        "perplexity {:.4} ({:.4} nats per token, {:.4} bits per byte)\n",
        report.perplexity, report.nats_per_token, report.bits_per_byte
    );
    if let (Some(d), Some(reference)) = (&report.divergence, &report.reference) {
        out += &format!(
            "reference  {:.4} ({reference})\n\
             ratio      {:.5} ± {:.5}\n\
             KL         {:.6} ± {:.6} mean, {:.6} median, {:.5} at 99 %, {:.4} at most\n\
             top 1      {:.2} ± {:.2} % the same\n\
             top 5      {:.2} ± {:.2} % the same\n",
            d.reference_perplexity,
            d.perplexity_ratio,
            d.perplexity_ratio_stderr,
            d.mean_kl_divergence,
            d.mean_kl_divergence_stderr,
            d.median_kl_divergence,
            d.p99_kl_divergence,
            d.max_kl_divergence,
            100.0 * d.top1_agreement,
            100.0 * d.top1_agreement_stderr,
            100.0 * d.top5_agreement,
            100.0 * d.top5_agreement_stderr,
        );
    }
    out + &format!(
        "{} tokens scored of {}, {} tokens/s\n",
        report.scored_tokens,
        report.stream_tokens,
        units::speed(report.tokens_per_second)
    )
}
