//! Stop texts, found however the tokens cut them.

use core::fmt;

use crate::tokenizer::TokenizerView;

/// What ends a text besides the model's own end.
pub trait StopCriterion: fmt::Debug + Sync {
    /// Whether a text ends with the last of its new tokens.
    ///
    /// Asked for each token that is added, and in a beam search for each candidate.
    fn is_met(&self, new_tokens: &[u32]) -> bool;
}

/// Ends a text where one of several texts is complete in what is new. Nothing is kept between
/// tokens and no memory is needed.
#[derive(Clone, Copy, Debug)]
pub struct StopTexts<'a> {
    tokenizer: TokenizerView<'a>,
    texts: &'a [&'a str],
}

impl<'a> StopTexts<'a> {
    /// Stops at any of these; an empty one is never found.
    pub fn new(tokenizer: TokenizerView<'a>, texts: &'a [&'a str]) -> Self {
        Self { tokenizer, texts }
    }

    fn bytes(&self, token: u32) -> &'a [u8] {
        self.tokenizer.token_bytes(token).unwrap_or_default()
    }

    /// Whether the new text, without the last `cut` bytes, ends with `text`.
    fn ends_with(&self, new_tokens: &[u32], cut: usize, text: &[u8]) -> bool {
        let bytes = new_tokens.iter().rev().flat_map(|&token| self.bytes(token).iter().rev());
        let mut text = text.iter().rev();
        for byte in bytes.skip(cut) {
            match text.next() {
                Some(expected) if expected == byte => {}
                Some(_) => return false,
                None => return true,
            }
        }
        text.next().is_none()
    }
}

impl StopCriterion for StopTexts<'_> {
    fn is_met(&self, new_tokens: &[u32]) -> bool {
        let Some(&last) = new_tokens.last() else { return false };
        let texts = || self.texts.iter().map(|text| text.as_bytes()).filter(|t| !t.is_empty());
        // It ends at one of the last token's bytes, or it would have been found before.
        (0..self.bytes(last).len())
            .any(|cut| texts().any(|text| self.ends_with(new_tokens, cut, text)))
    }
}
