//! Texts through a tokenizer section, whatever is in it.

use pocketgpt_runtime::tokenizer::{AddedFlags, SpecialTokens, TokenizerView};

use crate::file::random_tokenizer;
use crate::numbers::Numbers;

/// Encodes and decodes; with a section that `verify` accepts the bytes must come back.
pub fn exercise(tokenizer: &TokenizerView<'_>, text: &str, correct: bool) {
    let spans = tokenizer.encode_with_spans(text);
    let ids: Vec<u32> = spans.iter().map(|(id, _)| *id).collect();
    let n = tokenizer.vocab_size();
    assert!(ids.iter().all(|&id| id < n), "an id outside the vocabulary");
    // Added tokens may take white space along: then it belongs to two of them.
    let strips = |flags: AddedFlags| {
        flags.contains(AddedFlags::LSTRIP) || flags.contains(AddedFlags::RSTRIP)
    };
    let strips = tokenizer.added_tokens().any(|token| strips(token.flags));
    let in_order = spans.windows(2).all(|pair| pair[0].1.end <= pair[1].1.start);
    assert!(strips || in_order, "spans overlap");
    let decoded = tokenizer.decode_to_string(&ids);
    // A space may be put before the text.
    let exact = correct && !strips && !tokenizer.add_prefix_space();
    assert!(!exact || decoded == text, "{decoded:?} {text:?}");
    let mut scratch = vec![0; tokenizer.scratch_len(text)];
    let plain = tokenizer.encode_with(text, SpecialTokens::Plain, &mut scratch, |_, _| {
        Ok::<(), pocketgpt_runtime::tokenizer::CapacityError>(())
    });
    assert!(plain.is_ok());
    let too_small = tokenizer.encode(text, &mut scratch, &mut []);
    assert!(too_small.is_err() || ids.is_empty());
    for id in [0, n - 1, n, u32::MAX] {
        let _ = (tokenizer.token_bytes(id), tokenizer.is_special(id));
    }
    // Ids that nobody encoded: pieces of characters.
    let ids: Vec<u32> = text.bytes().map(|byte| u32::from(byte) * 7 % n.max(1)).collect();
    let _ = tokenizer.decode_to_string(&ids);
    let _ = (tokenizer.added_tokens().count(), tokenizer.special_id("<|endoftext|>"));
}

/// Input: the length of the text (two bytes), the text, the section.
pub fn run(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk::<2>() else { return };
    let (text, section) = rest.split_at(rest.len().min(u16::from_le_bytes(*len).into()));
    let text = String::from_utf8_lossy(text);
    if let Ok(tokenizer) = TokenizerView::new(section) {
        let correct = tokenizer.verify().is_ok();
        exercise(&tokenizer, &text, correct);
        for token in tokenizer.added_tokens().take(8) {
            assert!(token.id < tokenizer.vocab_size() || !correct);
        }
    }
}

/// Joins an input of [`run`].
pub fn input(text: &str, section: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes(), text.as_bytes(), section].concat()
}

/// One mutation: of the text, of the tables, or a tokenizer of another shape; the header's last
/// length is made to fit again.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    fuzz: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = Numbers::new(seed.into());
    let mut bytes = data[..size].to_vec();
    if bytes.len() < 2 {
        bytes.resize(2, 0);
    }
    let mut section = bytes
        .split_off((2 + usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))).min(bytes.len()));
    let mut text = bytes.split_off(2);
    let libfuzzer = |bytes: &mut Vec<u8>, most: usize| {
        let len = bytes.len();
        bytes.resize(most.max(len), 0);
        let len = fuzz(bytes, len, most.max(len));
        bytes.truncate(len);
    };
    match random.below(8) {
        0..=2 => libfuzzer(&mut text, 300),
        3 => {
            // White space, classes and edges that the pre-tokenizer knows, in any order.
            const PARTS: [&str; 16] = [
                " ",
                "\n",
                "'s",
                "'",
                "it",
                "1",
                "\u{a0}",
                "ß",
                "日本",
                "\u{301}",
                "👍🏽",
                "<|endoftext|>",
                "<|end",
                "_",
                "!?",
                "\u{2003}",
            ];
            for _ in 0..=random.below(6) {
                let at = random.below(text.len() + 1);
                let part = random.pick(&PARTS).bytes();
                text.splice(at..at, part);
            }
            text.truncate(4000);
        }
        4 => libfuzzer(&mut section, max_size / 2),
        5 | 6 => {
            for _ in 0..=random.below(4) {
                if section.len() >= 4 {
                    // Offsets and merges in the middle matter as much as the header.
                    let at = if random.below(3) == 0 {
                        4 * random.below(6)
                    } else {
                        random.below(section.len() - 3)
                    };
                    let word = random.word() >> random.pick(&[0, 0, 16, 24]);
                    if at + 4 <= section.len() {
                        section[at..at + 4].copy_from_slice(&word.to_le_bytes());
                    }
                }
            }
        }
        _ => section = random_tokenizer(&mut random),
    }
    if section.len() >= 64 && random.below(8) != 0 {
        let word = |at: usize| {
            u64::from(u32::from_le_bytes([
                section[at],
                section[at + 1],
                section[at + 2],
                section[at + 3],
            ]))
        };
        let tables = 64 + 1024 + 8 * (word(8) + 1) + 8 * word(12) + 8 * word(16);
        if let Some(blob) = (section.len() as u64).checked_sub(tables) {
            section[20..24].copy_from_slice(&(blob as u32).to_le_bytes());
        }
    }
    let joined = [&(text.len() as u16).to_le_bytes()[..], &text, &section].concat();
    let len = joined.len().min(max_size);
    data[..len].copy_from_slice(&joined[..len]);
    len
}
