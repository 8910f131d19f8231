//! The text that a model is calibrated with, as windows of tokens.

use std::ops::Range;

/// Text between documents.
const SEPARATOR: &str = "<|endoftext|>";
/// Tokens that go through a layer together.
const CHUNK_TOKENS: usize = 2048;
/// One window in so many is not calibrated with, and tells how well the result does.
const HELD_OUT: usize = 16;

/// Windows of tokens, one behind the other.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    pub(crate) tokens: Vec<u32>,
    pub(crate) windows: Vec<Range<usize>>,
    /// Windows from this one on are held out.
    pub(crate) fitted: usize,
}

/// Some windows that follow each other.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) tokens: Range<usize>,
    pub(crate) lengths: Vec<usize>,
    pub(crate) fitted: bool,
}

impl Windows {
    /// Cuts a stream of tokens into windows of `length`, of which `most` tokens are used, from all
    /// parts of the stream; `None` if there are not two tokens.
    pub(crate) fn new(stream: &[u32], length: usize, most: usize) -> Option<Self> {
        let all: Vec<&[u32]> =
            stream.chunks(length).filter(|w| w.len() > 1 || length == 1).collect();
        let whole = all.iter().take_while(|w| w.len() == length).count();
        // A short window at the end counts only where there is no other.
        let all = &all[..whole.max(1).min(all.len())];
        let count = (most / length).clamp(1, all.len().max(1));
        let used: Vec<&[u32]> =
            (0..count).filter_map(|i| all.get(i * all.len() / count)).copied().collect();
        let held = used.len() / HELD_OUT;
        // Held out are windows from all parts as well.
        let is_held = |i: usize| held > 0 && i % HELD_OUT == HELD_OUT - 1;
        let order =
            (0..used.len()).filter(|i| !is_held(*i)).chain((0..used.len()).filter(|i| is_held(*i)));
        let (mut tokens, mut windows) = (Vec::new(), Vec::new());
        for i in order {
            windows.push(tokens.len()..tokens.len() + used[i].len());
            tokens.extend_from_slice(used[i]);
        }
        let held = (0..used.len()).filter(|i| is_held(*i)).count();
        (tokens.len() > 1).then(|| Self { fitted: windows.len() - held, tokens, windows })
    }

    /// The windows in chunks that fit memory.
    pub(crate) fn chunks(&self) -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> = Vec::new();
        for (i, window) in self.windows.iter().enumerate() {
            let fitted = i < self.fitted;
            match chunks.last_mut() {
                Some(chunk)
                    if chunk.fitted == fitted
                        && chunk.tokens.len() + window.len() <= CHUNK_TOKENS =>
                {
                    chunk.tokens.end = window.end;
                    chunk.lengths.push(window.len());
                }
                _ => chunks.push(Chunk {
                    tokens: window.clone(),
                    lengths: vec![window.len()],
                    fitted,
                }),
            }
        }
        chunks
    }
}

/// Tokens of a text: each document behind the token that ends texts, as `pocketgpt perplexity`
/// reads it.
pub(crate) fn stream(
    text: &str,
    separator: Option<u32>,
    encode: impl Fn(&str) -> Vec<u32>,
) -> Vec<u32> {
    let mut tokens = Vec::new();
    for document in text.split(SEPARATOR) {
        let document = document.trim_matches('\n');
        if !document.trim().is_empty() {
            tokens.extend(separator);
            tokens.extend(encode(document));
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_come_from_all_parts() {
        let stream: Vec<u32> = (0..1000).collect();
        let text = Windows::new(&stream, 10, 200).unwrap();
        assert_eq!((text.windows.len(), text.fitted), (20, 19));
        assert_eq!(text.tokens[..10], (0..10).collect::<Vec<_>>());
        assert!(text.tokens.iter().any(|t| *t >= 900));
        let chunks = text.chunks();
        assert_eq!((chunks.len(), chunks[0].tokens.clone()), (2, 0..190));
        assert_eq!(chunks[1].lengths, [10]);
    }

    #[test]
    fn a_short_text_is_one_window() {
        let text = Windows::new(&[1, 2, 3], 512, 1 << 16).unwrap();
        assert_eq!((text.tokens.len(), text.fitted), (3, 1));
        assert!(Windows::new(&[], 512, 1 << 16).is_none());
        assert!(Windows::new(&[1], 512, 1 << 16).is_none());
    }

    #[test]
    fn documents_stand_behind_the_separator() {
        let bytes = |text: &str| text.bytes().map(u32::from).collect();
        assert_eq!(stream("\na<|endoftext|>\n\n<|endoftext|>b\n", Some(9), bytes), [9, 97, 9, 98]);
    }
}
