//! GPT-2's pre-tokenizer as a scanner. It splits a text into words exactly as
//!
//! ```text
//! 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
//!
//! does: every character is in one word, and no character is looked at more than twice.

use super::unicode::{Class, class};

/// A word of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'t> {
    /// Where it starts in the text.
    pub start: usize,
    /// Its bytes, without the space that `prefixed` tells of.
    pub text: &'t str,
    /// Whether a space that is not in the text comes before it.
    pub prefixed: bool,
}

impl Word<'_> {
    /// Number of bytes, with the space before it.
    pub fn len(&self) -> usize {
        self.text.len() + usize::from(self.prefixed)
    }
}

/// Iterator over the words of a text.
pub(super) struct Words<'t> {
    text: &'t str,
    at: usize,
    prefixed: bool,
}

impl<'t> Words<'t> {
    /// With `add_prefix_space`, a text that does not start with a space is split as if it did.
    pub fn new(text: &'t str, add_prefix_space: bool) -> Self {
        Self {
            text,
            at: 0,
            prefixed: add_prefix_space && !text.is_empty() && !text.starts_with(' '),
        }
    }
}

impl<'t> Iterator for Words<'t> {
    type Item = Word<'t>;

    fn next(&mut self) -> Option<Word<'t>> {
        let rest = &self.text[self.at..];
        let prefixed = core::mem::take(&mut self.prefixed);
        if rest.is_empty() && !prefixed {
            return None;
        }
        let len = if prefixed {
            after_space(rest, 1)
        } else {
            contraction(rest).unwrap_or_else(|| word_len(rest))
        };
        let start = self.at;
        self.at += len;
        Some(Word { start, text: &rest[..len], prefixed })
    }
}

/// Length of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` at the start of `text`.
fn contraction(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [b'\'', b's' | b't' | b'm' | b'd', ..] => Some(2),
        [b'\'', b'r' | b'v', b'e', ..] | [b'\'', b'l', b'l', ..] => Some(3),
        _ => None,
    }
}

/// Length of the first word of a text that is not empty, contractions aside.
fn word_len(text: &str) -> usize {
    match text.strip_prefix(' ') {
        Some(rest) => 1 + after_space(rest, 1),
        None => after_space(text, 0),
    }
}

/// Length of what follows `spaces` (0 or 1) spaces in the same word, those not counted.
fn after_space(rest: &str, spaces: usize) -> usize {
    let Some(first) = rest.chars().next() else {
        return 0;
    };
    match class(first) {
        Class::Space => white_space(rest, spaces),
        wanted => run(rest, wanted),
    }
}

/// Length of the characters of class `wanted` at the start of `text`.
fn run(text: &str, wanted: Class) -> usize {
    text.char_indices().find(|&(_, c)| class(c) != wanted).map_or(text.len(), |(at, _)| at)
}

/// White space up to the end of the text is one word. Before a word, the last character of it is
/// left over (a space then starts that word), unless it is the only one.
fn white_space(text: &str, spaces: usize) -> usize {
    let len = run(text, Class::Space);
    if len == text.len() {
        return len;
    }
    let last = text[..len].chars().next_back().map_or(0, char::len_utf8);
    if spaces == 0 && last == len { len } else { len - last }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn words(text: &str) -> Vec<&str> {
        Words::new(text, false).map(|word| word.text).collect()
    }

    fn prefixed(text: &str) -> Vec<(bool, &str)> {
        Words::new(text, true).map(|word| (word.prefixed, word.text)).collect()
    }

    #[test]
    fn splits_like_the_pattern() {
        assert_eq!(words(""), [""; 0]);
        assert_eq!(words("Hello  world!"), ["Hello", " ", " world", "!"]);
        assert_eq!(words("I'm 'sad' ''s"), ["I", "'m", " '", "sad", "'", " ''", "s"]);
        assert_eq!(words("a \n b\n\nc "), ["a", " \n", " b", "\n", "\n", "c", " "]);
        assert_eq!(words("x\u{a0}\u{3000}y"), ["x", "\u{a0}", "\u{3000}", "y"]);
        assert_eq!(words("12ab٣Ⅷ"), ["12", "ab", "٣Ⅷ"]);
        assert_eq!(words("'llama 'LL"), ["'ll", "ama", " '", "LL"]);
    }

    #[test]
    fn space_before_the_text_belongs_to_the_first_word() {
        assert_eq!(prefixed(""), []);
        assert_eq!(prefixed(" a"), [(false, " a")]);
        assert_eq!(prefixed("a b"), [(true, "a"), (false, " b")]);
        assert_eq!(prefixed("'s"), [(true, "'"), (false, "s")]);
        assert_eq!(prefixed("\nx"), [(true, ""), (false, "\n"), (false, "x")]);
        assert_eq!(prefixed("\n\t"), [(true, "\n\t")]);
    }
}
