//! `pocketgpt info`

use std::fmt::Write;

use anyhow::Result;
use clap::Args;
use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::format::tensor::NO_LAYER;
use pocketgpt_runtime::format::{Encoding, Role, TensorView, VERSION, WeightFile};
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::workspace::SessionOptions;
use serde::Serialize;
use serde_json::Value;

use super::Outcome;
use super::plan::MemoryPlan;
use crate::args::ModelArgs;
use crate::decoding::Decoding;
use crate::engine::{default_keep, default_kv, default_threads};
use crate::model::{Model, bits_per_weight, bytes_per_token, tensor_name};
use crate::{machine, output, units};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt info
  pocketgpt info -m gpt2.pgpt --tensors
  pocketgpt info --json")]
pub struct InfoArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Tell about every tensor
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    format_version: u32,
    file_bytes: u64,
    parameters: u64,
    bits_per_weight: f64,
    weight_bytes_per_token: u64,
    config: Config,
    encodings: Vec<EncodingUse>,
    matrices: Vec<Matrices>,
    tokenizer: Option<Tokenizer>,
    metadata: Value,
    memory: MemoryPlan,
    machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<Tensor>>,
}

#[derive(Debug, Serialize)]
struct Config {
    vocab_size: u32,
    n_ctx: u32,
    n_embd: u32,
    n_layer: u32,
    n_head: u32,
    n_inner: u32,
    activation_function: &'static str,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
    tie_word_embeddings: bool,
    layer_norm_epsilon: f32,
    bos_token_id: Option<u32>,
    eos_token_id: Option<u32>,
}

#[derive(Debug, Serialize)]
struct EncodingUse {
    encoding: &'static str,
    tensors: usize,
    bytes: u64,
}

/// The matrices of one role: one, or one in each layer.
#[derive(Debug, Serialize)]
struct Matrices {
    role: &'static str,
    count: usize,
    encodings: Vec<&'static str>,
    parameters: u64,
    bits_per_weight: f64,
    bytes: u64,
    /// The least and the largest signal to noise against the checkpoint; null if nothing was lost
    /// or it is not known.
    snr_db_min: Option<f64>,
    snr_db_max: Option<f64>,
    /// The layer that lost most.
    snr_db_min_layer: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Tokenizer {
    tokens: u32,
    merges: u32,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Machine {
    cpu: Option<String>,
    isas: Vec<&'static str>,
    isa: &'static str,
    threads: usize,
}

#[derive(Debug, Serialize)]
struct Tensor {
    name: String,
    encoding: &'static str,
    rows: u32,
    cols: u32,
    bytes: u64,
    /// Signal to noise against the checkpoint; null if nothing was lost or it is not known.
    snr_db: Option<f64>,
}

pub fn run(args: &InfoArgs) -> Result<Outcome> {
    let model = Model::open(&args.model)?;
    let report = report(&model, args.tensors)?;
    if args.json {
        output::json(&report)?;
    } else {
        output::write_foreign(&text(&report))?;
    }
    Ok(Outcome::Done)
}

fn report(model: &Model, with_tensors: bool) -> Result<Report> {
    let file = model.weights()?;
    let metadata = model.metadata()?;
    let mut options = SessionOptions::new(file.config());
    options.kv = default_kv(&file);
    options.keep = default_keep(&options);
    options.threads = default_threads();
    let tokenizer = file.tokenizer().map_err(|error| model.format_error(&error))?;
    Ok(Report {
        model: model.name().into(),
        format_version: VERSION,
        file_bytes: file.bytes().len() as u64,
        parameters: file.config().parameter_count(),
        bits_per_weight: bits_per_weight(&file),
        weight_bytes_per_token: bytes_per_token(&file),
        config: config(file.config()),
        encodings: encodings(&file),
        matrices: matrices(&file, &metadata),
        tokenizer: tokenizer.map(|view| Tokenizer {
            tokens: view.vocab_size(),
            merges: view.merge_count(),
            bytes: file.header().sections[2].len,
        }),
        memory: MemoryPlan::new(model, &file, &options, &Decoding::standard(file.config(), 200))?,
        machine: Machine {
            cpu: machine::cpu_name(),
            isas: Isa::available().map(Isa::name).collect(),
            isa: Isa::best().name(),
            threads: default_threads(),
        },
        tensors: with_tensors.then(|| tensors(&file, &metadata)),
        metadata,
    })
}

fn config(config: &Gpt2Config) -> Config {
    Config {
        vocab_size: config.vocab_size,
        n_ctx: config.n_ctx,
        n_embd: config.n_embd,
        n_layer: config.n_layer,
        n_head: config.n_head,
        n_inner: config.n_inner,
        activation_function: config.activation.name(),
        scale_attn_weights: config.scale_attn_weights,
        scale_attn_by_inverse_layer_idx: config.scale_attn_by_inverse_layer_idx,
        tie_word_embeddings: config.tied_head,
        layer_norm_epsilon: config.layer_norm_epsilon,
        bos_token_id: config.bos_token_id,
        eos_token_id: config.eos_token_id,
    }
}

fn encodings(file: &WeightFile<'_>) -> Vec<EncodingUse> {
    [Encoding::F32, Encoding::F16, Encoding::Q8, Encoding::Q4, Encoding::Q3]
        .into_iter()
        .map(|encoding| {
            let (mut tensors, mut bytes) = (0, 0);
            for tensor in file.tensors().filter(|tensor| tensor.entry.encoding == encoding) {
                tensors += 1;
                bytes += tensor.entry.len;
            }
            EncodingUse { encoding: encoding.name(), tensors, bytes }
        })
        .filter(|encoding| encoding.tensors > 0)
        .collect()
}

/// Signal to noise of each tensor, in the order of the file, as the metadata has it.
fn snr_db(metadata: &Value, tensor: usize) -> Option<f64> {
    metadata["quality"][tensor].as_f64()
}

fn matrices(file: &WeightFile<'_>, metadata: &Value) -> Vec<Matrices> {
    let mut all: Vec<Matrices> = Vec::new();
    for (i, TensorView { entry, .. }) in file.tensors().enumerate() {
        if !entry.role.is_matrix() && entry.role != Role::Wpe {
            continue;
        }
        let role = entry.role.name();
        let known = all.iter().position(|m| m.role == role).unwrap_or_else(|| {
            all.push(Matrices {
                role,
                count: 0,
                encodings: vec![],
                parameters: 0,
                bits_per_weight: 0.0,
                bytes: 0,
                snr_db_min: None,
                snr_db_max: None,
                snr_db_min_layer: None,
            });
            all.len() - 1
        });
        let m = &mut all[known];
        m.count += 1;
        if !m.encodings.contains(&entry.encoding.name()) {
            m.encodings.push(entry.encoding.name());
        }
        m.parameters += u64::from(entry.rows) * u64::from(entry.cols);
        m.bytes += entry.len;
        m.bits_per_weight = 8.0 * m.bytes as f64 / m.parameters as f64;
        if let Some(snr) = snr_db(metadata, i) {
            m.snr_db_max = Some(m.snr_db_max.map_or(snr, |max| max.max(snr)));
            if m.snr_db_min.is_none_or(|min| snr < min) {
                m.snr_db_min = Some(snr);
                m.snr_db_min_layer = (entry.layer != NO_LAYER).then_some(entry.layer);
            }
        }
    }
    all
}

fn tensors(file: &WeightFile<'_>, metadata: &Value) -> Vec<Tensor> {
    file.tensors()
        .enumerate()
        .map(|(i, tensor)| Tensor {
            name: tensor_name(tensor.entry.role, tensor.entry.layer),
            encoding: tensor.entry.encoding.name(),
            rows: tensor.entry.rows,
            cols: tensor.entry.cols,
            bytes: tensor.entry.len,
            snr_db: snr_db(metadata, i),
        })
        .collect()
}

/// The report for people.
fn text(report: &Report) -> String {
    let Report { config: c, machine: m, metadata, .. } = report;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<16} {value}");
    };
    line("model", report.model.clone());
    line(
        "file",
        format!("{} (.pgpt version {})", units::bytes(report.file_bytes), report.format_version),
    );
    line(
        "parameters",
        format!("{} ({:.3} bits per weight)", report.parameters, report.bits_per_weight),
    );
    line(
        "config",
        format!(
            "n_layer {}, n_embd {}, n_head {}, n_inner {}, n_ctx {}, vocab_size {}",
            c.n_layer, c.n_embd, c.n_head, c.n_inner, c.n_ctx, c.vocab_size
        ),
    );
    let head = if c.tie_word_embeddings { "tied head" } else { "untied head" };
    let eps = c.layer_norm_epsilon;
    line("", format!("{}, {head}, layer_norm_epsilon {eps:e}", c.activation_function));
    for EncodingUse { encoding, tensors, bytes } in &report.encodings {
        line(encoding, format!("{tensors} tensors, {}", units::bytes(*bytes)));
    }
    match &report.tokenizer {
        Some(t) => line(
            "tokenizer",
            format!("{} tokens, {} merges, {}", t.tokens, t.merges, units::bytes(t.bytes)),
        ),
        None => line("tokenizer", "none".into()),
    }
    // What each tensor lost is told with the tensors.
    let told = metadata.as_object().into_iter().flatten().filter(|(key, _)| *key != "quality");
    for (key, value) in told {
        line(key, plain(value));
    }
    line("CPU", m.cpu.clone().unwrap_or_else(|| "unknown".into()));
    line("instructions", format!("{} (available: {})", m.isa, m.isas.join(", ")));
    line("threads", m.threads.to_string());

