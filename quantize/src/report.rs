//! What a conversion did: sizes and errors per tensor, as data and as a table.

use std::fmt::{self, Write};

use pocketgpt_runtime::format::tensor::{NO_LAYER, TensorEntry};
use serde::Serialize;

use pocketgpt_runtime::format::Encoding;

use crate::allocate::Target;
use crate::calibrate::Divergence;
use crate::calibrate::text::Windows;
use crate::convert::{CalibrationText, ConvertOptions, Method};
use crate::gpt2_names::tensor_name;
use crate::pack::Loss;

/// What a conversion did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Program and version.
    pub tool: String,
    /// What was converted.
    pub source: SourceReport,
    /// How.
    pub recipe: Recipe,
    /// Every tensor, in the order of the file.
    pub tensors: Vec<TensorReport>,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the tokenizer in it.
    pub tokenizer_bytes: u64,
    /// Weights and biases, the head counted once when tied.
    pub parameters: u64,
    /// What it cost, where that was measured.
    pub divergence: Option<DivergenceReport>,
    /// Bits per weight over all matrices, the head and `wte` among them, without `wpe` and vectors.
    pub bits_per_weight: f64,
    /// Signal to noise over all matrices, in dB; null if nothing was lost.
    pub snr_db: Option<f64>,
}

/// What was converted.
#[derive(Clone, Debug, Serialize)]
pub struct SourceReport {
    /// The folder's or file's own name, without the folders above.
    pub name: String,
    /// SHA-256 over `config.json`, then each tensor's name, dtype and bytes in the order of the
    /// file, then the tokenizer's section.
    pub sha256: String,
}

/// How it was converted.
#[derive(Clone, Debug, Serialize)]
pub struct Recipe {
    /// Encoding of the matrices, or `mixed` for a target size.
    pub to: &'static str,
    /// Encoding of `wte` and `lm_head`, or `mixed`.
    pub head: &'static str,
    /// `rtn` or `gptq`.
    pub method: &'static str,
    /// Name of the text that the model was calibrated with, without the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<String>,
    /// Tokens of it that were used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_tokens: Option<usize>,
    /// Bits per weight asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bpw: Option<f64>,
    /// Bytes of the file asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_size: Option<u64>,
    /// Whether the file has a tokenizer.
    pub tokenizer: bool,
}

impl Recipe {
    pub(crate) fn new(options: &ConvertOptions, tokenizer: bool, text: Option<&Windows>) -> Self {
        let mixed = options.target.is_some();
        let name = |encoding: Encoding| if mixed { "mixed" } else { encoding.name() };
        let calibration = match &options.method {
            Method::Gptq { text: CalibrationText::File(path), .. } => {
                path.file_name().map(|name| name.to_string_lossy().into_owned())
            }
            _ => Some("built-in text".into()),
        };
        Self {
            to: name(options.to),
            head: name(options.head_encoding()),
            method: if text.is_some() { "gptq" } else { "rtn" },
            calibration: text.and(calibration),
            calibration_tokens: text.map(|text| text.tokens.len()),
            target_bpw: match options.target {
                Some(Target::BitsPerWeight(bits)) => Some(bits),
                _ => None,
            },
            target_size: match options.target {
                Some(Target::FileBytes(bytes)) => Some(bytes),
                _ => None,
            },
            tokenizer,
        }
    }
}

/// What conversion cost: predictions of the file against the checkpoint's, with activations in f32,
/// on windows of the calibration text that nothing was fitted to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DivergenceReport {
    /// Mean Kullback-Leibler divergence in nats per token.
    pub mean_kl_divergence: f64,
    /// Share of positions with the same most probable token.
    pub top1_agreement: f64,
    /// How many positions.
    pub positions: usize,
}

impl DivergenceReport {
    /// What takes as much room as any.
    pub(crate) const LONGEST: Self =
        Self { mean_kl_divergence: 0.123_456_7, top1_agreement: 0.123_456, positions: usize::MAX };

    pub(crate) fn new(found: Divergence) -> Self {
        Self {
            mean_kl_divergence: (found.kl * 1e7).round().max(0.0) / 1e7,
            top1_agreement: (found.top1 * 1e6).round() / 1e6,
            positions: found.positions,
        }
    }
}

/// One tensor of the file.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Its name in the checkpoint, without `transformer.`.
    pub name: String,
    /// Its name inside a block.
    pub role: &'static str,
    /// Block number.
    pub layer: Option<u16>,
    /// How numbers are stored.
    pub encoding: &'static str,
    /// Output rows.
    pub rows: u32,
    /// Inputs per row.
    pub cols: u32,
    /// Bytes in the file.
    pub bytes: u64,
    /// `8 bytes / (rows cols)`
    pub bits_per_weight: f64,
    /// Signal to noise of what is stored against the checkpoint, in dB; null if nothing was lost.
    pub snr_db: Option<f64>,
}

