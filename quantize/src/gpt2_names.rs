//! Names and shapes of a checkpoint's tensors: which one becomes which tensor of the file.

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::format::Role;
use pocketgpt_runtime::format::tensor::{BLOCK_ROLES, NO_LAYER, canonical, tensor_count};

use crate::error::ConvertError;
use crate::source::{Checkpoint, SourceDtype, SourceTensor};

/// Checkpoint tensors in the order of the file's directory.
#[derive(Clone, Debug)]
pub struct NamedTensors {
    /// One per entry of the directory; `lm_head` last, if there is one.
    pub tensors: Vec<SourceTensor>,
}

/// The tensor's name without `transformer.`: `h.3.attn.c_attn.weight`.
pub fn tensor_name(role: Role, layer: u16) -> String {
    if layer == NO_LAYER { role.name().into() } else { format!("h.{layer}.{}", role.name()) }
}

/// Whether the checkpoint stores the tensor `[in, out]`: the layers that are Conv1D there.
pub const fn is_transposed(role: Role) -> bool {
    matches!(
        role,
        Role::CAttnWeight | Role::AttnCProjWeight | Role::CFcWeight | Role::MlpCProjWeight
    )
}

/// The shape of a tensor in the checkpoint.
pub fn source_shape(role: Role, config: &Gpt2Config) -> Vec<usize> {
    let (rows, cols) = role.shape(config);
    let (rows, cols) = (rows as usize, cols as usize);
    match role {
        _ if is_transposed(role) => vec![cols, rows],
        Role::Wte | Role::Wpe | Role::LmHead => vec![rows, cols],
        _ => vec![cols],
    }
}

/// Finds every tensor the config asks for, and decides about the head: `config.tied_head`
/// becomes whether the file has none of its own.
///
/// A head that equals `wte` is stored once. One that differs is stored, also where
/// `tie_word_embeddings` is true: transformers warns about such a checkpoint and uses both.
///
/// # Errors
/// Tensors that are missing, superfluous, there twice, of another dtype or shape.
pub fn resolve(
    checkpoint: &mut Checkpoint,
    config: &mut Gpt2Config,
) -> Result<NamedTensors, ConvertError> {
    let mut named = NamedTensors { tensors: Vec::with_capacity(tensor_count(config) + 1) };
    let mut rest = checkpoint.tensors.clone();
    let told_tied = config.tied_head;
    let head = take(checkpoint, &mut rest, "lm_head.weight")?;
    config.tied_head = head.is_none();
    if head.is_none() && !told_tied {
        return Err(missing(checkpoint, "lm_head.weight"));
    }
    for index in 0..tensor_count(config) {
        let (role, layer) = canonical(config, index);
        let found = match role {
            Role::LmHead => head.clone(),
            _ => {
                let name = tensor_name(role, layer);
                let found = take(checkpoint, &mut rest, &name)?;
                Some(found.ok_or_else(|| missing(checkpoint, &name))?)
            }
        };
        let Some(tensor) = found else { continue };
        check(checkpoint, &tensor, source_shape(role, config))?;
        named.tensors.push(tensor);
    }
    refuse_rest(checkpoint, &rest)?;
    if let Some(head) = head
        && equal(checkpoint, &named.tensors[0], &head)?
    {
        config.tied_head = true;
        named.tensors.pop();
    }
    Ok(named)
}

fn missing(checkpoint: &Checkpoint, name: &str) -> ConvertError {
    // The head is outside the transformer, and models saved without a head have no prefix.
    let prefixed = checkpoint.tensors.iter().any(|t| t.name.starts_with("transformer."));
    let prefix = if prefixed && name != "lm_head.weight" { "transformer." } else { "" };
    ConvertError::MissingTensor { path: checkpoint.folder.clone(), name: format!("{prefix}{name}") }
}

