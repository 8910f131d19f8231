//! Text to ids, and back.

use super::added::AddedFinder;
use super::bpe::{SCRATCH_PER_BYTE, merge_word};
use super::pretokenize::Words;
use super::{CapacityError, TokenizerView, Utf8Stream};
use core::ops::Range;

/// Scratch elements with which any text of `text_len` bytes can be encoded.
///
/// That is for a text of one single word; [`TokenizerView::scratch_len`] tells what a text needs,
/// which for prose is a few hundred elements. Saturates for texts that cannot be in memory.
pub const fn required_scratch(text_len: usize) -> usize {
    // One more for the space before the text.
    text_len.saturating_add(1).saturating_mul(SCRATCH_PER_BYTE)
}

/// What is done with special tokens such as `<|endoftext|>` that are written in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpecialTokens {
    /// They become their ids, as the reference does.
    #[default]
    Parse,
    /// They are text as any other: nothing that a stranger writes can end the document.
    Plain,
}

/// A part of a text: an added token, or what is between two of them.
type Part = (Option<u32>, Range<usize>);

impl<'a> TokenizerView<'a> {
    /// Scratch elements that encoding `text` needs, whatever is done with special tokens.
    pub fn scratch_len(&self, text: &str) -> usize {
        let mut longest = 0;
        for special in [SpecialTokens::Parse, SpecialTokens::Plain] {
            let Ok(()) = self.split_added(text, special, |part| {
                longest = longest.max(self.longest_word(text, &part));
                Ok::<(), core::convert::Infallible>(())
            });
        }
        longest.saturating_mul(SCRATCH_PER_BYTE)
    }

    fn longest_word(&self, text: &str, (id, place): &Part) -> usize {
        if id.is_some() {
            return 0;
        }
        Words::new(&text[place.clone()], self.add_prefix_space())
            .map(|word| word.len())
            .max()
            .unwrap_or(0)
    }

    /// Encodes `text` into `out` and returns the number of ids.
    ///
    /// `scratch` is `[scratch_len(text)]` or longer; its content does not matter.
    ///
    /// # Errors
    ///
    /// [`CapacityError`] if `scratch` or `out` is too short, with the length that suffices.
    pub fn encode(
        &self,
        text: &str,
        scratch: &mut [u32],
        out: &mut [u32],
    ) -> Result<usize, CapacityError> {
        let mut count = 0;
        self.encode_with(text, SpecialTokens::Parse, scratch, |id, _| {
            if let Some(place) = out.get_mut(count) {
                *place = id;
            }
            count += 1;
            Ok(())
        })?;
        if count > out.len() {
            return Err(CapacityError::Output { needed: count, given: out.len() });
        }
        Ok(count)
    }

    /// Encodes `text` and hands each id to `sink` with the range of bytes of `text` that it stands
    /// for, in order. Together the ranges cover the text; a range may end inside a character. A
    /// space that was put before the text takes no bytes, so a range may be empty.
    ///
    /// # Errors
    ///
    /// [`CapacityError::Scratch`] if `scratch` is shorter than
    /// [`scratch_len`](Self::scratch_len), and what `sink` returns. Ids before the one that failed
    /// have been handed over.
    pub fn encode_with<E: From<CapacityError>>(
        &self,
        text: &str,
        special: SpecialTokens,
        scratch: &mut [u32],
        mut sink: impl FnMut(u32, Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.split_added(text, special, |(id, place)| match id {
            Some(id) => sink(id, place),
            None => self.encode_part(text, place, scratch, &mut sink),
        })
    }

    fn encode_part<E: From<CapacityError>>(
        &self,
        text: &str,
        place: Range<usize>,
        scratch: &mut [u32],
        mut sink: impl FnMut(u32, Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        for word in Words::new(&text[place.clone()], self.add_prefix_space()) {
            let needed = word.len().saturating_mul(SCRATCH_PER_BYTE);
            // Symbols are numbered with 32 bits.
            if scratch.len() < needed || u32::try_from(word.len()).is_err() {
                let given = scratch.len();
                return Err(CapacityError::Scratch { needed, given }.into());
            }
            let start = place.start + word.start;
            // Byte 0 of a prefixed word is not in the text.
            let in_text = |at: usize| start + at.saturating_sub(usize::from(word.prefixed));
            merge_word(self, word, scratch, |id, range| {
                sink(id, in_text(range.start)..in_text(range.end))
            })?;
        }
        Ok(())
    }

    /// Splits `text` at its added tokens: first at those that are not normalized, then the text
    /// between at those that are.
    fn split_added<E>(
        &self,
        text: &str,
        special: SpecialTokens,
        mut part: impl FnMut(Part) -> Result<(), E>,
    ) -> Result<(), E> {
        let plain = special == SpecialTokens::Plain;
        let first = AddedFinder::new(*self, false);
        let second = AddedFinder::new(*self, true);
        first.split(text, plain, |id, place| {
            if id.is_some() {
                return part((id, place));
            }
            second.split(&text[place.clone()], plain, |id, inner| {
                part((id, place.start + inner.start..place.start + inner.end))
            })
        })
    }

    /// Hands the text of `ids` to `sink` in pieces, invalid UTF-8 replaced by U+FFFD. Ids that do
    /// not exist give nothing. For ids that come one by one, keep a [`Utf8Stream`] and push
    /// [`token_bytes`](Self::token_bytes).
    pub fn decode(&self, ids: &[u32], mut sink: impl FnMut(&str)) {
        let mut stream = Utf8Stream::new();
        for &id in ids {
            stream.push(self.token_bytes(id).unwrap_or_default(), &mut sink);
        }
        stream.finish(sink);
    }
}

#[cfg(feature = "alloc")]
mod owned {
    use super::*;
    use alloc::string::String;
    use alloc::vec;
    use alloc::vec::Vec;

    impl TokenizerView<'_> {
        /// Encodes `text`.
        ///
        /// # Panics
        ///
        /// If memory runs out, or a word is 4 GiB long.
        pub fn encode_to_vec(&self, text: &str) -> Vec<u32> {
            self.collect(text, |id, _| id)
        }

        /// Encodes `text`; every id comes with the range of bytes of `text` that it stands for, as
        /// [`encode_with`](Self::encode_with) gives it.
        ///
        /// # Panics
        ///
        /// If memory runs out, or a word is 4 GiB long.
        pub fn encode_with_spans(&self, text: &str) -> Vec<(u32, Range<usize>)> {
            self.collect(text, |id, span| (id, span))
        }

        fn collect<T>(&self, text: &str, item: impl Fn(u32, Range<usize>) -> T) -> Vec<T> {
            let mut scratch = vec![0; self.scratch_len(text)];
            let mut items = Vec::new();
            let encoded = self.encode_with(text, SpecialTokens::Parse, &mut scratch, |id, span| {
                items.push(item(id, span));
                Ok::<(), CapacityError>(())
            });
            assert!(encoded.is_ok(), "the scratch has the length asked for");
            items
        }

        /// The text of `ids`, as [`decode`](Self::decode) gives it.
        pub fn decode_to_string(&self, ids: &[u32]) -> String {
            let mut text = String::new();
            self.decode(ids, |piece| text.push_str(piece));
            text
        }
    }
}
