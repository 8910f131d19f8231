//! From logits to tokens: every strategy of Hugging Face's `generate`, in the caller's memory.
//!
//! Options have the names and the meaning of Hugging Face's generation config, and are applied in
//! the same order: sequence bias, repetition penalty, n-grams, least length, then for sampling
//! temperature, top-k, top-p, min-p, typical-p. Everything is computed in a fixed order, so that a
//! seed gives the same text on every instruction set and thread count.

mod beam;
mod candidate;
mod contrastive;
mod error;
mod explain;
mod lookup;
mod options;
mod processors;
mod random;
mod sampler;
mod sequence;
mod stop;
mod warpers;

pub use beam::Continuation;
pub(crate) use beam::{BeamLimits, BeamScorer};
pub use candidate::Candidate;
pub(crate) use candidate::max;
pub use contrastive::Contrast;
pub(crate) use contrastive::ContrastiveScorer;
pub use error::DecodingError;
pub use explain::{Distribution, Stage};
pub(crate) use lookup::Drafts;
pub use options::{
    BeamOptions, ContrastiveOptions, DecodingOptions, EarlyStopping, SamplingOptions, Strategy,
};
pub(crate) use processors::process;
pub use processors::{Context, SequenceBias};
pub(crate) use random::Random;
pub use sampler::Sampler;
pub(crate) use sampler::{check_finite, check_some_left};
pub use sequence::{Sequence, StopReason};
pub use stop::{StopCriterion, StopTexts};
