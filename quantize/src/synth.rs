//! Checkpoints of random numbers in Hugging Face layout: the sizes of real models for speed and
//! memory tests, without a download.
//!
//! Numbers come from xoshiro256++ (`rand_xoshiro`), seeded per part of a tensor, so parts are made
//! in parallel and the same seed gives the same bytes everywhere. A normal number is the sum of
//! four uniform ones of 16 bits (Irwin–Hall): no logarithm, tails end at 3.5 σ.

use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use pocketgpt_runtime::config::{Activation, Gpt2Config};
use pocketgpt_runtime::format::Role;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::json;

use crate::error::ConvertError;
use crate::gpt2_names::all_names;
use crate::progress::Progress;
use crate::source::SourceDtype;
use crate::synth_tokenizer;
use crate::threads::on_threads;
use crate::writer::{persist, temporary};

/// Numbers that share a seed.
const PART: usize = 1 << 16;
/// Numbers made at a time.
const CHUNK: usize = 64 * PART;

/// A model size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// 124M parameters
    Gpt2,
    /// 355M parameters
    Gpt2Medium,
    /// 774M parameters
    Gpt2Large,
    /// 1558M parameters
    Gpt2Xl,
    /// Two layers of width 64
    Tiny,
}

impl Preset {
    /// The model's shape.
    pub fn config(self) -> Gpt2Config {
        let (n_layer, n_embd, n_head) = match self {
            Self::Gpt2 => (12, 768, 12),
            Self::Gpt2Medium => (24, 1024, 16),
            Self::Gpt2Large => (36, 1280, 20),
            Self::Gpt2Xl => (48, 1600, 25),
            Self::Tiny => (2, 64, 2),
        };
        let (vocab_size, n_ctx) = if self == Self::Tiny { (512, 64) } else { (50257, 1024) };
        Gpt2Config {
            vocab_size,
            n_ctx,
            n_embd,
            n_layer,
            n_head,
            n_inner: 4 * n_embd,
            activation: Activation::GeluNew,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tied_head: true,
            layer_norm_epsilon: 1e-5,
            bos_token_id: Some(vocab_size - 1),
            eos_token_id: Some(vocab_size - 1),
        }
    }
}

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct SynthOptions {
    /// The size.
    pub preset: Preset,
    /// Another seed gives other numbers.
    pub seed: u64,
    /// How numbers are stored.
    pub dtype: SourceDtype,
    /// Write into a folder that is not empty.
    pub force: bool,
}

/// Makes a checkpoint in `folder`: `config.json`, `generation_config.json`, `tokenizer.json`,
/// `model.safetensors`. Weights are initialized as GPT-2's are (normal, σ 0.02, the `c_proj` by
/// 1/√(2 n_layer) less); biases and LayerNorms are not zero and one but a little beside, so that
/// nothing can be left out unnoticed.
///
/// # Errors
/// If the folder is not empty, or cannot be written.
pub fn synthesize(
    folder: &Path,
    options: &SynthOptions,
    progress: &mut dyn Progress,
) -> Result<(), ConvertError> {
    std::fs::create_dir_all(folder).map_err(ConvertError::io("create", folder))?;
    let mut entries = std::fs::read_dir(folder).map_err(ConvertError::io("read", folder))?;
    if entries.next().is_some() && !options.force {
        let cause = "the folder is not empty; choose another one, or --force to write into it";
        return Err(ConvertError::Output { path: folder.into(), cause });
    }
    let config = options.preset.config();
    // The weights first: they take longest, and can be interrupted with nothing left behind.
    let weights = folder.join("model.safetensors");
    on_threads(None, || write_weights(&weights, &config, options, progress))?;
    let tokenizer = synth_tokenizer::tokenizer_json(config.vocab_size);
    write_json(&folder.join("tokenizer.json"), &tokenizer)?;
    write_json(&folder.join("config.json"), &config_json(&config, options.dtype))?;
    let end = config.vocab_size - 1;
    let generation = json!({ "bos_token_id": end, "eos_token_id": end, "do_sample": true });
    write_json(&folder.join("generation_config.json"), &generation)?;
    progress.finish();
    Ok(())
}

