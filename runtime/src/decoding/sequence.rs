//! What was generated.

/// Why a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StopReason {
    /// The model ended it.
    EndOfText = 1,
    /// It has as many tokens as were asked for.
    MaxNewTokens = 2,
    /// A [`StopCriterion`](super::StopCriterion) was met.
    StopText = 3,
    /// No position is left.
    ContextFull = 4,
    /// The caller said so.
    Interrupted = 5,
}

impl StopReason {
    /// The reason with this discriminant.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        [Self::EndOfText, Self::MaxNewTokens, Self::StopText, Self::ContextFull, Self::Interrupted]
            .into_iter()
            .find(|&reason| reason as u32 == code)
    }
}

/// A generated text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sequence<'a> {
    /// What follows the prompt, without the token that ends it.
    pub tokens: &'a [u32],
    /// With beam search the log-probability of the new tokens, divided by their number to the
    /// power of `length_penalty`.
    pub score: Option<f32>,
    /// Why it ends.
    pub stop_reason: StopReason,
}
