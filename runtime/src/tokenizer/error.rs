//! What can be wrong with a section, and with the memory of a caller.

use core::fmt;

/// A rule that the bytes of a tokenizer section break.
///
/// [`TokenizerView::new`](super::TokenizerView::new) reports the rules of the header, down to
/// [`Length`](Self::Length); the others are reported by
/// [`TokenizerView::verify`](super::TokenizerView::verify).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The section is shorter than its header.
    Truncated {
        /// Length of the section.
        len: usize,
    },
    /// The layout is of another version.
    Version(u16),
    /// The tokenizer is of a kind that this reader does not know.
    Kind(u16),
    /// Flags are set that this reader does not know.
    Flags(u32),
    /// Reserved bytes of the header are not zero.
    Reserved,
    /// The number of ids is zero or above [`MAX_TOKENS`](super::MAX_TOKENS).
    TokenCount(u32),
    /// The number of merges is above [`MAX_MERGES`](super::MAX_MERGES).
    MergeCount(u32),
    /// There are more added tokens than ids.
    AddedCount(u32),
    /// The tables that the header names do not fill the section exactly.
    Length {
        /// Length that follows from the header.
        expected: u64,
        /// Length of the section.
        found: usize,
    },
    /// The id in the byte table is not that of the token with this single byte.
    ByteId(u8),
    /// The bytes of a token do not follow those of the token before it, or the last do not end
    /// with the section.
    TokenOffset(u32),
    /// The merges of a left id do not follow those of the id before it, or the last do not end
    /// with the table.
    MergeIndex(u32),
    /// A merge has its top bit set, or its right id, merged id or rank out of range.
    MergeRange(u32),
    /// The merges of one left id are not in strictly ascending order of their right ids.
    MergeOrder(u32),
    /// The bytes of a merged token are not those of its two parts.
    MergeBytes(u32),
    /// An added token has its id out of range.
    AddedId(u32),
    /// An added token has flags that this reader does not know.
    AddedFlags(u32),
    /// The content of an added token is empty, longer than
    /// [`MAX_ADDED_LEN`](super::MAX_ADDED_LEN), or not UTF-8.
    AddedContent(u32),
    /// Added tokens are not in strictly ascending order of their contents.
    AddedOrder(u32),
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { len } => {
                write!(f, "tokenizer section of {len} bytes is shorter than its header")
            }
            Self::Version(version) => write!(f, "unknown tokenizer section version {version}"),
            Self::Kind(kind) => write!(f, "unknown kind of tokenizer {kind}"),
            Self::Flags(flags) => write!(f, "unknown tokenizer flags {flags:#x}"),
            Self::Reserved => f.write_str("reserved bytes of the tokenizer header are not zero"),
            Self::TokenCount(count) => write!(f, "{count} tokenizer ids are out of range"),
            Self::MergeCount(count) => write!(f, "{count} tokenizer merges are out of range"),
            Self::AddedCount(count) => write!(f, "{count} added tokens are more than the ids"),
            Self::Length { expected, found } => write!(
                f,
                "tokenizer section has {found} bytes where its header asks for {expected}"
            ),
            Self::ByteId(byte) => write!(f, "wrong token for the byte {byte:#04x}"),
            Self::TokenOffset(id) => write!(f, "bytes of token {id} are out of place"),
            Self::MergeIndex(id) => write!(f, "merges of token {id} are out of place"),
            Self::MergeRange(index) => write!(f, "merge {index} has a value out of range"),
            Self::MergeOrder(index) => write!(f, "merge {index} is out of order"),
            Self::MergeBytes(index) => {
                write!(f, "merge {index} makes a token with other bytes than its parts")
            }
            Self::AddedId(index) => write!(f, "added token {index} has an id out of range"),
            Self::AddedFlags(index) => write!(f, "added token {index} has unknown flags"),
            Self::AddedContent(index) => {
                write!(f, "added token {index} is empty, too long, or not UTF-8")
            }
            Self::AddedOrder(index) => write!(f, "added token {index} is out of order"),
        }
    }
}

impl core::error::Error for TokenizerError {}

/// Memory from the caller does not suffice. Nothing is lost: the call can be repeated with more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapacityError {
    /// The scratch slice is too short for the longest word of the text.
    Scratch {
        /// Elements that this word needs;
        /// [`scratch_len`](super::TokenizerView::scratch_len) tells the most for a whole text.
        needed: usize,
        /// Elements given.
        given: usize,
    },
    /// The text has more tokens than the output slice has room for.
    Output {
        /// Tokens of the whole text.
        needed: usize,
        /// Elements given.
        given: usize,
    },
}

impl fmt::Display for CapacityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Scratch { needed, given } => {
                write!(f, "encoding needs {needed} scratch elements, {given} were given")
            }
            Self::Output { needed, given } => {
                write!(f, "the text has {needed} tokens, there is room for {given}")
            }
        }
    }
}

impl core::error::Error for CapacityError {}
