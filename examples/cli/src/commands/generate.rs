//! `pocketgpt generate`

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use pocketgpt_runtime::generate::{self, GenerateOptions};
use pocketgpt_runtime::sampling::{Candidate, Sampler, SamplingOptions, Strategy};
use pocketgpt_runtime::tokenizer::TokenizerView;
use serde::Serialize;

use super::Outcome;
use crate::args::{ModelArgs, RunArgs};
use crate::engine::Engine;
use crate::model::Model;
use crate::stream::TextStream;
use crate::{input, interrupt, machine, output, units};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt generate \"Once upon a time\"
  pocketgpt generate --strategy greedy -n 40 \"There was once a king\"
  pocketgpt generate --seed 7 --temperature 0.6 --stop \".\" \"The fox\"
  pocketgpt generate --no-echo --quiet \"The fox\" > story.txt
  echo \"Once upon a time\" | pocketgpt generate --json

The prompt is printed before the text that continues it. A seed gives the same text on every
machine, with any number of threads. Defaults of the sampling options come from the model file, else
temperature 0.8 and top-k 40. A prompt from standard input is taken without the line break at its
end; an empty one starts a new text.")]
pub struct GenerateArgs {
    /// Text to continue; `-` or none reads it from standard input
    prompt: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Most tokens to write
    #[arg(short = 'n', long, value_name = "N", default_value_t = 200)]
    max_new_tokens: usize,
    /// Stop before this text (can be given several times)
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Go on where the model ends its text; the end is printed as the token's text
    #[arg(long)]
    ignore_eos: bool,
    /// Print only what is new, without the prompt before it
    #[arg(long)]
    no_echo: bool,
    /// No statistics on standard error
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON object at the end, in place of the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Choosing tokens")]
pub struct SamplingArgs {
    /// How the next token is chosen
    #[arg(long, value_enum, default_value_t = StrategyName::Sample)]
    strategy: StrategyName,
    /// Below 1 more predictable, above 1 less
    #[arg(long, value_name = "T", value_parser = positive)]
    temperature: Option<f32>,
    /// Choose among the K most probable tokens; 0: among all
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Choose among the most probable tokens that together reach P; 1: among all
    #[arg(long, value_name = "P", value_parser = share_above_zero)]
    top_p: Option<f32>,
    /// Leave out tokens less probable than P times the most probable one; 0: none
    #[arg(long, value_name = "P", value_parser = share)]
    min_p: Option<f32>,
    /// Above 1: tokens that are in the text already become less probable
    #[arg(long, value_name = "R", value_parser = positive)]
    repetition_penalty: Option<f32>,
    /// Number that the random choices follow from [default: a random one, told at the end]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StrategyName {
    /// Always the most probable token
    Greedy,
    /// Drawn at random, by probability
    Sample,
}

fn decimal(text: &str, ok: impl Fn(f32) -> bool, expected: &str) -> Result<f32, String> {
    text.parse().ok().filter(|&x| ok(x)).ok_or_else(|| format!("expected {expected}"))
}

fn positive(text: &str) -> Result<f32, String> {
    decimal(text, |x| x > 0.0 && x.is_finite(), "a number above 0")
}

fn share(text: &str) -> Result<f32, String> {
    decimal(text, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

fn share_above_zero(text: &str) -> Result<f32, String> {
    decimal(text, |x| x > 0.0 && x <= 1.0, "a number above 0, at most 1")
}

/// Why the text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    EndOfText,
    MaxNewTokens,
    StopText,
    ContextFull,
    Interrupted,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    text: String,
    ids: Vec<u32>,
    prompt_ids: Vec<u32>,
    stop_reason: StopReason,
    seed: u64,
    model: String,
    isa: &'static str,
    threads: usize,
    kv: &'static str,
    prompt_tokens: usize,
    new_tokens: usize,
    load_seconds: f64,
    prefill_seconds: f64,
    decode_seconds: f64,
    prefill_tokens_per_second: Option<f64>,
    decode_tokens_per_second: Option<f64>,
    peak_rss_bytes: Option<u64>,
}

pub fn run(args: &GenerateArgs) -> Result<Outcome> {
    let prompt = match &args.prompt {
        Some(prompt) if prompt != "-" => prompt.clone(),
        prompt => input::without_final_newline(input::text_or_stdin(prompt.as_deref(), "prompt")?),
    };
    let start = Instant::now();
    let model = Model::open_to_run(&args.model, &args.run)?;
    let tokenizer = model.tokenizer()?;
    let mut engine = Engine::new(&model, &args.run, 1)?;
    let load_seconds = start.elapsed().as_secs_f64();

    let prompt_ids = model.prompt_ids(&prompt)?;
    let seed = args.sampling.seed.unwrap_or_else(random_seed);
    interrupt::catch();
    let mut writer = Writer::new(args, &prompt, tokenizer)?;
    let written = write_text(args, &model, &mut engine, &prompt_ids, seed, &mut writer);
    // What has been written ends with its line also when an error follows.
    let (text, ids) = writer.finish()?;
    let Written { stop_reason, prefill_seconds, decode_seconds } = written?;

    let report = Report {
        text,
        stop_reason,
        seed,
        model: model.name().into(),
        isa: engine.isa().name(),
        threads: engine.options().threads,
        kv: engine.options().kv.name(),
        prompt_tokens: prompt_ids.len(),
        new_tokens: ids.len(),
        load_seconds,
        prefill_seconds,
        decode_seconds,
        prefill_tokens_per_second: units::per_second(prompt_ids.len(), prefill_seconds),
        // The first token comes out of the prompt.
        decode_tokens_per_second: units::per_second(ids.len().saturating_sub(1), decode_seconds),
        peak_rss_bytes: machine::peak_rss_bytes(),
        ids,
        prompt_ids,
    };
    if args.json {
        output::json(&report)?;
    }
    if !args.quiet {
        print_statistics(&report, engine.n_ctx());
    }
    Ok(if stop_reason == StopReason::Interrupted { Outcome::Interrupted } else { Outcome::Done })
}

/// Short enough to be typed again, and exact in every JSON reader.
pub fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

/// The strategy and the repetition penalty that the user or the model file asks for.
pub fn strategy(args: &SamplingArgs, model: &Model) -> Result<(Strategy, f32)> {
    let metadata = model.metadata()?;
    let from_file = |key: &str| metadata["generation"][key].as_f64().map(|x| x as f32);
    let top_k = metadata["generation"]["top_k"].as_u64().and_then(|k| u32::try_from(k).ok());
    let penalty = args.repetition_penalty.or_else(|| from_file("repetition_penalty"));
    let options = SamplingOptions {
        temperature: args.temperature.or_else(|| from_file("temperature")).unwrap_or(0.8),
        top_k: args.top_k.or(top_k).unwrap_or(40),
        top_p: args.top_p.or_else(|| from_file("top_p")).unwrap_or(1.0),
        min_p: args.min_p.or_else(|| from_file("min_p")).unwrap_or(0.0),
    };
    let strategy = match args.strategy {
        StrategyName::Greedy => Strategy::Greedy,
        StrategyName::Sample => Strategy::Sample(options),
    };
    Ok((strategy, penalty.unwrap_or(1.0)))
}

/// How the writing went.
struct Written {
    stop_reason: StopReason,
    prefill_seconds: f64,
    decode_seconds: f64,
}

fn write_text(
    args: &GenerateArgs,
    model: &Model,
    engine: &mut Engine<'_>,
    prompt_ids: &[u32],
    seed: u64,
    writer: &mut Writer<'_>,
) -> Result<Written> {
    let config = *engine.model().config();
    let vocab_size = config.vocab_size as usize;
    let mut candidates = vec![Candidate::default(); vocab_size];
    let mut values = vec![0.0; vocab_size];
    let mut history = vec![0; config.n_ctx as usize];
    let (strategy, penalty) = strategy(&args.sampling, model)?;
    let mut sampler = Sampler::new(strategy, penalty, seed, &mut candidates, &mut values)
        .map_err(|error| anyhow!("{}: {error}; give the option yourself", model.name()))?;
    let options = GenerateOptions {
        max_new_tokens: args.max_new_tokens,
        eos_token_id: config.eos_token_id.filter(|_| !args.ignore_eos),
    };

    let (mut session, par) = engine.session()?;
    let start = Instant::now();
    let mut first_token = None;
    let ended = generate::generate(
        &mut session,
        par,
        &mut sampler,
        &mut history,
        prompt_ids,
        &options,
        |token| {
            first_token.get_or_insert_with(Instant::now);
            writer.push(token)
        },
    );
    let end = Instant::now();
    let ended = ended.map_err(|error| {
        anyhow!("{}: {error}; check the file with pocketgpt verify", model.name())
    })?;
    let first_token = first_token.unwrap_or(end);
    Ok(Written {
        stop_reason: match ended {
            generate::StopReason::EndOfText => StopReason::EndOfText,
            generate::StopReason::MaxNewTokens => StopReason::MaxNewTokens,
            generate::StopReason::ContextFull => StopReason::ContextFull,
            generate::StopReason::Interrupted if writer.text.stopped() => StopReason::StopText,
            generate::StopReason::Interrupted => StopReason::Interrupted,
        },
        prefill_seconds: (first_token - start).as_secs_f64(),
        decode_seconds: (end - first_token).as_secs_f64(),
    })
}

/// Takes the tokens as they come, and prints or keeps their text.
struct Writer<'a> {
    text: TextStream<'a>,
    ids: Vec<u32>,
    /// Whether the text is kept for the report and not printed.
    keep: bool,
    kept: String,
    at_line_start: bool,
    /// What printing failed with; ends the work.
    error: Option<anyhow::Error>,
}

impl<'a> Writer<'a> {
    fn new(args: &'a GenerateArgs, prompt: &str, tokenizer: TokenizerView<'a>) -> Result<Self> {
        let mut writer = Self {
            text: TextStream::new(tokenizer, &args.stop),
            ids: Vec::new(),
            keep: args.json,
            kept: String::new(),
            at_line_start: false,
            error: None,
        };
        // The text of the JSON object is only what is new.
        if !args.no_echo && !args.json {
            writer.print(prompt)?;
        }
        Ok(writer)
    }