fn config_json(config: &Gpt2Config, dtype: SourceDtype) -> serde_json::Value {
    json!({
        "activation_function": config.activation.name(),
        "architectures": ["GPT2LMHeadModel"],
        "bos_token_id": config.bos_token_id,
        "dtype": match dtype {
            SourceDtype::F32 => "float32",
            SourceDtype::F16 => "float16",
            SourceDtype::Bf16 => "bfloat16",
        },
        "eos_token_id": config.eos_token_id,
        "layer_norm_epsilon": 1e-5,
        "model_type": "gpt2",
        "n_ctx": config.n_ctx,
        "n_embd": config.n_embd,
        "n_head": config.n_head,
        "n_inner": null,
        "n_layer": config.n_layer,
        "n_positions": config.n_ctx,
        "tie_word_embeddings": true,
        "vocab_size": config.vocab_size,
    })
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ConvertError> {
    let text = serde_json::to_string_pretty(value).expect("text keys and finite numbers");
    std::fs::write(path, text + "\n").map_err(ConvertError::io("write", path))
}

fn write_weights(
    path: &Path,
    config: &Gpt2Config,
    options: &SynthOptions,
    progress: &mut dyn Progress,
) -> Result<(), ConvertError> {
    let width = options.dtype.width();
    let header = header(config, options.dtype);
    let mut file = temporary(path)?;
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(ConvertError::io("write", path));
    write(&(header.len() as u64).to_le_bytes())?;
    write(&header)?;
    progress.start(config.parameter_count() * width as u64);
    let mut bytes = Vec::new();
    for (index, (name, role, shape)) in all_names(config).enumerate() {
        progress.tensor(&name);
        let distribution = Distribution::of(role, config);
        let count: usize = shape.iter().product();
        for first in (0..count).step_by(CHUNK) {
            bytes.resize((count - first).min(CHUNK) * width, 0);
            bytes.par_chunks_mut(PART * width).enumerate().for_each(|(i, part)| {
                let number = (first / PART + i) as u64;
                fill(part, options, distribution, index as u64, number);
            });
            write(&bytes)?;
            progress.advance(bytes.len() as u64);
            if progress.is_cancelled() {
                return Err(ConvertError::Cancelled);
            }
        }
    }
    persist(file, path)
}

/// The JSON header, padded to a multiple of 8 as the format wants its data aligned.
fn header(config: &Gpt2Config, dtype: SourceDtype) -> Vec<u8> {
    let stored = match dtype {
        SourceDtype::F32 => Dtype::F32,
        SourceDtype::F16 => Dtype::F16,
        SourceDtype::Bf16 => Dtype::BF16,
    };
    let mut end = 0;
    let tensors = all_names(config)
        .map(|(name, _, shape)| {
            let start = end;
            end += shape.iter().product::<usize>() * dtype.width();
            (name, TensorInfo { dtype: stored, shape, data_offsets: (start, end) })
        })
        .collect();
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let metadata = Metadata::new(Some(format), tensors).expect("tensors one behind the other");
    let mut header = serde_json::to_vec(&metadata).expect("text keys");
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

#[derive(Clone, Copy)]
struct Distribution {
    mean: f32,
    sigma: f32,
}

impl Distribution {
    fn of(role: Role, config: &Gpt2Config) -> Self {
        let (mean, sigma) = match role {
            Role::Ln1Weight | Role::Ln2Weight | Role::LnFWeight => (1.0, 0.02),
            Role::AttnCProjWeight | Role::MlpCProjWeight => {
                (0.0, 0.02 / f64::from(2 * config.n_layer).sqrt())
            }
            _ if role.is_matrix() || role == Role::Wpe => (0.0, 0.02),
            _ => (0.0, 0.005),
        };
        Self { mean, sigma: sigma as f32 }
    }
}

fn fill(part: &mut [u8], options: &SynthOptions, d: Distribution, tensor: u64, number: u64) {
    // An odd factor each keeps the seeds of (tensor, part) apart; the generator mixes them.
    let seed = options
        .seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(tensor << 32)
        .wrapping_add(number);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    // Four numbers of 16 bits have the variance (2^32 − 1) / 3.
    let scale = d.sigma * (3.0f64.sqrt() / 65536.0) as f32;
    let mut next = || {
        let bits = random.next_u64();
        let sum = (0..4).map(|i| (bits >> (16 * i)) as i32 & 0xffff).sum::<i32>();
        (sum - 2 * 65535) as f32 * scale + d.mean
    };
    match options.dtype {
        SourceDtype::F32 => {
            part.as_chunks_mut::<4>().0.iter_mut().for_each(|b| *b = next().to_le_bytes());
        }
        SourceDtype::F16 => {
            let stored = |x: f32| f16::from_f32(x).to_le_bytes();
            part.as_chunks_mut::<2>().0.iter_mut().for_each(|b| *b = stored(next()));
        }
        SourceDtype::Bf16 => {
            let stored = |x: f32| bf16::from_f32(x).to_le_bytes();
            part.as_chunks_mut::<2>().0.iter_mut().for_each(|b| *b = stored(next()));
        }
    }
}
