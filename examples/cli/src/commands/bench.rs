//! `pocketgpt bench`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Outcome;
use crate::args::{ModelArgs, RunArgs, number};
use crate::engine::Engine;
use crate::model::{Model, bits_per_weight, bytes_per_token};
use crate::{interrupt, machine, output, units};

const DEFAULT_PREFILL: usize = 512;
const DEFAULT_DECODE: usize = 128;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt bench
  pocketgpt bench -m gpt2-q4.pgpt --baseline gpt2-q8.pgpt --threads 4
  pocketgpt bench -p 256 -n 64 --depth 0,256 --json

Tokens are random, from a fixed seed. Numbers are medians over the repetitions, after one that does
not count. With --baseline both files are measured in turn, so that both see the same machine. The
time to the first token is that of opening the model and reading the prompt of -p tokens.")]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens read together [default: 512, or the whole context]
    #[arg(short = 'p', long, value_name = "N", value_parser = number(usize::MAX))]
    prefill: Option<usize>,
    /// Tokens made one after another [default: 128, or the whole context]
    #[arg(short = 'n', long, value_name = "N", value_parser = number(usize::MAX))]
    decode: Option<usize>,
    /// Tokens that are in the cache when making begins
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// How often to measure
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = number(10_000))]
    repeat: usize,
    /// Measure this model file as well, and compare
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    cpu: Option<String>,
    isa: &'static str,
    threads: usize,
    repeat: usize,
    /// Of the whole program, so with a baseline of both models together.
    peak_rss_bytes: Option<u64>,
    #[serde(flatten)]
    result: Measured,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<Ratio>,
}

#[derive(Debug, Serialize)]
struct Measured {
    model: String,
    file_bytes: u64,
    bits_per_weight: f64,
    kv: &'static str,
    load_seconds: f64,
    prefill_tokens: usize,
    prefill_tokens_per_second: f64,
    time_to_first_token_seconds: f64,
    weight_bytes_per_token: u64,
    /// At the first depth.
    decode_tokens_per_second: f64,
    decode: Vec<Decode>,
}

#[derive(Debug, Serialize)]
struct Decode {
    depth: usize,
    tokens: usize,
    decode_tokens_per_second: f64,
    token_seconds_p50: f64,
    token_seconds_p99: f64,
    weight_bytes_per_second: f64,
}

/// The model's speed over the baseline's: above 1 is faster.
#[derive(Debug, Serialize)]
struct Ratio {
    prefill_tokens_per_second: f64,
    decode_tokens_per_second: Vec<f64>,
}

/// What is measured, the same for both models.
struct Task {
    /// As many tokens as the context holds.
    ids: Vec<u32>,
    prefill: usize,
    depths: Vec<usize>,
    decode: usize,
}

/// A model and its times.
struct Subject<'w> {
    model: &'w Model,
    engine: Engine<'w>,
    load_seconds: f64,
    /// Per repetition.
    prefill_seconds: Vec<f64>,
    /// Per depth and repetition: seconds of each token.
    token_seconds: Vec<Vec<Vec<f64>>>,
}

