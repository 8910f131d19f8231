//! The shape of a GPT-2 model, with every derived size in checked arithmetic.

use crate::error::ConfigError;

/// The pointwise function between `c_fc` and `c_proj` of the MLP.
///
/// Names are those of Hugging Face's `activation_function`; `gelu_pytorch_tanh` is the same
/// function as `gelu_new` and is stored as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Activation {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`
    GeluNew = 0,
    /// `0.5 x (1 + erf(x/√2))`
    Gelu = 1,
    /// `max(x, 0)`
    Relu = 2,
    /// `x / (1 + exp(-x))`
    Silu = 3,
}

impl Activation {
    /// The activation with this code in a file, if there is one.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::GeluNew),
            1 => Some(Self::Gelu),
            2 => Some(Self::Relu),
            3 => Some(Self::Silu),
            _ => None,
        }
    }

    /// Hugging Face's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GeluNew => "gelu_new",
            Self::Gelu => "gelu",
            Self::Relu => "relu",
            Self::Silu => "silu",
        }
    }
}

/// What a GPT-2 checkpoint's `config.json` says, as far as inference needs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Rows of `wte`.
    pub vocab_size: u32,
    /// Rows of `wpe`: the longest context (`n_positions`).
    pub n_ctx: u32,
    /// Width of the residual stream.
    pub n_embd: u32,
    /// Number of transformer blocks.
    pub n_layer: u32,
    /// Attention heads per block; divides `n_embd`.
    pub n_head: u32,
    /// Width of the MLP's hidden layer (`4 * n_embd` where the checkpoint says null).
    pub n_inner: u32,
    /// Pointwise function of the MLP.
    pub activation: Activation,
    /// Divide attention scores by `√head_dim`.
    pub scale_attn_weights: bool,
    /// Divide attention scores by `layer + 1` as well.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The vocabulary head is `wte` itself; otherwise the file has an `lm_head`.
    pub tied_head: bool,
    /// Added to the variance in LayerNorm.
    pub layer_norm_epsilon: f32,
    /// Token that begins a text, if the checkpoint names one.
    pub bos_token_id: Option<u32>,
    /// Token that ends a text, if the checkpoint names one.
    pub eos_token_id: Option<u32>,
}

impl Gpt2Config {
    /// Largest `vocab_size` accepted.
    pub const MAX_VOCAB: u32 = 1 << 20;
    /// Largest `n_ctx` accepted.
    pub const MAX_CTX: u32 = 1 << 16;
    /// Largest `n_embd` accepted.
    pub const MAX_EMBD: u32 = 1 << 14;
    /// Largest `n_inner` accepted.
    pub const MAX_INNER: u32 = 1 << 16;
    /// Largest `n_layer` accepted.
    pub const MAX_LAYER: u32 = 1 << 9;
    /// Head sizes accepted.
    pub const HEAD_DIMS: core::ops::RangeInclusive<u32> = 32..=128;

    /// Proves that every size is in range, so that products of two of them fit 64 bits and a
    /// row index fits 32.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let capped = [
            ("vocab_size", self.vocab_size, Self::MAX_VOCAB),
            ("n_ctx", self.n_ctx, Self::MAX_CTX),
            ("n_embd", self.n_embd, Self::MAX_EMBD),
            ("n_inner", self.n_inner, Self::MAX_INNER),
            ("n_layer", self.n_layer, Self::MAX_LAYER),
            ("n_head", self.n_head, Self::MAX_EMBD),
        ];
        for (field, value, max) in capped {
            if value == 0 || value > max {
                return Err(ConfigError::OutOfRange { field, value, max });
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(ConfigError::HeadsDoNotDivide { n_embd: self.n_embd, n_head: self.n_head });
        }
        if !Self::HEAD_DIMS.contains(&(self.n_embd / self.n_head)) {
            return Err(ConfigError::HeadDim { head_dim: self.n_embd / self.n_head });
        }
        if !(self.layer_norm_epsilon > 0.0 && self.layer_norm_epsilon <= 1.0) {
            return Err(ConfigError::Epsilon);
        }
        for (field, id) in
            [("bos_token_id", self.bos_token_id), ("eos_token_id", self.eos_token_id)]
        {
            if let Some(value) = id
                && value >= self.vocab_size
            {
                return Err(ConfigError::TokenId { field, value, vocab_size: self.vocab_size });
            }
        }
        Ok(())
    }

    /// Elements of one head's query, key or value.
    pub const fn head_dim(&self) -> usize {
        (self.n_embd / self.n_head) as usize
    }

    /// What attention scores of a layer are multiplied with.
    pub fn attention_scale(&self, layer: usize) -> f32 {
        let mut scale = 1.0;
        if self.scale_attn_weights {
            scale /= crate::math::sqrt(self.head_dim() as f32);
        }
        if self.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f32;
        }
        scale
    }

    /// Number of weights and biases, the head counted once when tied.
    pub fn parameter_count(&self) -> u64 {
        let (v, c, d) = (u64::from(self.vocab_size), u64::from(self.n_ctx), u64::from(self.n_embd));
        let (l, i) = (u64::from(self.n_layer), u64::from(self.n_inner));
        let block = 4 * d + (d * 3 * d + 3 * d) + (d * d + d) + (d * i + i) + (i * d + d);
        let head = if self.tied_head { 0 } else { v * d };
        v * d + c * d + l * block + 2 * d + head
    }
}