/// Takes the tensor of this name, with `transformer.` or without, out of `rest`.
fn take(
    checkpoint: &Checkpoint,
    rest: &mut Vec<SourceTensor>,
    name: &str,
) -> Result<Option<SourceTensor>, ConvertError> {
    let is_it = |tensor: &SourceTensor| bare(&tensor.name) == name;
    let Some(at) = rest.iter().position(is_it) else { return Ok(None) };
    let tensor = rest.remove(at);
    match rest.iter().find(|tensor| is_it(tensor)) {
        None => Ok(Some(tensor)),
        Some(second) => Err(ConvertError::DuplicateTensor {
            path: checkpoint.path_of(second).into(),
            name: name.into(),
        }),
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix("transformer.").unwrap_or(name)
}

fn check(
    checkpoint: &Checkpoint,
    tensor: &SourceTensor,
    expected: Vec<usize>,
) -> Result<(), ConvertError> {
    if SourceDtype::from_safetensors(tensor.dtype).is_none() {
        return Err(ConvertError::Dtype {
            path: checkpoint.path_of(tensor).into(),
            tensor: tensor.name.clone(),
            dtype: format!("{:?}", tensor.dtype),
        });
    }
    if tensor.shape != expected {
        return Err(ConvertError::Shape {
            path: checkpoint.path_of(tensor).into(),
            tensor: tensor.name.clone(),
            expected,
            found: tensor.shape.clone(),
        });
    }
    Ok(())
}

/// Refuses what is left, apart from the causal masks that older versions of transformers saved.
fn refuse_rest(checkpoint: &Checkpoint, rest: &[SourceTensor]) -> Result<(), ConvertError> {
    const SHOWN: usize = 5;
    let extra: Vec<&str> =
        rest.iter().map(|t| t.name.as_str()).filter(|name| !is_mask(bare(name))).collect();
    if extra.is_empty() {
        return Ok(());
    }
    let mut names = extra[..extra.len().min(SHOWN)].join(", ");
    if extra.len() > SHOWN {
        names += &format!(" and {} more", extra.len() - SHOWN);
    }
    Err(ConvertError::UnexpectedTensors { path: checkpoint.folder.clone(), names })
}

/// `h.N.attn.bias` or `h.N.attn.masked_bias`
fn is_mask(name: &str) -> bool {
    let Some((layer, rest)) = name.strip_prefix("h.").and_then(|n| n.split_once('.')) else {
        return false;
    };
    layer.parse::<u16>().is_ok() && matches!(rest, "attn.bias" | "attn.masked_bias")
}

/// Whether two tensors of one shape hold the same numbers, read part by part.
fn equal(
    checkpoint: &mut Checkpoint,
    a: &SourceTensor,
    b: &SourceTensor,
) -> Result<bool, ConvertError> {
    const PART: usize = 1 << 20;
    let values = |tensor: &SourceTensor| {
        SourceDtype::from_safetensors(tensor.dtype).expect("checked before")
    };
    let (dtype_a, dtype_b) = (values(a), values(b));
    let count: usize = a.shape.iter().product();
    let (mut bytes_a, mut bytes_b) = (Vec::new(), Vec::new());
    for start in (0..count).step_by(PART) {
        let end = count.min(start + PART);
        let part = |dtype: SourceDtype| start * dtype.width()..end * dtype.width();
        checkpoint.read(a, part(dtype_a), &mut bytes_a)?;
        checkpoint.read(b, part(dtype_b), &mut bytes_b)?;
        let same = if dtype_a == dtype_b {
            bytes_a == bytes_b
        } else {
            let at = |dtype, bytes: &[u8], i| crate::numbers::number_at(dtype, bytes, i).to_bits();
            (0..end - start).all(|i| at(dtype_a, &bytes_a, i) == at(dtype_b, &bytes_b, i))
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tensors of a GPT-2 checkpoint of this config, in the order of the file: name with the
/// prefix of a model saved with its head, role, shape.
pub fn all_names(config: &Gpt2Config) -> impl Iterator<Item = (String, Role, Vec<usize>)> {
    let config = *config;
    debug_assert_eq!(BLOCK_ROLES.len(), 12);
    (0..tensor_count(&config)).map(move |index| {
        let (role, layer) = canonical(&config, index);
        let prefix = if role == Role::LmHead { "" } else { "transformer." };
        let name = format!("{prefix}{}", tensor_name(role, layer));
        (name, role, source_shape(role, &config))
    })
}