pub fn run(args: &BenchArgs) -> Result<Outcome> {
    let start = Instant::now();
    let model = Model::open_to_run(&args.model, &args.run)?;
    let mut subjects = vec![Subject::new(&model, &args.run, start)?];
    let start = Instant::now();
    let baseline = args.baseline.as_deref().map(|path| Model::load(path, &args.run)).transpose()?;
    if let Some(baseline) = &baseline {
        subjects.push(Subject::new(baseline, &args.run, start)?);
    }
    let task = Task::new(args, &subjects)?;
    interrupt::catch();

    let rounds = (1 + args.repeat) * subjects.len();
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}").expect("a valid template");
    let bar = ProgressBar::new(rounds as u64).with_style(style);
    for round in 0..rounds {
        let subject_count = subjects.len();
        let measured = subjects[round % subject_count].measure(&task, round >= subject_count)?;
        if !measured {
            bar.finish_and_clear();
            output::note("stopped before the end of the measurement: no result");
            return Ok(Outcome::Interrupted);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();

    let engine = &subjects[0].engine;
    let (isa, threads) = (engine.isa().name(), engine.options().threads);
    let mut results = subjects.into_iter().map(|subject| subject.summary(&task));
    let result = results.next().expect("there is at least one model")?;
    let baseline = results.next().transpose()?;
    let report = Report {
        cpu: machine::cpu_name(),
        isa,
        threads,
        repeat: args.repeat,
        peak_rss_bytes: machine::peak_rss_bytes(),
        ratio: baseline.as_ref().map(|baseline| Ratio::new(&result, baseline)),
        result,
        baseline,
    };
    if args.json {
        output::json(&report)?
    } else {
        output::write(&text(&report))?
    }
    Ok(Outcome::Done)
}

impl Task {
    fn new(args: &BenchArgs, subjects: &[Subject<'_>]) -> Result<Self> {
        let n_ctx = subjects.iter().map(|subject| subject.engine.n_ctx()).min().unwrap_or(0);
        let configs = subjects.iter().map(|subject| subject.engine.model().config());
        let vocab_size = configs.map(|config| config.vocab_size).min().unwrap_or(1);
        let prefill = args.prefill.unwrap_or(DEFAULT_PREFILL.min(n_ctx));
        let decode = args.decode.unwrap_or(DEFAULT_DECODE.min(n_ctx));
        let deepest = args.depth.iter().max().copied().unwrap_or(0);
        for (option, tokens) in [
            (format!("-p {prefill}"), prefill),
            (format!("--depth {deepest} -n {decode}"), deepest.saturating_add(decode)),
        ] {
            if tokens > n_ctx {
                bail!("{option}: these are {tokens} tokens, {n_ctx} fit; give fewer");
            }
        }
        let depths = args.depth.clone();
        Ok(Self { ids: random_ids(n_ctx, vocab_size), prefill, depths, decode })
    }
}

/// Numbers of a linear congruential generator: any would do that are always the same.
fn random_ids(count: usize, vocab_size: u32) -> Vec<u32> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % u64::from(vocab_size)) as u32
    };
    (0..count).map(next).collect()
}

impl<'w> Subject<'w> {
    /// `start`: when the model's file began to be opened.
    fn new(model: &'w Model, args: &RunArgs, start: Instant) -> Result<Self> {
        let engine = Engine::new(model, args, 1)?;
        Ok(Self {
            model,
            engine,
            load_seconds: start.elapsed().as_secs_f64(),
            prefill_seconds: Vec::new(),
            token_seconds: Vec::new(),
        })
    }

    /// Does the task once. False if the user wants an end.
    fn measure(&mut self, task: &Task, counts: bool) -> Result<bool> {
        let (mut session, par) = self.engine.session()?;
        let start = Instant::now();
        session.feed(&task.ids[..task.prefill], par)?;
        let prefill_seconds = start.elapsed().as_secs_f64();
        let mut token_seconds = Vec::with_capacity(task.depths.len());
        for &depth in &task.depths {
            session.truncate(0);
            let (before, tokens) = task.ids[..depth + task.decode].split_at(depth);
            if !before.is_empty() {
                session.feed(before, par)?;
            }
            let mut seconds = Vec::with_capacity(tokens.len());
            for token in tokens {
                if interrupt::requested() {
                    return Ok(false);
                }
                let start = Instant::now();
                session.feed(&[*token], par)?;
                seconds.push(start.elapsed().as_secs_f64());
            }
            token_seconds.push(seconds);
        }
        if counts {
            self.prefill_seconds.push(prefill_seconds);
            self.token_seconds.push(token_seconds);
        }
        Ok(true)
    }

