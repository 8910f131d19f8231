//! Sections that break one rule each, hostile sections, and the owned conveniences.

use super::*;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// The 256 bytes under their own ids, a few merges, and two added tokens.
pub(super) fn small_builder() -> TokenizerBuilder {
    let mut builder = TokenizerBuilder::new();
    for byte in 0..=255 {
        let token = alphabet::byte_to_char(byte).to_string();
        builder.token(&token, byte.into());
    }
    let merges =
        [("a", "a"), ("aa", "aa"), ("Ġ", "a"), ("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o")];
    for (id, (left, right)) in (256..).zip(merges) {
        let merged = [left, right].concat();
        builder.token(&merged, id).merge(left, right);
    }
    builder.added_token("<|endoftext|>", 263, AddedFlags::SPECIAL);
    builder.added_token("<pad>", 264, AddedFlags::SPECIAL);
    builder
}

fn small() -> Vec<u8> {
    small_builder().build().unwrap()
}

const N_TOKENS: usize = 265;
const BYTE_IDS: usize = 64;
const TOKEN_OFFSETS: usize = BYTE_IDS + 1024;
const MERGE_INDEX: usize = TOKEN_OFFSETS + 4 * (N_TOKENS + 1);
const MERGES: usize = MERGE_INDEX + 4 * (N_TOKENS + 1);
const ADDED: usize = MERGES + 8 * 7;
const BLOB: usize = ADDED + 8 * 2;

fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut section = small();
    section[at..at + bytes.len()].copy_from_slice(bytes);
    section
}

fn refused_at_open(section: &[u8]) -> TokenizerError {
    TokenizerView::new(section).unwrap_err()
}

fn refused(section: &[u8]) -> TokenizerError {
    TokenizerView::new(section).unwrap().verify().unwrap_err()
}

#[test]
fn accepts_what_the_builder_makes() {
    let section = small();
    let view = TokenizerView::new(&section).unwrap();
    view.verify().unwrap();
    assert_eq!(view.vocab_size() as usize, N_TOKENS);
    assert_eq!(section.len(), BLOB + view_blob_len(&view));
}

fn view_blob_len(view: &TokenizerView<'_>) -> usize {
    (0..view.vocab_size()).map(|id| view.token_bytes(id).unwrap().len()).sum()
}

#[test]
fn rejects_truncated() {
    let section = small();
    assert_eq!(refused_at_open(&[]), TokenizerError::Truncated { len: 0 });
    assert_eq!(refused_at_open(&section[..63]), TokenizerError::Truncated { len: 63 });
}

#[test]
fn rejects_version() {
    assert_eq!(refused_at_open(&with(0, &[2])), TokenizerError::Version(2));
}

#[test]
fn rejects_kind() {
    assert_eq!(refused_at_open(&with(2, &[2])), TokenizerError::Kind(2));
}

#[test]
fn rejects_flags() {
    assert_eq!(refused_at_open(&with(4, &[2])), TokenizerError::Flags(2));
}

#[test]
fn rejects_reserved() {
    assert_eq!(refused_at_open(&with(24, &[1])), TokenizerError::Reserved);
    assert_eq!(refused_at_open(&with(63, &[1])), TokenizerError::Reserved);
}

#[test]
fn rejects_token_count() {
    for count in [0, MAX_TOKENS + 1, u32::MAX] {
        let section = with(8, &count.to_le_bytes());
        assert_eq!(refused_at_open(&section), TokenizerError::TokenCount(count));
    }
}

#[test]
fn rejects_merge_count() {
    for count in [MAX_MERGES + 1, u32::MAX] {
        let section = with(12, &count.to_le_bytes());
        assert_eq!(refused_at_open(&section), TokenizerError::MergeCount(count));
    }
}

#[test]
fn rejects_added_count() {
    let count = N_TOKENS as u32 + 1;
    let section = with(16, &count.to_le_bytes());
    assert_eq!(refused_at_open(&section), TokenizerError::AddedCount(count));
}

