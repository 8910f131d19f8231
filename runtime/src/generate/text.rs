//! A text being written, and when it ends.

use super::Observer;
use crate::decoding::{Context, DecodingOptions, StopReason};

/// Prompt and new tokens.
pub(super) struct Text<'a> {
    tokens: &'a mut [u32],
    prompt: usize,
    len: usize,
}

impl<'a> Text<'a> {
    /// A text that begins with a prompt; `tokens` has room for all of it.
    pub(super) fn new(tokens: &'a mut [u32], prompt: &[u32]) -> Self {
        tokens[..prompt.len()].copy_from_slice(prompt);
        Self { tokens, prompt: prompt.len(), len: prompt.len() }
    }

    /// A text that has been written so far.
    pub(super) fn resume(tokens: &'a mut [u32], prompt: usize, len: usize) -> Self {
        Self { tokens, prompt, len }
    }

    /// Its tokens.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens[..self.len]
    }

    pub(super) fn new_tokens(&self) -> usize {
        self.len - self.prompt
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context { text: self.tokens(), new_tokens: self.new_tokens() }
    }

    /// Adds a token, unless it is the model's end, and tells the observer. Returns why the text
    /// ends with it, if it does; `positions` is how many are left for tokens to be read.
    pub(super) fn push(
        &mut self,
        token: u32,
        options: &DecodingOptions<'_>,
        positions: usize,
        (sequence, observer): (usize, &mut dyn Observer),
    ) -> Option<StopReason> {
        observer.chosen(sequence, token);
        if Some(token) == options.eos_token_id {
            return Some(StopReason::EndOfText);
        }
        self.tokens[self.len] = token;
        self.len += 1;
        let goes_on = observer.token(sequence, token).is_continue();
        let new = &self.tokens[self.prompt..self.len];
        if options.stop.is_some_and(|stop| stop.is_met(new)) {
            Some(StopReason::StopText)
        } else if !goes_on {
            Some(StopReason::Interrupted)
        } else if new.len() == options.max_new_tokens {
            Some(StopReason::MaxNewTokens)
        } else if positions == 0 {
            Some(StopReason::ContextFull)
        } else {
            None
        }
    }
}
