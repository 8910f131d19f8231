//! Why a saved session is refused, one variant per rule.

use core::fmt;

use crate::error::CapacityError;

/// A rule of saved sessions that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SavedError {
    /// Shorter than the header.
    TooShort {
        /// Bytes there are.
        len: u64,
    },
    /// Does not begin with `PGSS`.
    BadMagic,
    /// A version that this reader does not know.
    UnsupportedVersion {
        /// Version of the file.
        found: u32,
    },
    /// The header's CRC does not hold.
    HeaderCrc,
    /// The file is not as long as it says.
    FileLength {
        /// What the header says.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Bytes that must be zero are not.
    ReservedNotZero,
    /// It was saved with another model.
    OtherModel,
    /// No such cache type.
    UnknownKvType {
        /// Code in the file.
        code: u32,
    },
    /// No such policy.
    UnknownOverflow {
        /// Code in the file.
        code: u32,
    },
    /// The window is none of the model's.
    Window {
        /// Window in the file.
        found: u32,
    },
    /// `keep` or `tail` is impossible.
    Options(CapacityError),
    /// No text leads to this position.
    Position {
        /// Tokens that were read.
        fed: u64,
        /// Position of the next one.
        position: u32,
    },
    /// More tokens were read than there are, or there are none.
    TextTooShort {
        /// Tokens that were read.
        fed: u64,
        /// Tokens there are.
        tokens: u64,
    },
    /// More tokens are new than there are.
    NewTokens {
        /// New tokens.
        new_tokens: u64,
        /// Tokens there are.
        tokens: u64,
    },
    /// The metadata is longer than allowed.
    MetadataTooLong {
        /// Its bytes.
        len: u32,
    },
    /// The parts do not add up to the file.
    PartLengths {
        /// What they add up to.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The CRC of what follows the header does not hold.
    DataCrc,
    /// The metadata is not UTF-8.
    MetadataNotUtf8,
    /// A token id is not below `vocab_size`.
    TokenId {
        /// The id.
        id: u32,
        /// The model's `vocab_size`.
        vocab_size: u32,
    },
    /// A number of the cache that no token leaves there: infinite, NaN, or -128 in q8.
    CacheNumber {
        /// Layer.
        layer: u32,
        /// Slot.
        slot: u32,
    },
    /// The session to restore it into is made for something else.
    Differs {
        /// Name of the option.
        option: &'static str,
    },
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooShort { len } => write!(f, "only {len} bytes, a saved session has more"),
            Self::BadMagic => f.write_str("not a saved session"),
            Self::UnsupportedVersion { found } => write!(
                f,
                "version {found} of the format, this program reads version 1; use the program that saved it"
            ),
            Self::HeaderCrc => f.write_str("the header is damaged, its checksum does not hold"),
            Self::FileLength { expected, found } => {
                write!(f, "{found} bytes, but it should have {expected}")
            }
            Self::ReservedNotZero => f.write_str("bytes that must be zero are not"),
            Self::OtherModel => {
                f.write_str("it was saved with another model file; give that one with -m")
            }
            Self::UnknownKvType { code } => write!(f, "unknown cache type {code}"),
            Self::UnknownOverflow { code } => write!(f, "unknown overflow policy {code}"),
            Self::Window { found } => write!(f, "a window of {found} positions is not possible"),
            Self::Options(error) => error.fmt(f),
            Self::Position { fed, position } => {
                write!(f, "{fed} tokens do not lead to position {position}")
            }
            Self::TextTooShort { fed, tokens } => {
                write!(f, "{fed} tokens were read, the text has {tokens}")
            }
            Self::NewTokens { new_tokens, tokens } => {
                write!(f, "{new_tokens} tokens are new, the text has {tokens}")
            }
            Self::MetadataTooLong { len } => write!(f, "{len} bytes of metadata are too many"),
            Self::PartLengths { expected, found } => {
                write!(f, "its parts have {expected} bytes, the file {found}")
            }
            Self::DataCrc => f.write_str("its contents are damaged, their checksum does not hold"),
            Self::MetadataNotUtf8 => f.write_str("the metadata is not UTF-8"),
            Self::TokenId { id, vocab_size } => {
                write!(f, "token {id} is not in the vocabulary of {vocab_size}")
            }
            Self::CacheNumber { layer, slot } => {
                write!(f, "layer {layer}, slot {slot}: the cache has a number that no token leaves")
            }
            Self::Differs { option } => {
                write!(f, "it was saved with another {option} than the session has")
            }
        }
    }
}

impl core::error::Error for SavedError {}
