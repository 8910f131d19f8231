//! `pocketgpt generate`

mod explain;
mod saved;
mod writer;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use pocketgpt_runtime::Overflow;
use pocketgpt_runtime::decoding::{self, DecodingOptions, StopTexts};
use pocketgpt_runtime::generate::Generator;
use pocketgpt_runtime::memory::Line;
use serde::Serialize;

use self::explain::{Explanation, Step};
use self::saved::Loaded;
use self::writer::Writer;
use super::Outcome;
use crate::args::{ModelArgs, RunArgs};
use crate::context::ContextArgs;
use crate::decoding::{Decoding, DecodingArgs};
use crate::engine::Engine;
use crate::model::Model;
use crate::{input, interrupt, machine, outfile, output, units};

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt generate \"Once upon a time\"
  pocketgpt generate --strategy greedy -n 40 \"There was once a king\"
  pocketgpt generate --seed 7 --temperature 0.6 --stop \".\" \"The fox\"
  pocketgpt generate --num-return-sequences 3 -n 30 \"The fox\"
  pocketgpt generate --num-beams 4 --early-stopping true --no-repeat-ngram-size 3 \"The fox\"
  pocketgpt generate --penalty-alpha 0.6 --top-k 4 \"The fox\"
  pocketgpt generate --overflow shadow -n 5000 --ignore-eos \"Once upon a time\"
  pocketgpt generate --explain --top-p 0.9 -n 5 \"The fox\"
  pocketgpt generate --save-session fox.pgss -n 50 \"The fox\"
  pocketgpt generate --load-session fox.pgss -n 50
  pocketgpt generate --no-echo --quiet \"The fox\" > story.txt
  echo \"Once upon a time\" | pocketgpt generate --json

The prompt is printed before the text that continues it. A seed gives the same text on every
machine, with any number of threads. Defaults of the sampling options come from the model file, else
temperature 0.8 and top-k 40. Several texts, those of a beam search, and explained ones are printed
when they are complete. A saved text goes on as if it had not stopped, also on another machine; its
options need not be given again. A prompt from standard input is taken without the line break at its end; an
empty one starts a new text.")]
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
    /// Tell how each token is chosen, on standard error or in the JSON object: the N most probable
    /// ones [default: 5] before and after each filter
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "5")]
    explain: Option<usize>,
    /// Save the text with its cache and its options at the end, to go on with later
    #[arg(long, value_name = "FILE")]
    save_session: Option<PathBuf>,
    /// Go on with a text that was saved with the same model; PROMPT, if given, is added to it
    #[arg(long, value_name = "FILE")]
    load_session: Option<PathBuf>,
    /// No statistics on standard error
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON object at the end, in place of the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    decoding: DecodingArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// Why a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    EndOfText,
    MaxNewTokens,
    StopText,
    ContextFull,
    Interrupted,
}

impl From<decoding::StopReason> for StopReason {
    fn from(reason: decoding::StopReason) -> Self {
        match reason {
            decoding::StopReason::EndOfText => Self::EndOfText,
            decoding::StopReason::MaxNewTokens => Self::MaxNewTokens,
            decoding::StopReason::StopText => Self::StopText,
            decoding::StopReason::ContextFull => Self::ContextFull,
            decoding::StopReason::Interrupted => Self::Interrupted,
        }
    }
}

/// A text in the report.
#[derive(Clone, Debug, Serialize)]
struct SequenceReport {
    text: String,
    ids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    stop_reason: StopReason,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// The first sequence, which is the best one of a beam search.
    #[serde(flatten)]
    first: SequenceReport,
    sequences: Vec<SequenceReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Vec<Step>>,
    prompt_ids: Vec<u32>,
    strategy: &'static str,
    seed: u64,
    model: String,
    isa: &'static str,
    threads: usize,
    kv: &'static str,
    overflow: &'static str,
    prompt_tokens: usize,
    new_tokens: usize,
    decode_steps: usize,
    load_seconds: f64,
    prefill_seconds: f64,
    decode_seconds: f64,
    prefill_tokens_per_second: Option<f64>,
    decode_tokens_per_second: Option<f64>,
    decode_steps_per_second: Option<f64>,
    peak_rss_bytes: Option<u64>,
}

