//! A model: proven weights and the kernels to use them with.

use crate::config::Gpt2Config;
use crate::format::{Role, TensorView, WeightFile};
use crate::kernels::Kernels;
use crate::nn::linear::{Linear, Norm};

/// GPT-2: a weight file and a set of kernels. Costs nothing to make or copy.
#[derive(Clone, Copy, Debug)]
pub struct Gpt2<'w> {
    file: WeightFile<'w>,
    kernels: Kernels,
}

impl<'w> Gpt2<'w> {
    /// A model over a file that was proven at open.
    pub fn new(file: WeightFile<'w>, kernels: Kernels) -> Self {
        Self { file, kernels }
    }

    /// The weight file.
    pub fn file(&self) -> &WeightFile<'w> {
        &self.file
    }

    /// The model's sizes.
    pub fn config(&self) -> &Gpt2Config {
        self.file.config()
    }

    /// The kernels chosen at start.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The embedding of a token, as it is before a position is added: `out` is `[n_embd]`.
    ///
    /// # Panics
    /// If there is no such token or `out` has another length.
    pub fn token_embedding(&self, token: u32, out: &mut [f32]) {
        assert!(token < self.config().vocab_size);
        crate::nn::embedding::row(&self.file.tensor(Role::Wte, 0), token as usize, out);
    }

    pub(crate) fn vector(&self, role: Role, layer: usize) -> &'w [f32] {
        self.file.tensor(role, layer).f32s()
    }

    pub(crate) fn norm(&self, weight: Role, bias: Role, layer: usize) -> Norm<'w> {
        Norm {
            weight: self.vector(weight, layer),
            bias: self.vector(bias, layer),
            eps: self.config().layer_norm_epsilon,
        }
    }

    pub(crate) fn linear(&self, weight: TensorView<'w>, norm: Option<Norm<'w>>) -> Linear<'_, 'w> {
        Linear::new(&self.kernels, weight, norm)
    }
}
