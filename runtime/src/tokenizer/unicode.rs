//! Character classes of the pre-tokenizer, from one table pinned to one version of Unicode.
//!
//! Ids must not change when a dependency learns a newer Unicode, so the table is part of this
//! crate. A test compares it with the classes of the reference's regex engine.

#[path = "unicode_table.rs"]
mod table;

/// The classes that GPT-2's pattern tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Neither of the others.
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`, which is White_Space.
    Space,
}

const CLASS_MASK: u32 = 0b11;
const WORD: u32 = 0b100;

/// Class of `c`.
#[inline]
pub(super) fn class(c: char) -> Class {
    // Most text is ASCII, or starts words with it.
    match c {
        'a'..='z' | 'A'..='Z' => return Class::Letter,
        '0'..='9' => return Class::Number,
        ' ' | '\t'..='\r' => return Class::Space,
        '\0'..='\x7f' => return Class::Other,
        _ => {}
    }
    match lookup(c) & CLASS_MASK {
        1 => Class::Letter,
        2 => Class::Number,
        3 => Class::Space,
        _ => Class::Other,
    }
}

/// `\w`: letters, marks, decimal numbers, connector punctuation and joiners.
pub(super) fn is_word(c: char) -> bool {
    lookup(c) & WORD != 0
}

/// Bits of the range that `c` is in: a range is `first << 3 | bits` and ends before the next one.
fn lookup(c: char) -> u32 {
    let ranges = &table::RANGES;
    let after = ranges.partition_point(|&range| range >> 3 <= u32::from(c));
    // The first range starts at zero.
    ranges[after.saturating_sub(1)]
}