#[test]
fn rejects_length() {
    let mut section = small();
    let expected = section.len() as u64;
    section.push(0);
    let found = section.len();
    assert_eq!(refused_at_open(&section), TokenizerError::Length { expected, found });
    section.truncate(found - 2);
    let found = section.len();
    assert_eq!(refused_at_open(&section), TokenizerError::Length { expected, found });
    for field in [8, 12, 16, 20] {
        let mut section = small();
        section[field] -= 1;
        let error = refused_at_open(&section);
        assert!(matches!(error, TokenizerError::Length { .. }), "{field}");
    }
}

#[test]
fn rejects_byte_id() {
    let at = BYTE_IDS + 4 * 0x41;
    for id in [0x42, 256, u32::MAX] {
        assert_eq!(refused(&with(at, &id.to_le_bytes())), TokenizerError::ByteId(0x41));
    }
}

#[test]
fn rejects_token_offset() {
    let first = with(TOKEN_OFFSETS, &[1]);
    assert_eq!(refused(&first), TokenizerError::TokenOffset(0));
    let falling = with(TOKEN_OFFSETS + 4 * 7, &[0]);
    assert_eq!(refused(&falling), TokenizerError::TokenOffset(6));
    let beyond = with(TOKEN_OFFSETS + 4 * 7, &u32::MAX.to_le_bytes());
    assert_eq!(refused(&beyond), TokenizerError::TokenOffset(6));
    let mut short = small();
    short[TOKEN_OFFSETS + 4 * N_TOKENS] -= 1;
    assert_eq!(refused(&short), TokenizerError::TokenOffset(264));
}

#[test]
fn rejects_merge_index() {
    let first = with(MERGE_INDEX, &[1]);
    assert_eq!(refused(&first), TokenizerError::MergeIndex(0));
    let beyond = with(MERGE_INDEX + 4 * 7, &[8]);
    assert_eq!(refused(&beyond), TokenizerError::MergeIndex(6));
    let short = with(MERGE_INDEX + 4 * N_TOKENS, &[6]);
    assert_eq!(refused(&short), TokenizerError::MergeIndex(264));
}

#[test]
fn rejects_merge_range() {
    let n = N_TOKENS as u64;
    // Right id, rank, merged id, top bit.
    for bits in [n << 42, 7 << 21, n, 1 << 63] {
        let section = with(MERGES, &u64::to_le_bytes(bits));
        assert_eq!(refused(&section), TokenizerError::MergeRange(0));
    }
}

#[test]
fn rejects_merge_order() {
    let mut builder = small_builder();
    builder.token("ab", 265).merge("a", "b");
    let mut section = builder.build().unwrap();
    // One token more makes the tables before the merges longer by 8 bytes; the merges of `a`
    // follow that of the space.
    let at = MERGES + 8 + 8;
    let (first, second) = (at..at + 8, at + 8..at + 16);
    let swapped = [&section[second], &section[first]].concat();
    section[at..at + 16].copy_from_slice(&swapped);
    assert_eq!(refused(&section), TokenizerError::MergeOrder(2));
    section.copy_within(at..at + 8, at + 8);
    assert_eq!(refused(&section), TokenizerError::MergeOrder(2));
}

#[test]
fn rejects_merge_bytes() {
    // The first merge is ` a`; its last letter changes.
    let section = small();
    let view = TokenizerView::new(&section).unwrap();
    let before: usize = (0..258).map(|id| view.token_bytes(id).unwrap().len()).sum();
    assert_eq!(refused(&with(BLOB + before + 1, b"b")), TokenizerError::MergeBytes(0));
}

#[test]
fn rejects_added_id() {
    let section = with(ADDED + 8, &(N_TOKENS as u32).to_le_bytes());
    assert_eq!(refused(&section), TokenizerError::AddedId(1));
}

#[test]
fn rejects_added_flags() {
    assert_eq!(refused(&with(ADDED + 4, &[1 << 5])), TokenizerError::AddedFlags(0));
}

