//! Byte-level BPE as GPT-2 does it, used in place from a `.pgpt` file.
//!
//! [`TokenizerView`] reads a tokenizer section where it lies; opening it, encoding and decoding
//! need no allocation. Ids are those of Hugging Face's `tokenizers`: added tokens are found first,
//! the text between is split by GPT-2's pattern (character classes of Unicode 16.0), and the bytes
//! of each word are merged, lowest rank first, leftmost of equal ranks. The time is
//! `n log n` in the length of a word whatever the word is.
//!
//! [`Utf8Stream`] turns the bytes of tokens that come one by one into text.
//! `TokenizerBuilder` (feature `alloc`) makes sections.
//!
//! # Layout of a section
//!
//! Little-endian, without padding. Tables follow each other in this order and fill the section;
//! `n_tokens`, `n_merges`, `n_added` and `blob_len` are in the header.
//!
//! | Offset | Bytes | Content |
//! |---|---|---|
//! | 0 | 2 | version of the layout: 1 |
//! | 2 | 2 | kind of tokenizer: 1 = byte-level BPE with GPT-2's pattern |
//! | 4 | 4 | flags: bit 0 = a space is put before a text that does not start with one; others 0 |
//! | 8 | 4 | `n_tokens`: ids are `0..n_tokens`; 1 to 2²¹ |
//! | 12 | 4 | `n_merges`: 0 to 2²¹ |
//! | 16 | 4 | `n_added`: added tokens, at most `n_tokens` |
//! | 20 | 4 | `blob_len` |
//! | 24 | 40 | reserved: 0 |
//! | 64 | 256 × 4 | `byte_ids`: for each byte the id of the token that is this byte |
//! | … | (`n_tokens` + 1) × 4 | `token_offsets`: the bytes of token `i` are `blob[o[i]..o[i + 1]]`; from 0 to `blob_len`, never falling; empty for an id without token |
//! | … | (`n_tokens` + 1) × 4 | `merge_index`: the merges with left id `i` are `merges[m[i]..m[i + 1]]`; from 0 to `n_merges`, never falling |
//! | … | `n_merges` × 8 | `merges`: as one integer, bits 0–20 the merged id, bits 21–41 the rank (below `n_merges`; lower first), bits 42–62 the right id, bit 63 zero; right ids of one left id strictly ascend |
//! | … | `n_added` × 8 | `added`: id (4), flags (4); contents (the bytes of the id) strictly ascend bytewise, are UTF-8 and 1 to 1024 bytes long |
//! | … | `blob_len` | `blob`: raw bytes of all tokens, GPT-2's byte alphabet undone |
//!
//! Flags of an added token: bit 0 special, 1 single word, 2 lstrip, 3 rstrip, 4 normalized; others
//! 0. The merged token's bytes are those of its parts. If the section starts at a multiple of 8, so
//! do its `merges`; the reader asks for no alignment.
//!
//! ```text
//! length = 64 + 1024 + 8 (n_tokens + 1) + 8 n_merges + 8 n_added + blob_len
//! ```

mod added;
pub mod alphabet;
mod bpe;
#[cfg(feature = "alloc")]
mod builder;
mod encode;
mod error;
mod pretokenize;
mod section;
mod unicode;
mod utf8;

#[cfg(all(test, feature = "alloc"))]
mod tests;

pub use added::{AddedFlags, AddedToken};
#[cfg(feature = "alloc")]
pub use builder::{BuildError, TokenizerBuilder};
pub use encode::{SpecialTokens, required_scratch};
pub use error::{CapacityError, TokenizerError};
pub use section::{MAX_ADDED_LEN, MAX_MERGES, MAX_TOKENS, TokenizerView};
pub use utf8::Utf8Stream;
