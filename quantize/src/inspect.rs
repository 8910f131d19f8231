//! What a `.pgpt` file, or a checkpoint, holds.

use std::fmt;
use std::io::Read;
use std::path::Path;

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::format::{MAGIC, MappedFile, Packing, WeightFile};
use serde::Serialize;
use serde_json::Value;

use crate::error::ConvertError;
use crate::gpt2_names::tensor_name;
use crate::report::{bits_per_weight, weights};
use crate::source::Checkpoint;

/// What is at a path.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Inspection {
    /// A `.pgpt` file.
    WeightFile(Box<FileInspection>),
    /// A Hugging Face folder or safetensors file.
    Checkpoint(CheckpointInspection),
}

/// What a `.pgpt` file holds.
#[derive(Clone, Debug, Serialize)]
pub struct FileInspection {
    /// Version of the format.
    pub version: u32,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Sections in order: name, offset, bytes.
    pub sections: Vec<SectionInspection>,
    /// The model's shape, with the names of `config.json`.
    pub config: Value,
    /// Weights and biases, the head counted once when tied.
    pub parameters: u64,
    /// Entries of the tokenizer, if there is one.
    pub tokenizer_entries: Option<u32>,
    /// Source, recipe, quality.
    pub metadata: Value,
    /// Over all matrices.
    pub bits_per_weight: f64,
    /// Every tensor.
    pub tensors: Vec<TensorInspection>,
}

/// One section.
#[derive(Clone, Debug, Serialize)]
pub struct SectionInspection {
    /// Its name.
    pub name: &'static str,
    /// First byte.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
}

/// One tensor of a file.
#[derive(Clone, Debug, Serialize)]
pub struct TensorInspection {
    /// Name in the checkpoint, without `transformer.`.
    pub name: String,
    /// How numbers are stored.
    pub encoding: &'static str,
    /// Output rows.
    pub rows: u32,
    /// Inputs per row.
    pub cols: u32,
    /// First byte in the file.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
    /// `8 bytes / (rows cols)`
    pub bits_per_weight: f64,
    /// As the metadata says.
    pub snr_db: Option<f64>,
}

/// What a checkpoint holds.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointInspection {
    /// Every tensor, by name.
    pub tensors: Vec<SourceInspection>,
    /// Numbers of all tensors.
    pub numbers: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct SourceInspection {
    /// Its name.
    pub name: String,
    /// How numbers are stored.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Length.
    pub bytes: u64,
}

/// Looks at a file or folder, reading no tensor.
///
/// # Errors
/// If it is neither a `.pgpt` file nor a checkpoint, or breaks a rule of its format.
pub fn inspect(path: &Path) -> Result<Inspection, ConvertError> {
    let is_file = path.is_file();
    if is_file && begins_with_magic(path)? || path.extension().is_some_and(|e| e == "pgpt") {
        return inspect_file(path).map(|file| Inspection::WeightFile(Box::new(file)));
    }
    let checkpoint = Checkpoint::open(path)?;
    let tensors: Vec<_> = checkpoint
        .tensors
        .iter()
        .map(|tensor| SourceInspection {
            name: tensor.name.clone(),
            dtype: format!("{:?}", tensor.dtype),
            shape: tensor.shape.clone(),
            bytes: tensor.byte_len() as u64,
        })
        .collect();
    let numbers = tensors.iter().map(|t| t.shape.iter().map(|n| *n as u64).product::<u64>()).sum();
    let bytes = tensors.iter().map(|t| t.bytes).sum();
    Ok(Inspection::Checkpoint(CheckpointInspection { tensors, numbers, bytes }))
}

fn begins_with_magic(path: &Path) -> Result<bool, ConvertError> {
    let mut start = [0; 4];
    let file = std::fs::File::open(path).map_err(ConvertError::io("open", path))?;
    let read = file.take(4).read(&mut start).map_err(ConvertError::io("read", path))?;
    Ok(read == 4 && start == MAGIC)
}

