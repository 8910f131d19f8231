//! What came out, as `--json` prints it.

use anyhow::Result;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};
use serde::Serialize;

use super::subject::Times;
use super::{Arithmetic, Limits, Pauses, Subject, Task};
use crate::machine::{self, Readings};
use crate::model::{bits_per_weight, macs_of_prompt};
use crate::units;

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub machine: Machine,
    #[serde(flatten)]
    pub result: Measured,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pauses: Option<Pauses>,
}

/// The machine, and how the models were run on it.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub version: &'static str,
    pub cpu: Option<String>,
    pub isa: &'static str,
    pub threads: usize,
    pub repeat: usize,
    /// Of the model alone, without its baseline and what the measurement of memory takes.
    pub peak_rss_bytes: Option<u64>,
    /// From memory, with these threads.
    pub read_bytes_per_second: f64,
    pub read_buffer_bytes: usize,
    pub int8_macs_per_second: f64,
    pub int8_instruction: &'static str,
    pub f32_macs_per_second: f64,
    pub f32_instruction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_hertz_min: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_hertz_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_limit_hertz: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_celsius_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttling: Option<Vec<&'static str>>,
}

/// A model's results. A roofline fraction is the share of what the machine could do just before.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub model: String,
    pub file_bytes: u64,
    pub bits_per_weight: f64,
    pub kv: &'static str,
    pub load_seconds: f64,
    pub weight_bytes_per_token: u64,
    pub roofline: Roofline,
    /// Of a prompt as long as `prefill_tokens`: opening the model and reading it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_seconds: Option<f64>,
    /// The same for the first time, when pages of the file were not mapped yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_run_time_to_first_token_seconds: Option<f64>,
    /// At the first depth.
    pub prefill_tokens: usize,
    pub prefill_tokens_per_second: f64,
    pub prefill_roofline_fraction: f64,
    pub decode_tokens_per_second: f64,
    pub roofline_fraction: f64,
    /// At every depth.
    pub prefill: Vec<Prefill>,
    pub decode: Vec<Decode>,
}

/// What a model's speed is compared with: medians of what was measured in turn with it.
#[derive(Debug, Serialize)]
pub struct Roofline {
    /// How fast `read_buffer_bytes`, as many as a token's weights are, can be read again and again.
    pub read_bytes_per_second: f64,
    pub read_buffer_bytes: usize,
    /// What weights are multiplied in: `int8` or `f32`.
    pub arithmetic: &'static str,
    pub macs_per_second: f64,
}

#[derive(Debug, Serialize)]
pub struct Prefill {
    pub depth: usize,
    pub tokens: usize,
    pub prefill_tokens_per_second: f64,
    /// Multiply-adds with weights; those of attention come on top.
    pub macs_per_second: f64,
    pub roofline_fraction: f64,
}

#[derive(Debug, Serialize)]
pub struct Decode {
    pub depth: usize,
    pub tokens: usize,
    pub decode_tokens_per_second: f64,
    pub token_seconds_p50: f64,
    pub token_seconds_p99: f64,
    /// Keys and values that attention reads on top of the weights, on average.
    pub cache_bytes_per_token: u64,
    pub weight_bytes_per_second: f64,
    pub roofline_fraction: f64,
}

/// The model's speed over the baseline's: above 1 is faster.
#[derive(Debug, Serialize)]
pub struct Ratio {
    pub prefill_tokens_per_second: f64,
    pub decode_tokens_per_second: Vec<f64>,
}

impl Machine {
    /// `limits` has samples.
    pub fn new(
        subject: &Subject<'_>,
        limits: &mut Limits,
        repeat: usize,
        peak_rss_bytes: Option<u64>,
        readings: Readings,
    ) -> Self {
        let engine = &subject.engine;
        let (peaks, peak) = (limits.peaks(), engine.model().kernels().peak());
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cpu: machine::cpu_name(),
            isa: engine.isa().name(),
            threads: engine.options().threads,
            repeat,
            peak_rss_bytes,
            read_bytes_per_second: peaks.memory_bytes,
            read_buffer_bytes: peaks.memory_buffer_bytes,
            int8_macs_per_second: peaks.int8_macs,
            int8_instruction: peak.instruction_i8(),
            f32_macs_per_second: peaks.f32_macs,
            f32_instruction: peak.instruction_f32(),
            frequency_hertz_min: readings.frequency_hertz.map(|range| range.0),
            frequency_hertz_max: readings.frequency_hertz.map(|range| range.1),
            frequency_limit_hertz: readings.frequency_limit_hertz,
            temperature_celsius_max: readings.temperature_celsius,
            throttling: readings.throttling,
        }
    }
}

