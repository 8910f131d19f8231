//! Tokens to text, as they come: whole characters only, up to a stop text.

use pocketgpt_runtime::tokenizer::{TokenizerView, Utf8Stream};

use crate::stop::StopFinder;

/// Turns tokens into text.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: TokenizerView<'a>,
    characters: Utf8Stream,
    stop: StopFinder<'a>,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    /// A text that ends before the first of these.
    pub fn new(tokenizer: TokenizerView<'a>, stops: &'a [String]) -> Self {
        let stop = StopFinder::new(stops);
        Self { tokenizer, characters: Utf8Stream::new(), stop, stopped: false }
    }

    /// Goes on behind these tokens: gives their text, but for the beginning of a character that
    /// what follows may complete.
    pub fn begin_behind(&mut self, tokens: &[u32]) -> String {
        let mut text = String::new();
        for &token in tokens {
            let bytes = self.tokenizer.token_bytes(token).unwrap_or_default();
            self.characters.push(bytes, |piece| text.push_str(piece));
        }
        text
    }

    /// Adds a token and gives the text that is now certain.
    pub fn push(&mut self, token: u32) -> String {
        let bytes = self.tokenizer.token_bytes(token).unwrap_or_default();
        let Self { characters, stop, stopped, .. } = self;
        let mut text = String::new();
        characters.push(bytes, |piece| {
            *stopped = *stopped || stop.push(piece, |s| text.push_str(s));
        });
        text
    }

    /// Whether a stop text was found: nothing comes any more.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Ends the text and gives what was held back.
    pub fn finish(&mut self) -> String {
        let Self { characters, stop, stopped, .. } = self;
        let mut text = String::new();
        if *stopped {
            return text;
        }
        characters.finish(|piece| *stopped = stop.push(piece, |s| text.push_str(s)));
        if !*stopped {
            stop.finish(|s| text.push_str(s));
        }
        text
    }
}