    out.push_str(&matrix_table(&report.matrices));
    out.push_str("\nmemory by default options, bytes\n");
    out.push_str(&report.memory.table());
    if let Some(tensors) = &report.tensors {
        out.push_str(&tensor_table(tensors));
    }
    out
}

/// JSON as people write it: `name tales, layers 6`.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{key} {}", plain(value)));
            pairs.collect::<Vec<_>>().join(", ")
        }
        value => value.to_string(),
    }
}

fn matrix_table(matrices: &[Matrices]) -> String {
    let mut out = String::from(
        "\nmatrices                 encoding   parameters    bits        bytes  SNR dB against the checkpoint\n",
    );
    for m in matrices {
        let name = if m.count > 1 { format!("{} x {}", m.count, m.role) } else { m.role.into() };
        let snr = match (m.snr_db_min, m.snr_db_max, m.snr_db_min_layer) {
            (Some(min), Some(max), Some(layer)) if m.count > 1 => {
                format!("{min:.1} (layer {layer}) to {max:.1}")
            }
            (Some(min), ..) => format!("{min:.1}"),
            _ => "-".into(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{name:<24} {:<8} {:>12} {:>7.3} {:>12}  {snr}",
            m.encodings.join(","),
            m.parameters,
            m.bits_per_weight,
            m.bytes
        );
    }
    out
}

fn tensor_table(tensors: &[Tensor]) -> String {
    let mut out = String::from(
        "\ntensor                      encoding       rows   cols        bytes   SNR dB\n",
    );
    for t in tensors {
        let snr = t.snr_db.map_or_else(|| "-".into(), |snr| format!("{snr:.1}"));
        let _ = writeln!(
            out,
            "{:<27} {:<8} {:>10} {:>6} {:>12} {snr:>8}",
            t.name, t.encoding, t.rows, t.cols, t.bytes
        );
    }
    out
}