#[test]
fn rejects_added_content() {
    // A byte that is not UTF-8.
    assert_eq!(refused(&with(ADDED, &[0x80, 0])), TokenizerError::AddedContent(0));
    // No bytes, too many bytes.
    let mut builder = small_builder();
    builder.token(&"x".repeat(MAX_ADDED_LEN + 1), 266);
    let section = builder.build().unwrap();
    for id in [265u32, 266] {
        let mut section = section.clone();
        // Two ids more make the tables before `added` longer by 16 bytes.
        section[ADDED + 16..][..4].copy_from_slice(&id.to_le_bytes());
        assert_eq!(refused(&section), TokenizerError::AddedContent(0));
    }
}

#[test]
fn rejects_added_order() {
    // The same token twice, then both in the wrong order.
    let section = with(ADDED, &263u32.to_le_bytes());
    assert_eq!(refused(&section), TokenizerError::AddedOrder(1));
    let mut section = small();
    let swapped = [&section[ADDED + 8..ADDED + 16], &section[ADDED..ADDED + 8]].concat();
    section[ADDED..ADDED + 16].copy_from_slice(&swapped);
    assert_eq!(refused(&section), TokenizerError::AddedOrder(1));
}

#[test]
fn special_tokens_are_known() {
    let section = small();
    let view = TokenizerView::new(&section).unwrap();
    assert_eq!(view.special_id("<|endoftext|>"), Some(263));
    assert_eq!(view.special_id("<pad>"), Some(264));
    assert_eq!(view.special_id("hello"), None);
    assert!(view.is_special(264) && !view.is_special(262) && !view.is_special(999));
    let contents: Vec<_> = view.special_tokens().map(|token| token.content).collect();
    assert_eq!(contents, [&b"<pad>"[..], b"<|endoftext|>"]);
    assert_eq!(view.token_bytes(263), Some(&b"<|endoftext|>"[..]));
}

#[test]
fn special_tokens_are_text_on_request() {
    let section = small();
    let view = TokenizerView::new(&section).unwrap();
    let text = "a<pad>";
    let mut ids = Vec::new();
    let mut scratch = vec![0; view.scratch_len(text)];
    view.encode_with(text, SpecialTokens::Plain, &mut scratch, |id, _| {
        ids.push(id);
        Ok::<(), CapacityError>(())
    })
    .unwrap();
    assert_eq!(ids, b"a<pad>".map(u32::from));
    assert_eq!(view.encode_to_vec(text), [97, 264]);
}

#[test]
fn spans_cover_the_text() {
    let section = small_builder().add_prefix_space(true).build().unwrap();
    let view = TokenizerView::new(&section).unwrap();
    assert_eq!(
        view.encode_with_spans("aé<pad>\na"),
        [(258, 0..1), (0xc3, 1..2), (0xa9, 2..3), (264, 3..8), (32, 8..8), (10, 8..9), (97, 9..10),]
    );
}

#[test]
fn too_little_memory_is_an_error_that_tells_how_much() {
    let section = small();
    let view = TokenizerView::new(&section).unwrap();
    let text = "hello aaaa";
    let needed = view.scratch_len(text);
    assert!(needed <= required_scratch(5));
    let mut scratch = vec![u32::MAX; needed];
    let mut out = [0; 2];
    let error = CapacityError::Output { needed: 3, given: 2 };
    assert_eq!(view.encode(text, &mut scratch, &mut out), Err(error));
    let given = needed - 1;
    let error = CapacityError::Scratch { needed, given };
    assert_eq!(view.encode(text, &mut scratch[..given], &mut [0; 9]), Err(error));
    let mut out = [0; 3];
    assert_eq!(view.encode(text, &mut scratch, &mut out), Ok(3));
    assert_eq!(out, [262, 32, 257]);
    assert_eq!(view.encode("", &mut [], &mut []), Ok(0));
}

#[test]
fn decodes_across_characters() {
    let section = small();
    let view = TokenizerView::new(&section).unwrap();
    assert_eq!(view.decode_to_string(&[262, 0xc3, 0xa9, 32, 0xc3]), "helloé \u{FFFD}");
}