impl TensorReport {
    pub(crate) fn new(entry: &TensorEntry, loss: &Loss) -> Self {
        Self {
            name: tensor_name(entry.role, entry.layer),
            role: entry.role.name(),
            layer: (entry.layer != NO_LAYER).then_some(entry.layer),
            encoding: entry.encoding.name(),
            rows: entry.rows,
            cols: entry.cols,
            bytes: entry.len,
            bits_per_weight: bits_per_weight(entry.len, weights(entry)),
            snr_db: snr_db(loss),
        }
    }
}

/// Numbers of a tensor.
pub(crate) fn weights(entry: &TensorEntry) -> u64 {
    u64::from(entry.rows) * u64::from(entry.cols)
}

/// Rounded to four digits behind the point.
pub(crate) fn bits_per_weight(bytes: u64, weights: u64) -> f64 {
    (8e4 * bytes as f64 / weights as f64).round() / 1e4
}

/// `10 log10(signal / noise)`, rounded to two digits behind the point; `None` if nothing was lost
/// or the numbers are beyond f64.
pub(crate) fn snr_db(loss: &Loss) -> Option<f64> {
    let ratio = loss.signal / loss.noise;
    let usable = loss.noise > 0.0 && ratio.is_normal() && ratio > 0.0;
    usable.then(|| (1000.0 * log10(ratio)).round() / 100.0)
}

/// Logarithm of a normal positive number. It stands in the file, and the one of the C library
/// differs from machine to machine: here are `+ - * /` only.
fn log10(value: f64) -> f64 {
    ln(value) / std::f64::consts::LN_10
}

/// Natural logarithm of a normal positive number, the same on every machine.
pub(crate) fn ln(value: f64) -> f64 {
    let bits = value.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    // ln m = 2 artanh z, with |z| below 0.172: the terms fall by 1/34 each.
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let mut sum = 0.0;
    for power in (0..14).rev() {
        sum = sum * z * z + 1.0 / f64::from(2 * power + 1);
    }
    2.0 * z * sum + f64::from(exponent) * std::f64::consts::LN_2
}

/// The table for people: one line per tensor, then the totals.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<26} {:>14} {:>4} {:>8} {:>8}", "tensor", "shape", "", "bits", "SNR dB")?;
        for tensor in self.tensors.iter().filter(|t| t.rows > 1) {
            let shape = format!("{} x {}", tensor.rows, tensor.cols);
            let (name, encoding) = (&tensor.name, tensor.encoding);
            let (bits, snr) = (tensor.bits_per_weight, decibel(tensor.snr_db));
            writeln!(f, "{name:<26} {shape:>14} {encoding:>4} {bits:>8.3} {snr:>8}")?;
        }
        let vectors = self.tensors.iter().filter(|t| t.rows == 1);
        let (count, bytes) = vectors.fold((0, 0), |(n, bytes), t| (n + 1, bytes + t.bytes));
        writeln!(f, "{count} vectors in f32, {bytes} bytes")?;
        writeln!(
            f,
            "all matrices: {:.3} bits per weight, SNR {} dB",
            self.bits_per_weight,
            decibel(self.snr_db)
        )?;
        if let Some(d) = self.divergence {
            writeln!(
                f,
                "held-out text: mean KL divergence {:.6}, top 1 {:.2} % the same ({} positions)",
                d.mean_kl_divergence,
                100.0 * d.top1_agreement,
                d.positions
            )?;
        }
        write!(
            f,
            "{} parameters, tokenizer {} bytes, file {} bytes",
            self.parameters, self.tokenizer_bytes, self.file_bytes
        )
    }
}

fn decibel(snr: Option<f64>) -> String {
    let mut text = String::new();
    match snr {
        Some(snr) => write!(text, "{snr:.2}").expect("strings take everything"),
        None => text.push_str("exact"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log10_is_the_logarithm() {
        for value in [1e-300, 1e-5, 0.5, 0.9999999, 1.0, 1.414, 1.415, 2.0, 1234.5, 1e300] {
            assert!((log10(value) - value.log10()).abs() < 1e-12 * value.log10().abs() + 1e-15);
        }
    }

    #[test]
    fn nothing_lost_has_no_snr() {
        assert_eq!(snr_db(&Loss { signal: 1.0, noise: 0.0, overflows: 0 }), None);
        assert_eq!(snr_db(&Loss { signal: 0.0, noise: 0.0, overflows: 0 }), None);
        assert_eq!(snr_db(&Loss { signal: 1e4, noise: 1.0, overflows: 0 }), Some(40.0));
    }
}