    fn summary(mut self, task: &Task) -> Result<Measured> {
        let file = self.model.weights()?;
        let weight_bytes_per_token = bytes_per_token(&file);
        let prefill_seconds = units::median(&mut self.prefill_seconds);
        let decode: Vec<Decode> = (0..task.depths.len())
            .map(|i| {
                let rounds: Vec<&[f64]> =
                    self.token_seconds.iter().map(|depths| &*depths[i]).collect();
                Decode::new(task.depths[i], &rounds, weight_bytes_per_token)
            })
            .collect();
        Ok(Measured {
            model: self.model.name().into(),
            file_bytes: file.bytes().len() as u64,
            bits_per_weight: bits_per_weight(&file),
            kv: self.engine.options().kv.name(),
            load_seconds: self.load_seconds,
            prefill_tokens: task.prefill,
            prefill_tokens_per_second: task.prefill as f64 / prefill_seconds,
            time_to_first_token_seconds: self.load_seconds + prefill_seconds,
            weight_bytes_per_token,
            decode_tokens_per_second: decode[0].decode_tokens_per_second,
            decode,
        })
    }
}

impl Decode {
    /// `rounds`: seconds of each token, per repetition.
    fn new(depth: usize, rounds: &[&[f64]], weight_bytes_per_token: u64) -> Self {
        let tokens = rounds[0].len();
        let mut speeds: Vec<f64> =
            rounds.iter().map(|seconds| tokens as f64 / seconds.iter().sum::<f64>()).collect();
        let mut all: Vec<f64> = rounds.concat();
        all.sort_unstable_by(f64::total_cmp);
        let speed = units::median(&mut speeds);
        Self {
            depth,
            tokens,
            decode_tokens_per_second: speed,
            token_seconds_p50: units::quantile(&all, 0.5),
            token_seconds_p99: units::quantile(&all, 0.99),
            weight_bytes_per_second: speed * weight_bytes_per_token as f64,
        }
    }
}

impl Ratio {
    fn new(result: &Measured, baseline: &Measured) -> Self {
        let decode = result.decode.iter().zip(&baseline.decode);
        Self {
            prefill_tokens_per_second: result.prefill_tokens_per_second
                / baseline.prefill_tokens_per_second,
            decode_tokens_per_second: decode
                .map(|(a, b)| a.decode_tokens_per_second / b.decode_tokens_per_second)
                .collect(),
        }
    }
}

/// The report for people.
fn text(report: &Report) -> String {
    let cpu = report.cpu.as_deref().unwrap_or("unknown CPU");
    let mut out = format!(
        "{cpu}, {}, {}, {}\n",
        report.isa,
        units::count(report.threads, "thread"),
        units::count(report.repeat, "repetition"),
    );
    for result in [Some(&report.result), report.baseline.as_ref()].into_iter().flatten() {
        out.push_str(&result.text());
    }
    if let Some(ratio) = &report.ratio {
        let decode: Vec<String> =
            ratio.decode_tokens_per_second.iter().map(|ratio| format!("{ratio:.3}")).collect();
        let prefill = ratio.prefill_tokens_per_second;
        out += &format!("\nover baseline: prefill {prefill:.3}, decode {}\n", decode.join(", "));
    }
    if let Some(bytes) = report.peak_rss_bytes {
        out += &format!("\npeak memory in RAM: {}\n", units::bytes(bytes));
    }
    out
}

impl Measured {
    fn text(&self) -> String {
        let mut out = format!(
            "\n{}: {}, {:.3} bits per weight, kv {}\n\
             {:<24} {:>9} tokens/s  first token after {:.1} ms\n",
            self.model,
            units::bytes(self.file_bytes),
            self.bits_per_weight,
            self.kv,
            format!("prefill {}", self.prefill_tokens),
            units::speed(Some(self.prefill_tokens_per_second)),
            1e3 * self.time_to_first_token_seconds,
        );
        for decode in &self.decode {
            out += &format!(
                "{:<24} {:>9} tokens/s  p50 {:.3} ms, p99 {:.3} ms, weights {:.2} GB/s\n",
                format!("decode {} at {}", decode.tokens, decode.depth),
                units::speed(Some(decode.decode_tokens_per_second)),
                1e3 * decode.token_seconds_p50,
                1e3 * decode.token_seconds_p99,
                decode.weight_bytes_per_second / 1e9,
            );
        }
        out
    }
}