/// A word of a megabyte takes what many short ones take, give or take the logarithm. A quadratic
/// encoder would need minutes.
#[test]
fn one_long_word_is_not_quadratic() {
    let section = small();
    let view = TokenizerView::new(&section).unwrap();
    for text in ["a".repeat(1 << 20), "aaab".repeat(1 << 18), " ".repeat(1 << 20)] {
        let start = Instant::now();
        let ids = view.encode_to_vec(&text);
        assert_eq!(view.decode_to_string(&ids), text);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

/// Tokens that take white space along and are white space do not walk through it again and again.
#[test]
fn stripping_is_not_quadratic() {
    let strip = AddedFlags::LSTRIP.with(AddedFlags::RSTRIP);
    let section = small_builder().added_token("\n", 265, strip).build();
    let section = section.unwrap();
    let view = TokenizerView::new(&section).unwrap();
    let text = "\n".repeat(1 << 20);
    let start = Instant::now();
    assert_eq!(view.encode_to_vec(&text).len(), text.len());
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// Calls everything, and checks what holds for any bytes.
fn exercise(section: &[u8], text: &str) {
    let Ok(view) = TokenizerView::new(section) else {
        return;
    };
    let _ = view.verify();
    let mut scratch = vec![0; required_scratch(text.len())];
    for special in [SpecialTokens::Parse, SpecialTokens::Plain] {
        let mut ids = Vec::new();
        let mut check = |id, span: Range<usize>| {
            assert!(id < view.vocab_size());
            assert!(span.start <= span.end && span.end <= text.len());
            ids.push(id);
            Ok::<(), CapacityError>(())
        };
        view.encode_with(text, special, &mut scratch, &mut check).unwrap();
        let _ = view.decode_to_string(&ids);
    }
    assert!(view.scratch_len(text) <= scratch.len());
    for token in view.special_tokens() {
        let _ = view.is_special(token.id);
    }
    let _ = (view.token_bytes(u32::MAX), view.special_id("<pad>"));
}

fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => "[ahelo \n]{0,6}",
        1 => "\\PC{0,3}",
        1 => Just("<|endoftext|>".to_string()),
        1 => Just("<pad>".to_string()),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn hostile_sections_do_no_harm(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        // Most of a section is tables; merges, added tokens and blob deserve more than their share.
        tail in any::<bool>(),
        text in texts(),
    ) {
        let mut section = small_builder()
            .added_token("\n", 265, AddedFlags::LSTRIP.with(AddedFlags::RSTRIP))
            .added_token("o", 111, AddedFlags::NORMALIZED.with(AddedFlags::SINGLE_WORD))
            .build()
            .unwrap();
        for (index, byte) in flips {
            // The header stays: most changes there are refused at once.
            let from = if tail { MERGES } else { BYTE_IDS };
            let at = from + index.index(section.len() - from);
            section[at] = byte;
        }
        exercise(&section, &text);
    }

    #[test]
    fn any_bytes_do_no_harm(
        header in any::<[u8; 64]>(),
        rest in prop::collection::vec(any::<u8>(), 0..3000),
        text in texts(),
    ) {
        let mut section = header.to_vec();
        section.extend(&rest);
        exercise(&section, &text);
        // The same with a header that fits, so that the tables are random.
        if let Some(blob_len) = section.len().checked_sub(64 + 1024 + 8 * 11 + 8 * 20 + 8 * 3) {
            section[..64].fill(0);
            section[0] = 1;
            section[2] = 1;
            section[8] = 10;
            section[12] = 20;
            section[16] = 3;
            section[20..24].copy_from_slice(&(blob_len as u32).to_le_bytes());
            prop_assert!(TokenizerView::new(&section).is_ok());
            exercise(&section, &text);
        }
    }

    #[test]
    fn text_comes_back(text in texts()) {
        let section = small();
        let view = TokenizerView::new(&section).unwrap();
        let spans = view.encode_with_spans(&text);
        let mut at = 0;
        for (id, span) in &spans {
            prop_assert_eq!(span.start, at);
            prop_assert_eq!(view.token_bytes(*id), Some(&text.as_bytes()[span.clone()]));
            at = span.end;
        }
        prop_assert_eq!(at, text.len());
        let ids: Vec<_> = spans.iter().map(|(id, _)| *id).collect();
        prop_assert_eq!(view.decode_to_string(&ids), text);
    }
}