pub fn run(args: &GenerateArgs) -> Result<Outcome> {
    let prompt = match &args.prompt {
        Some(prompt) if prompt != "-" => prompt.clone(),
        None if args.load_session.is_some() => String::new(),
        prompt => input::without_final_newline(input::text_or_stdin(prompt.as_deref(), "prompt")?),
    };
    if let Some(path) = &args.save_session {
        outfile::check_beside(path, args.model.model.as_deref())?;
    }
    let start = Instant::now();
    let model = Model::open_to_run(&args.model, &args.run)?;
    let saved_in = args.load_session.as_deref();
    let file = saved_in.map(saved::map).transpose()?;
    let loaded = saved_in.zip(file.as_ref());
    let loaded = loaded.map(|(path, file)| Loaded::new(path, file, &model)).transpose()?;
    let args = &match &loaded {
        Some(loaded) => loaded.complete(args, &model)?,
        None => args.clone(),
    };
    args.context.check()?;
    saved::check_strategy(args)?;
    let config = *model.weights()?.config();
    let tokenizer = model.tokenizer()?;
    let mut decoding_args = args.decoding.clone();
    let seed = *decoding_args.seed.get_or_insert_with(random_seed);
    let text = Beginning::new(&model, loaded.as_ref(), prompt, &decoding_args)?;
    let max_new_tokens = args.max_new_tokens.saturating_add(text.new_tokens);
    let decoding = decoding_args.resolve(&model, &config, max_new_tokens, args.context.overflow)?;
    check_length(args, text.ids.len(), config.n_ctx as usize)?;
    let stops: Vec<&str> = args.stop.iter().map(String::as_str).collect();
    let stop_texts = StopTexts::new(tokenizer, &stops);

    decoding.with_options(|options| {
        let options = DecodingOptions {
            eos_token_id: options.eos_token_id.filter(|_| !args.ignore_eos),
            stop: (!stops.is_empty()).then_some(&stop_texts),
            ..*options
        };
        let engine = Engine::with(&model, &args.run, |base| {
            options.session_options(&args.context.apply(base), text.prompt_len())
        })?;
        let load_seconds = start.elapsed().as_secs_f64();
        let job = Job { args, model: &model, options, decoding: &decoding, seed, load_seconds };
        job.run(engine, &text, loaded.as_ref())
    })
}

/// What is to be continued.
#[derive(Debug)]
struct Beginning {
    ids: Vec<u32>,
    /// How many of them, the last ones, an earlier run has written, as whose continuation this one
    /// counts.
    new_tokens: usize,
    /// The prompt as it was given; `None` if the text was loaded.
    prompt: Option<String>,
}

impl Beginning {
    fn new(
        model: &Model,
        loaded: Option<&Loaded<'_>>,
        prompt: String,
        decoding: &DecodingArgs,
    ) -> Result<Self> {
        let Some(loaded) = loaded else {
            let ids = model.text_ids(&prompt)?;
            return Ok(Self { ids, new_tokens: 0, prompt: Some(prompt) });
        };
        let saved = &loaded.session;
        let mut ids: Vec<u32> = saved.tokens().collect();
        let mut new_tokens = 0;
        if !prompt.is_empty() {
            ids.extend(model.tokenizer()?.encode_to_vec(&prompt));
        } else {
            loaded.check_open_end()?;
            if decoding.writes_one_text() {
                new_tokens = saved.new_tokens();
            }
        }
        Ok(Self { ids, new_tokens, prompt: None })
    }

    fn prompt_len(&self) -> usize {
        self.ids.len() - self.new_tokens
    }
}