    fn push(&mut self, token: u32) -> ControlFlow<()> {
        self.ids.push(token);
        let piece = self.text.push(token);
        self.error = self.print(&piece).err();
        if self.error.is_some() || self.text.stopped() || interrupt::requested() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn print(&mut self, piece: &str) -> Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        if self.keep {
            self.kept.push_str(piece);
            return Ok(());
        }
        self.at_line_start = piece.ends_with('\n');
        output::write(piece)
    }

    /// Ends the text, with a line break where it is printed; returns what was kept, and the ids.
    fn finish(mut self) -> Result<(String, Vec<u32>)> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let rest = self.text.finish();
        self.print(&rest)?;
        if !self.keep && !self.at_line_start {
            output::write("\n")?;
        }
        Ok((self.kept, self.ids))
    }
}

fn print_statistics(report: &Report, n_ctx: usize) {
    if report.stop_reason == StopReason::ContextFull {
        output::note(format_args!("stopped: the context of {n_ctx} tokens is full"));
    }
    output::note(format_args!(
        "prompt: {}, {} tokens/s | new: {}, {} tokens/s | seed {} | {}, {}, kv {}",
        units::count(report.prompt_tokens, "token"),
        units::speed(report.prefill_tokens_per_second),
        units::count(report.new_tokens, "token"),
        units::speed(report.decode_tokens_per_second),
        report.seed,
        report.isa,
        units::count(report.threads, "thread"),
        report.kv,
    ));
}
