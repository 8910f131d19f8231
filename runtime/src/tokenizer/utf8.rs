//! Text out of token bytes, as they come.

/// Turns a stream of bytes into text without allocation.
///
/// A token may end inside a character. The unfinished bytes (at most three) are held back until
/// the rest arrives or [`finish`](Self::finish) is called. Invalid bytes become U+FFFD exactly as
/// `String::from_utf8_lossy` would replace them in the whole stream, wherever it is cut.
#[derive(Debug, Clone, Default)]
pub struct Utf8Stream {
    /// Bytes `..held` are the start of a character that may still become valid.
    buffer: [u8; 4],
    held: usize,
}

const REPLACEMENT: &str = "\u{FFFD}";

impl Utf8Stream {
    /// An empty stream.
    pub const fn new() -> Self {
        Self { buffer: [0; 4], held: 0 }
    }

    /// Number of bytes held back (0 to 3).
    pub const fn held_len(&self) -> usize {
        self.held
    }

    /// Adds `bytes` and hands all text that is now complete to `sink`, in order, never an empty
    /// piece.
    pub fn push(&mut self, mut bytes: &[u8], mut sink: impl FnMut(&str)) {
        while self.held > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return;
            };
            self.buffer[self.held] = byte;
            match core::str::from_utf8(&self.buffer[..=self.held]) {
                Ok(character) => {
                    sink(character);
                    self.held = 0;
                    bytes = rest;
                }
                // Three good bytes and a fourth either complete the character or break it, so
                // `held` stays below four.
                Err(error) if error.error_len().is_none() => {
                    self.held += 1;
                    bytes = rest;
                }
                // The held bytes are one broken character; `byte` starts anew.
                Err(_) => {
                    sink(REPLACEMENT);
                    self.held = 0;
                }
            }
        }
        let mut remaining = bytes.len();
        for chunk in bytes.utf8_chunks() {
            if !chunk.valid().is_empty() {
                sink(chunk.valid());
            }
            let invalid = chunk.invalid();
            remaining -= chunk.valid().len() + invalid.len();
            if invalid.is_empty() {
                continue;
            }
            let unfinished =
                core::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            // A truncated character in the middle is already known to be broken.
            if unfinished && remaining == 0 {
                self.buffer[..invalid.len()].copy_from_slice(invalid);
                self.held = invalid.len();
            } else {
                sink(REPLACEMENT);
            }
        }
    }

    /// Ends the stream: bytes still held back become one U+FFFD. The stream is empty afterwards.
    pub fn finish(&mut self, mut sink: impl FnMut(&str)) {
        if self.held > 0 {
            self.held = 0;
            sink(REPLACEMENT);
        }
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn stream(pieces: &[&[u8]]) -> String {
        let mut text = String::new();
        let mut stream = Utf8Stream::new();
        for piece in pieces {
            stream.push(piece, |s| {
                assert!(!s.is_empty());
                text.push_str(s);
            });
            assert!(stream.held_len() <= 3);
        }
        stream.finish(|s| text.push_str(s));
        text
    }

    #[test]
    fn holds_back_an_unfinished_character() {
        let mut text = String::new();
        let mut stream = Utf8Stream::new();
        stream.push(b"a\xf0\x9f", |s| text.push_str(s));
        assert_eq!((text.as_str(), stream.held_len()), ("a", 2));
        stream.push(b"\x98", |s| text.push_str(s));
        assert_eq!((text.as_str(), stream.held_len()), ("a", 3));
        stream.push(b"\x80b", |s| text.push_str(s));
        assert_eq!((text.as_str(), stream.held_len()), ("a😀b", 0));
    }

    #[test]
    fn unfinished_end_is_one_replacement() {
        assert_eq!(stream(&[b"x\xf0\x9f", b"\x98"]), "x\u{FFFD}");
    }

    proptest! {
        #[test]
        fn equals_from_utf8_lossy(
            // Bytes of characters, cut and mixed, are likelier to be nearly valid.
            bytes in prop::collection::vec(
                prop_oneof![
                    any::<u8>(),
                    prop::sample::select(&b"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\xf4\x90\xe0\x80"[..]),
                ],
                0..40,
            ),
            cuts in prop::collection::vec(1usize..5, 40),
        ) {
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            prop_assert_eq!(stream(&pieces), String::from_utf8_lossy(&bytes));
        }
    }
}