/// # Errors
/// If the prompt is longer than the context, and nothing may be left out of it.
fn check_length(args: &GenerateArgs, tokens: usize, n_ctx: usize) -> Result<()> {
    if tokens > n_ctx && args.context.overflow == Overflow::Stop {
        bail!(
            "the text has {tokens} tokens, {n_ctx} fit; shorten it, or go on from its beginning and \
             its end with --overflow refill"
        );
    }
    Ok(())
}

/// Short enough to be typed again, and exact in every JSON reader.
pub fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

/// Everything is known and loaded.
struct Job<'a> {
    args: &'a GenerateArgs,
    model: &'a Model,
    options: DecodingOptions<'a>,
    decoding: &'a Decoding,
    seed: u64,
    load_seconds: f64,
}

impl Job<'_> {
    fn run(
        &self,
        mut engine: Engine<'_>,
        text: &Beginning,
        loaded: Option<&Loaded<'_>>,
    ) -> Result<Outcome> {
        let (args, options) = (self.args, &self.options);
        interrupt::catch();
        let mut memory = self.memory(&engine, text.prompt_len())?;
        let config = *engine.model().config();
        let mut generator = Generator::new(&config, options, text.prompt_len(), &mut memory)?;
        let (mut session, par) = engine.session()?;
        if let Some(loaded) = loaded {
            loaded.restore(&mut session)?;
        }
        let unread = text.ids.len() - session.fed();
        let (mut writer, before) = self.writer(text)?;
        let start = Instant::now();
        let ended = generator.resume(&mut session, par, &text.ids, text.new_tokens, &mut writer);
        let end = Instant::now();
        let name = self.model.name();
        if ended.is_ok() && self.decoding.strategy() == "beam" {
            for (i, sequence) in generator.sequences().enumerate() {
                writer.take(i, sequence.tokens);
            }
        }
        let (steps, prompt_read) = (writer.steps, writer.prompt_read.unwrap_or(end));
        // What has been written ends with its line also when an error follows.
        let (texts, explanation) = writer.finish()?;
        ended.map_err(|error| anyhow!("{name}: {error}; check the file with pocketgpt verify"))?;
        if let (Some(path), Some(sequence)) = (&args.save_session, generator.sequences().next()) {
            let tokens = [&text.ids, sequence.tokens].concat();
            let new_tokens = text.new_tokens + sequence.tokens.len();
            let end = (self.seed, sequence.stop_reason);
            saved::save(args, path, &session, (&tokens, new_tokens), end)?;
        }

        let sequences: Vec<SequenceReport> = generator
            .sequences()
            .zip(texts)
            .map(|(sequence, text)| report(sequence, text))
            .collect();
        let first =
            sequences.first().cloned().ok_or_else(|| anyhow!("{name}: no text was found"))?;
        let new_tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        let (prefill, decode) = (prompt_read - start, end - prompt_read);
        let (prefill_seconds, decode_seconds) = (prefill.as_secs_f64(), decode.as_secs_f64());
        // The first token of each text comes out of the prompt.
        let decoded = match options.num_return_sequences {
            _ if first.score.is_some() => steps,
            n => usize::saturating_sub(new_tokens, n),
        };
        let report = Report {
            first,
            explanation: explanation.map(Explanation::into_steps),
            strategy: self.decoding.strategy(),
            seed: self.seed,
            model: name.into(),
            isa: engine.isa().name(),
            threads: engine.options().threads,
            kv: engine.options().kv.name(),
            overflow: engine.options().overflow.name(),
            prompt_tokens: text.ids.len(),
            new_tokens,
            decode_steps: steps,
            load_seconds: self.load_seconds,
            prefill_seconds,
            decode_seconds,
            prefill_tokens_per_second: units::per_second(unread, prefill_seconds),
            decode_tokens_per_second: units::per_second(decoded, decode_seconds),
            decode_steps_per_second: units::per_second(steps, decode_seconds),
            peak_rss_bytes: machine::peak_rss_bytes(),
            sequences,
            prompt_ids: text.ids.clone(),
        };
        if args.json {
            output::json(&report)?;
        } else if !self.streams() {
            self.print_texts(&before, &report)?;
        }
        if !args.quiet {
            print_statistics(&report, engine.n_ctx());
        }
        let interrupted = |s: &SequenceReport| s.stop_reason == StopReason::Interrupted;
        let interrupted = report.sequences.iter().any(interrupted);
        Ok(if interrupted { Outcome::Interrupted } else { Outcome::Done })
    }

    /// Whether the text is printed as it comes: one text, of which nothing else is to be told.
    fn streams(&self) -> bool {
        let several = self.options.num_return_sequences > 1;
        !self.args.json
            && !several
            && self.args.explain.is_none()
            && self.decoding.strategy() != "beam"
    }

    /// What takes the tokens, and the text that is printed before them.
    fn writer(&self, text: &Beginning) -> Result<(Writer<'_>, String)> {
        let tokenizer = self.model.tokenizer()?;
        let sequences = self.options.num_return_sequences;
        let mut writer = Writer::new(tokenizer, &self.args.stop, sequences);
        if let Some(top) = self.args.explain {
            let beams = self.decoding.strategy() == "beam";
            let explanation = Explanation::new(tokenizer, top, beams, sequences);
            writer.explain(explanation, !self.args.json);
        }
        let mut before = match &text.prompt {
            Some(prompt) => prompt.clone(),
            None => writer.begin_behind(self.model.without_beginning(&text.ids)?),
        };
        if self.args.no_echo {
            before.clear();
        }
        if self.streams() {
            writer.print_after(&before)?;
        }
        Ok((writer, before))
    }

    fn memory(&self, engine: &Engine<'_>, prompt: usize) -> Result<Box<[Line]>> {
        let lines = Generator::lines(engine.model().config(), &self.options, prompt)?;
        bytemuck::allocation::try_zeroed_slice_box(lines).map_err(|()| {
            let needed = units::bytes((lines * Line::BYTES) as u64);
            anyhow!("there is no memory for the texts, which take {needed}; ask for fewer")
        })
    }

    /// Texts that were kept until they were complete; a line before each of several says which one
    /// it is, on standard error.
    fn print_texts(&self, before: &str, report: &Report) -> Result<()> {
        for (i, sequence) in report.sequences.iter().enumerate() {
            let number = format!("{} of {}", i + 1, report.sequences.len());
            let score = sequence.score.map(|score| format!("score {score:.4}"));
            let heading = match (report.sequences.len(), score) {
                (1, _) => None,
                (_, Some(score)) => Some(format!("--- {number}, {score}")),
                (_, None) => Some(format!("--- {number}")),
            };
            if let Some(heading) = heading.filter(|_| !self.args.quiet) {
                output::note(heading);
            }
            let line = format!("{before}{}", sequence.text);
            let end = if line.ends_with('\n') { "" } else { "\n" };
            output::write_foreign(&format!("{line}{end}"))?;
        }
        Ok(())
    }
}

fn report(sequence: decoding::Sequence<'_>, text: String) -> SequenceReport {
    SequenceReport {
        text,
        ids: sequence.tokens.to_vec(),
        score: sequence.score,
        stop_reason: sequence.stop_reason.into(),
    }
}

fn print_statistics(report: &Report, n_ctx: usize) {
    if report.sequences.iter().any(|s| s.stop_reason == StopReason::ContextFull) {
        output::note(format_args!(
            "stopped: the context of {n_ctx} tokens is full; --overflow refill or shadow goes on"
        ));
    }
    let score = report.first.score.map(|score| format!(" | score {score:.4}"));
    output::note(format_args!(
        "prompt: {}, {} tokens/s | new: {}, {} tokens/s{} | seed {} | {}, {}, kv {}",
        units::count(report.prompt_tokens, "token"),
        units::speed(report.prefill_tokens_per_second),
        units::count(report.new_tokens, "token"),
        units::speed(report.decode_tokens_per_second),
        score.unwrap_or_default(),
        report.seed,
        report.isa,
        units::count(report.threads, "thread"),
        report.kv,
    ));
}
