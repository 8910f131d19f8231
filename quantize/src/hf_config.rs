//! `config.json` and `generation_config.json`.
//!
//! A field that is absent has the value that transformers' `GPT2Config` gives it, apart from the
//! token ids: absent there means that there is none. What would change the model's text and is
//! not supported is refused by name.

use std::path::{Path, PathBuf};

use pocketgpt_runtime::config::{Activation, Gpt2Config};
use serde_json::{Map, Value};

use crate::error::ConvertError;
use crate::limits::{MAX_CONFIG, told};
use crate::source::{parse_json, parse_text, read_text};

/// What the JSON files of a checkpoint say.
#[derive(Clone, Debug)]
pub struct HfConfig {
    /// The model's shape; `tied_head` is what `tie_word_embeddings` says, the tensors decide.
    pub config: Gpt2Config,
    /// Sampling defaults of `generation_config.json`; empty without that file.
    pub generation: Map<String, Value>,
    /// Text of `config.json`, for the source's hash.
    pub text: String,
}

/// Fields of `generation_config.json` that say how to choose tokens.
const GENERATION_FIELDS: [&str; 20] = [
    "bos_token_id",
    "do_sample",
    "early_stopping",
    "eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_beams",
    "num_return_sequences",
    "pad_token_id",
    "penalty_alpha",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// Reads and validates the configuration of the checkpoint in this folder.
///
/// # Errors
/// If `config.json` is missing, is not GPT-2's, or asks for something that is not supported.
pub fn read(folder: &Path) -> Result<HfConfig, ConvertError> {
    let path = folder.join("config.json");
    if !path.exists() {
        return Err(ConvertError::NoConfig { folder: folder.into() });
    }
    let text = read_text(&path, MAX_CONFIG)?;
    let object: Map<String, Value> = parse_text(&path, &text)?;
    let generation = read_generation(&folder.join("generation_config.json"))?;
    let fields = Fields { path: &path, object: &object };
    refuse_unsupported(&fields)?;

    let n_embd = fields.size("n_embd", 768)?;
    let config = Gpt2Config {
        vocab_size: fields.size("vocab_size", 50257)?,
        n_ctx: fields.size("n_positions", 1024)?,
        n_embd,
        n_layer: fields.size("n_layer", 12)?,
        n_head: fields.size("n_head", 12)?,
        n_inner: fields.size("n_inner", n_embd.saturating_mul(4))?,
        activation: fields.activation()?,
        scale_attn_weights: fields.flag("scale_attn_weights", true)?,
        scale_attn_by_inverse_layer_idx: fields.flag("scale_attn_by_inverse_layer_idx", false)?,
        tied_head: fields.flag("tie_word_embeddings", true)?,
        layer_norm_epsilon: fields.number("layer_norm_epsilon", 1e-5)? as f32,
        bos_token_id: fields.token("bos_token_id", &generation)?,
        eos_token_id: fields.token("eos_token_id", &generation)?,
    };
    config.validate().map_err(|source| ConvertError::Config { path, source })?;
    Ok(HfConfig { config, generation, text })
}

fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), ConvertError> {
    match fields.get("model_type") {
        Some(Value::String(kind)) if kind == "gpt2" => {}
        found => {
            let found = match found {
                Some(Value::String(kind)) => told(kind),
                Some(other) => told(&other.to_string()),
                None => "missing".into(),
            };
            return Err(ConvertError::NotGpt2 { path: fields.path.into(), found });
        }
    }
    if fields.flag("add_cross_attention", false)? {
        return Err(fields.unsupported("cross-attention (add_cross_attention)".into()));
    }
    let positions = fields.size("n_positions", 1024)?;
    let n_ctx = fields.size("n_ctx", positions)?;
    if n_ctx != positions {
        let what = format!("n_ctx {n_ctx} other than n_positions {positions}");
        return Err(fields.unsupported(what));
    }
    if let Some(quantized) = fields.get("quantization_config") {
        let method = quantized.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
        let what = format!("a checkpoint that is quantized already ({})", told(method));
        return Err(fields.unsupported(what));
    }
    let empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
    if fields.get("pruned_heads").is_some_and(|heads| !empty(heads)) {
        return Err(fields.unsupported("a model with pruned_heads".into()));
    }
    Ok(())
}

fn read_generation(path: &Path) -> Result<Map<String, Value>, ConvertError> {
    if !path.exists() {
        return Ok(Map::new());
    }
    let mut object: Map<String, Value> = parse_json(path, MAX_CONFIG)?;
    object.retain(|key, value| GENERATION_FIELDS.contains(&key.as_str()) && !value.is_null());
    Ok(object)
}

/// The fields of `config.json`; null counts as absent.
struct Fields<'a> {
    path: &'a Path,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    fn unsupported(&self, what: String) -> ConvertError {
        ConvertError::Unsupported { path: self.path.into(), what }
    }

    fn wrong(&self, field: &str, found: &Value, expected: &'static str) -> ConvertError {
        let path: PathBuf = self.path.into();
        ConvertError::Field { path, field: field.into(), found: told(&found.to_string()), expected }
    }

    fn size(&self, field: &str, absent: u32) -> Result<u32, ConvertError> {
        let Some(value) = self.get(field) else { return Ok(absent) };
        let size = value.as_u64().and_then(|size| u32::try_from(size).ok());
        size.ok_or_else(|| self.wrong(field, value, "a positive number below 2^32"))
    }

    fn flag(&self, field: &str, absent: bool) -> Result<bool, ConvertError> {
        let Some(value) = self.get(field) else { return Ok(absent) };
        value.as_bool().ok_or_else(|| self.wrong(field, value, "true or false"))
    }

    fn number(&self, field: &str, absent: f64) -> Result<f64, ConvertError> {
        let Some(value) = self.get(field) else { return Ok(absent) };
        value.as_f64().ok_or_else(|| self.wrong(field, value, "a number"))
    }

    fn activation(&self) -> Result<Activation, ConvertError> {
        const FIELD: &str = "activation_function";
        let Some(value) = self.get(FIELD) else { return Ok(Activation::GeluNew) };
        match value.as_str() {
            Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluNew),
            Some("gelu") => Ok(Activation::Gelu),
            Some("relu") => Ok(Activation::Relu),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some(other) => Err(self.unsupported(format!("{FIELD} {}", told(other)))),
            None => Err(self.wrong(FIELD, value, "a name")),
        }
    }

    /// A token id, or the first of a list; from `generation_config.json` if absent here.
    fn token(
        &self,
        field: &str,
        generation: &Map<String, Value>,
    ) -> Result<Option<u32>, ConvertError> {
        let Some(value) = self.get(field).or_else(|| generation.get(field)) else {
            return Ok(None);
        };
        let id = match value {
            Value::Array(ids) if ids.is_empty() => return Ok(None),
            Value::Array(ids) => &ids[0],
            id => id,
        };
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        number.map(Some).ok_or_else(|| self.wrong(field, value, "a token id"))
    }
}
