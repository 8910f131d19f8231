//! Added tokens: those that are found in a text before it is split into words.

use super::TokenizerView;
use super::section::MAX_ADDED_LEN;
use super::unicode;
use core::ops::Range;

/// How an added token is matched; the names are those of `tokenizer.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddedFlags(u32);

impl AddedFlags {
    /// A control token such as `<|endoftext|>`: left out of decoded text on request, and not
    /// looked for in text that comes from outside.
    pub const SPECIAL: Self = Self(1);
    /// Not matched next to a word character.
    pub const SINGLE_WORD: Self = Self(1 << 1);
    /// Takes the white space before it along.
    pub const LSTRIP: Self = Self(1 << 2);
    /// Takes the white space after it along.
    pub const RSTRIP: Self = Self(1 << 3);
    /// Looked for only after all tokens that are not normalized have been found.
    pub const NORMALIZED: Self = Self(1 << 4);

    const ALL: u32 = (1 << 5) - 1;

    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    #[cfg(feature = "alloc")]
    pub(super) const fn to_bits(self) -> u32 {
        self.0
    }

    pub(super) const fn is_known(self) -> bool {
        self.0 & !Self::ALL == 0
    }

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A token that is found in a text as it stands, before the text is split into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedToken<'a> {
    /// Its id.
    pub id: u32,
    /// The text that it stands for, as UTF-8.
    pub content: &'a [u8],
    /// How it is matched.
    pub flags: AddedFlags,
}

impl<'a> TokenizerView<'a> {
    /// All added tokens, in ascending order of their contents.
    pub fn added_tokens(&self) -> impl Iterator<Item = AddedToken<'a>> + use<'a> {
        let view = *self;
        (0..view.added_count()).filter_map(move |index| view.added_token(index))
    }

    /// The added tokens that are special, in ascending order of their contents.
    pub fn special_tokens(&self) -> impl Iterator<Item = AddedToken<'a>> + use<'a> {
        self.added_tokens().filter(|token| token.flags.contains(AddedFlags::SPECIAL))
    }

    /// Whether `id` is that of a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.special_tokens().any(|token| token.id == id)
    }

    /// The id of the special token with this content.
    pub fn special_id(&self, content: &str) -> Option<u32> {
        self.special_tokens()
            .find(|token| token.content == content.as_bytes())
            .map(|token| token.id)
    }

    fn added_token(&self, index: usize) -> Option<AddedToken<'a>> {
        let (id, flags) = self.added(index)?;
        let content = self.token_bytes(id)?;
        Some(AddedToken { id, content, flags })
    }
}

/// Finds the added tokens of one pass: those that are normalized, or those that are not.
pub(super) struct AddedFinder<'a> {
    view: TokenizerView<'a>,
    normalized: bool,
    /// Bit set of the bytes with which a content of this pass starts.
    first_bytes: [u64; 4],
}

impl<'a> AddedFinder<'a> {
    pub fn new(view: TokenizerView<'a>, normalized: bool) -> Self {
        let mut finder = Self { view, normalized, first_bytes: [0; 4] };
        for token in view.added_tokens() {
            if let (true, Some(&byte)) = (finder.is_mine(&token), token.content.first()) {
                finder.first_bytes[usize::from(byte / 64)] |= 1 << (byte % 64);
            }
        }
        finder
    }

    fn is_mine(&self, token: &AddedToken<'_>) -> bool {
        token.flags.contains(AddedFlags::NORMALIZED) == self.normalized
    }

    /// The first match at or after `from` with its place, the longest one if there are several.
    fn find(&self, text: &str, from: usize) -> Option<(AddedToken<'a>, Range<usize>)> {
        if self.first_bytes == [0; 4] {
            return None;
        }
        let bytes = text.as_bytes();
        for (start, &byte) in bytes.iter().enumerate().skip(from) {
            if self.first_bytes[usize::from(byte / 64)] & 1 << (byte % 64) == 0 {
                continue;
            }
            if let Some(token) = self.longest_at(&bytes[start..]) {
                let end = start + token.content.len();
                // True for every content that is UTF-8; what is not would cut characters.
                if text.is_char_boundary(start) && text.is_char_boundary(end) {
                    return Some((token, start..end));
                }
            }
        }
        None
    }

    /// The longest content with which `bytes` starts. Contents are sorted, so those that share
    /// their first bytes with `bytes` are neighbours, the shortest one first.
    fn longest_at(&self, bytes: &[u8]) -> Option<AddedToken<'a>> {
        let (mut low, mut high) = (0, self.view.added_count());
        let mut longest = None;
        for (depth, &byte) in bytes.iter().take(MAX_ADDED_LEN).enumerate() {
            low = self.partition_point(low, high, |content| {
                content.get(depth).is_none_or(|&other| other < byte)
            });
            high = self.partition_point(low, high, |content| {
                content.get(depth).is_some_and(|&other| other == byte)
            });
            if low == high {
                break;
            }
            if let Some(token) = self.view.added_token(low)
                && token.content.len() == depth + 1
                && self.is_mine(&token)
            {
                longest = Some(token);
            }
        }
        longest
    }

    fn partition_point(&self, low: usize, high: usize, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = low + (high - low) / 2;
            let content = self.view.added_token(middle).map(|token| token.content);
            if before(content.unwrap_or_default()) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Splits `text`: `part` gets every added token with its place, and the text between as
    /// `None`, never empty. With `skip_special`, special tokens are left in the text.
    ///
    /// A token that takes white space along can leave the place of the next one overlapping its
    /// own: the reference does so too.
    pub fn split<E>(
        &self,
        text: &str,
        skip_special: bool,
        mut part: impl FnMut(Option<u32>, Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut done, mut from) = (0, 0);
        // White space taken along last, so that tokens inside it do not walk through it again.
        let mut stripped = 0..0;
        while let Some((token, place)) = self.find(text, from) {
            from = place.end;
            let Range { mut start, mut end } = place;
            if skip_special && token.flags.contains(AddedFlags::SPECIAL) {
                continue;
            }
            if token.flags.contains(AddedFlags::SINGLE_WORD)
                && (text[..start].chars().next_back().is_some_and(unicode::is_word)
                    || text[end..].chars().next().is_some_and(unicode::is_word))
            {
                continue;
            }
            if token.flags.contains(AddedFlags::LSTRIP) {
                // Not beyond `done`, and never behind the token itself.
                let before = text.get(done..start).unwrap_or_default();
                start = (done + before.trim_end().len()).min(end);
            }
            if token.flags.contains(AddedFlags::RSTRIP) {
                if !stripped.contains(&end) {
                    stripped = end..text.len() - text[end..].trim_start().len();
                }
                end = stripped.end;
            }
            if done < start {
                part(None, done..start)?;
            }
            part(Some(token.id), start..end)?;
            done = end;
        }
        if done < text.len() {
            part(None, done..text.len())?;
        }
        Ok(())
    }
}
