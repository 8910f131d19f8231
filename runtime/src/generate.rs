//! The token loop: a prompt, then one token after the other.

use core::fmt;
use core::ops::ControlFlow;

use crate::error::CapacityError;
use crate::parallel::Parallel;
use crate::sampling::{Sampler, SamplingError};
use crate::session::Session;

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerateOptions {
    /// Most tokens to write.
    pub max_new_tokens: usize,
    /// Token that ends the text; it is not passed on.
    pub eos_token_id: Option<u32>,
}

/// Why generation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended the text.
    EndOfText,
    /// As many tokens as were asked for.
    MaxNewTokens,
    /// No position is left.
    ContextFull,
    /// The caller said so.
    Interrupted,
}

/// Generation is impossible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GenerateError {
    /// Something does not fit.
    Capacity(CapacityError),
    /// No token can be chosen.
    Sampling(SamplingError),
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capacity(error) => error.fmt(f),
            Self::Sampling(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for GenerateError {}

impl From<CapacityError> for GenerateError {
    fn from(error: CapacityError) -> Self {
        Self::Capacity(error)
    }
}

impl From<SamplingError> for GenerateError {
    fn from(error: SamplingError) -> Self {
        Self::Sampling(error)
    }
}

/// Feeds `prompt` and writes tokens until one of the reasons to stop.
///
/// `sink(token)` gets each new token as soon as it is chosen, and stops the loop with
/// [`ControlFlow::Break`]. `history` is room for the text's tokens, prompt included; only its last
/// `history.len()` tokens count for the repetition penalty when it is shorter than the text.
///
/// # Errors
/// If the prompt is empty or longer than the positions that are left, or a logit is not finite.
pub fn generate(
    session: &mut Session<'_, '_>,
    par: &dyn Parallel,
    sampler: &mut Sampler<'_>,
    history: &mut [u32],
    prompt: &[u32],
    options: &GenerateOptions,
    mut sink: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<StopReason, GenerateError> {
    let kernels = *session.model().kernels();
    let mut history = History::new(history);
    prompt.iter().for_each(|&token| history.push(token));
    if options.max_new_tokens == 0 {
        session.feed(prompt, par)?;
        return Ok(StopReason::MaxNewTokens);
    }
    let mut token = sampler.next(&kernels, session.feed(prompt, par)?, history.tokens())?;
    for written in 1.. {
        if Some(token) == options.eos_token_id {
            return Ok(StopReason::EndOfText);
        }
        if sink(token).is_break() {
            return Ok(StopReason::Interrupted);
        }
        if written == options.max_new_tokens {
            return Ok(StopReason::MaxNewTokens);
        }
        if session.remaining() == 0 {
            return Ok(StopReason::ContextFull);
        }
        history.push(token);
        token = sampler.next(&kernels, session.feed(&[token], par)?, history.tokens())?;
    }
    unreachable!("the loop ends by returning")
}

/// The last tokens of a text.
struct History<'m> {
    tokens: &'m mut [u32],
    len: usize,
}

impl<'m> History<'m> {
    fn new(tokens: &'m mut [u32]) -> Self {
        Self { tokens, len: 0 }
    }

    fn push(&mut self, token: u32) {
        if self.len < self.tokens.len() {
            self.tokens[self.len] = token;
            self.len += 1;
        } else if let Some(last) = self.tokens.len().checked_sub(1) {
            self.tokens.copy_within(1.., 0);
            self.tokens[last] = token;
        }
    }

    fn tokens(&self) -> &[u32] {
        &self.tokens[..self.len]
    }
}