impl Measured {
    /// What a subject's times come to.
    pub fn new(subject: &Subject<'_>, task: &Task, limits: &Limits) -> Result<Self> {
        let file = subject.model.weights()?;
        let options = subject.engine.options();
        let bytes = subject.weight_bytes_per_token;
        let at_depth = || task.depths.iter().copied().zip(&subject.at_depth);
        let prefill: Vec<Prefill> = at_depth()
            .map(|(depth, times)| {
                let tokens = task.prefill_at(depth).len();
                Prefill::new(depth, tokens, macs_of_prompt(&file, tokens as u64), times)
            })
            .collect();
        let cache = cache_bytes_per_position(&subject.engine, options);
        let decode: Vec<Decode> = at_depth()
            .map(|(depth, times)| Decode::new(depth, bytes, cache, options.window, times))
            .collect();

        let rounds = || subject.at_depth.iter();
        let read = median(rounds().flat_map(|times| &times.decode).map(|decode| decode.limit));
        let macs = median(rounds().flat_map(|times| &times.prefill).map(|prefill| prefill.limit));
        let first_token = |seconds: f64| subject.load_seconds + seconds;
        let (first_prefill, first_decode) = (&prefill[0], &decode[0]);
        let prompt_seconds = (first_prefill.depth == 0)
            .then(|| first_prefill.tokens as f64 / first_prefill.prefill_tokens_per_second);
        Ok(Self {
            model: subject.model.name().into(),
            file_bytes: file.bytes().len() as u64,
            bits_per_weight: bits_per_weight(&file),
            kv: options.kv.name(),
            load_seconds: subject.load_seconds,
            weight_bytes_per_token: bytes,
            roofline: Roofline {
                read_bytes_per_second: read,
                read_buffer_bytes: limits.buffer_bytes(bytes),
                arithmetic: match subject.arithmetic {
                    Arithmetic::Int8 => "int8",
                    Arithmetic::F32 => "f32",
                },
                macs_per_second: macs,
            },
            time_to_first_token_seconds: prompt_seconds.map(first_token),
            first_run_time_to_first_token_seconds: subject.first_prefill_seconds.map(first_token),
            prefill_tokens: first_prefill.tokens,
            prefill_tokens_per_second: first_prefill.prefill_tokens_per_second,
            prefill_roofline_fraction: first_prefill.roofline_fraction,
            decode_tokens_per_second: first_decode.decode_tokens_per_second,
            roofline_fraction: first_decode.roofline_fraction,
            prefill,
            decode,
        })
    }
}

/// Keys and values of a position, in all layers.
fn cache_bytes_per_position(engine: &crate::engine::Engine<'_>, options: &SessionOptions) -> f64 {
    let plan = Plan::new(engine.model().config(), options).expect("the session has been made");
    plan.kv_bytes as f64 / options.window as f64
}

impl Prefill {
    /// `macs`: multiply-adds that these tokens take.
    fn new(depth: usize, tokens: usize, macs: u64, times: &Times) -> Self {
        let macs = macs as f64;
        let rounds = || times.prefill.iter();
        Self {
            depth,
            tokens,
            prefill_tokens_per_second: median(rounds().map(|round| tokens as f64 / round.seconds)),
            macs_per_second: median(rounds().map(|round| macs / round.seconds)),
            roofline_fraction: median(rounds().map(|round| macs / round.seconds / round.limit)),
        }
    }
}

impl Decode {
    fn new(depth: usize, weight_bytes: u64, cache: f64, window: usize, times: &Times) -> Self {
        let rounds = || times.decode.iter();
        let tokens = times.decode[0].seconds.len();
        let speed = |seconds: &[f64]| tokens as f64 / seconds.iter().sum::<f64>();
        let read = |seconds: &[f64]| weight_bytes as f64 * speed(seconds);
        let mut all: Vec<f64> = rounds().flat_map(|round| round.seconds.iter().copied()).collect();
        all.sort_unstable_by(f64::total_cmp);
        let visible = (1..=tokens).map(|token| (depth + token).min(window) as f64);
        Self {
            depth,
            tokens,
            decode_tokens_per_second: median(rounds().map(|round| speed(&round.seconds))),
            token_seconds_p50: units::quantile(&all, 0.5),
            token_seconds_p99: units::quantile(&all, 0.99),
            cache_bytes_per_token: (cache * visible.sum::<f64>() / tokens as f64) as u64,
            weight_bytes_per_second: median(rounds().map(|round| read(&round.seconds))),
            roofline_fraction: median(rounds().map(|round| read(&round.seconds) / round.limit)),
        }
    }
}

impl Ratio {
    /// Both have done the same task.
    pub fn new(result: &Measured, baseline: &Measured) -> Self {
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

fn median(values: impl Iterator<Item = f64>) -> f64 {
    units::median(&mut values.collect::<Vec<_>>())
}