fn inspect_file(path: &Path) -> Result<FileInspection, ConvertError> {
    let map = MappedFile::open(path).map_err(ConvertError::io("open", path))?;
    let format = |source| ConvertError::Format { path: path.into(), source };
    let file = WeightFile::new(map.bytes()).map_err(format)?;
    let text = file.metadata().map_err(format)?;
    // Metadata is for people: what is not JSON is shown as it stands.
    let metadata = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let header = file.header();
    let spans = header.sections.iter().chain([&header.data]);
    let names = ["config", "directory", "tokenizer", "metadata", "data"];
    let (mut bytes, mut count) = (0, 0);
    let tensors = file
        .tensors()
        .enumerate()
        .map(|(i, tensor)| {
            let entry = tensor.entry;
            if entry.packing == Packing::Tile16 {
                bytes += entry.len;
                count += weights(&entry);
            }
            TensorInspection {
                name: tensor_name(entry.role, entry.layer),
                encoding: entry.encoding.name(),
                rows: entry.rows,
                cols: entry.cols,
                offset: entry.offset,
                bytes: entry.len,
                bits_per_weight: bits_per_weight(entry.len, weights(&entry)),
                snr_db: metadata["quality"][i].as_f64(),
            }
        })
        .collect();
    Ok(FileInspection {
        version: pocketgpt_runtime::format::VERSION,
        file_bytes: header.file_len,
        sections: names
            .into_iter()
            .zip(spans)
            .map(|(name, span)| SectionInspection { name, offset: span.offset, bytes: span.len })
            .collect(),
        config: config_json(file.config()),
        parameters: file.config().parameter_count(),
        tokenizer_entries: file.tokenizer().map_err(format)?.map(|t| t.vocab_size()),
        bits_per_weight: bits_per_weight(bytes, count),
        metadata,
        tensors,
    })
}

fn config_json(config: &Gpt2Config) -> Value {
    // 1e-5 as it was written, not the f32 next to it as f64.
    let epsilon: f64 = config.layer_norm_epsilon.to_string().parse().unwrap_or(f64::NAN);
    serde_json::json!({
        "vocab_size": config.vocab_size,
        "n_ctx": config.n_ctx,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.n_inner,
        "activation_function": config.activation.name(),
        "scale_attn_weights": config.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
        "tie_word_embeddings": config.tied_head,
        "layer_norm_epsilon": epsilon,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
    })
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WeightFile(file) => file.fmt(f),
            Self::Checkpoint(checkpoint) => checkpoint.fmt(f),
        }
    }
}

impl fmt::Display for FileInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pgpt version {}, {} bytes", self.version, self.file_bytes)?;
        for s in &self.sections {
            writeln!(f, "  {:<10} at {:>8}, {:>12} bytes", s.name, s.offset, s.bytes)?;
        }
        writeln!(f, "config")?;
        for (key, value) in self.config.as_object().into_iter().flatten() {
            writeln!(f, "  {key}: {value}")?;
        }
        match self.tokenizer_entries {
            Some(entries) => writeln!(f, "tokenizer: {entries} entries")?,
            None => writeln!(f, "tokenizer: none, the file takes token ids only")?,
        }
        for key in ["tool", "source", "recipe", "generation"] {
            if let Some(value) = self.metadata.get(key) {
                writeln!(f, "{key}: {value}")?;
            }
        }
        writeln!(f, "{:<26} {:>14} {:>4} {:>8} {:>8}", "tensor", "shape", "", "bits", "SNR dB")?;
        for t in &self.tensors {
            let shape =
                if t.rows == 1 { t.cols.to_string() } else { format!("{} x {}", t.rows, t.cols) };
            let snr = t.snr_db.map_or(String::new(), |snr| format!("{snr:.2}"));
            let (name, encoding, bits) = (&t.name, t.encoding, t.bits_per_weight);
            writeln!(f, "{name:<26} {shape:>14} {encoding:>4} {bits:>8.3} {snr:>8}")?;
        }
        write!(
            f,
            "{} parameters, {:.3} bits per weight over all matrices",
            self.parameters, self.bits_per_weight
        )
    }
}

impl fmt::Display for CheckpointInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for t in &self.tensors {
            writeln!(f, "{:<44} {:>6} {:?}", t.name, t.dtype, t.shape)?;
        }
        write!(f, "{} tensors, {} numbers, {} bytes", self.tensors.len(), self.numbers, self.bytes)
    }
}
