//! Small error enums, one variant per rule.

use core::fmt;

use crate::decoding::DecodingError;
use crate::generate::GenerateError;

/// A size of the model is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is zero or above its cap.
    OutOfRange {
        /// Name in `config.json`.
        field: &'static str,
        /// What was found.
        value: u32,
        /// Largest value accepted.
        max: u32,
    },
    /// `n_head` does not divide `n_embd`.
    HeadsDoNotDivide {
        /// `n_embd`
        n_embd: u32,
        /// `n_head`
        n_head: u32,
    },
    /// `n_embd / n_head` is outside 32..=128.
    HeadDim {
        /// `n_embd / n_head`
        head_dim: u32,
    },
    /// `layer_norm_epsilon` is not in (0, 1].
    Epsilon,
    /// A token id is not in the vocabulary.
    TokenId {
        /// Name in `config.json`.
        field: &'static str,
        /// What was found.
        value: u32,
        /// The model's `vocab_size`.
        vocab_size: u32,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OutOfRange { field, value, max } => {
                write!(f, "{field} is {value}, supported is 1 to {max}")
            }
            Self::HeadsDoNotDivide { n_embd, n_head } => {
                write!(f, "n_head {n_head} does not divide n_embd {n_embd}")
            }
            Self::HeadDim { head_dim } => {
                write!(f, "head size {head_dim} is not supported, it must be 32 to 128")
            }
            Self::Epsilon => write!(f, "layer_norm_epsilon is not in (0, 1]"),
            Self::TokenId { field, value, vocab_size } => {
                write!(f, "{field} is {value}, which is not in the vocabulary of {vocab_size}")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

/// A part of a `.pgpt` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The first 128 bytes.
    Header,
    /// The model's sizes.
    Config,
    /// The tensor directory.
    Directory,
    /// Vocabulary and merges.
    Tokenizer,
    /// JSON text about the file.
    Metadata,
    /// The tensors.
    Data,
}

impl Section {
    /// The four sections of the section table.
    pub(crate) const IN_ORDER: [Self; 4] =
        [Self::Config, Self::Directory, Self::Tokenizer, Self::Metadata];

    const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Config => "config",
            Self::Directory => "directory",
            Self::Tokenizer => "tokenizer",
            Self::Metadata => "metadata",
            Self::Data => "data",
        }
    }
}

/// A `.pgpt` file breaks a rule of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// Shorter than a header.
    TooShort {
        /// Bytes found.
        len: u64,
    },
    /// The first four bytes are not `PGPT`.
    BadMagic,
    /// A version this crate does not read.
    UnsupportedVersion {
        /// The file's version.
        found: u32,
    },
    /// The header's CRC does not match.
    HeaderCrc,
    /// The file is longer or shorter than its header says.
    FileLength {
        /// Length in the header.
        expected: u64,
        /// Length of the file.
        found: u64,
    },
    /// The bytes do not begin at a multiple of 64 in memory.
    Misaligned,
    /// A section does not begin right behind the one before.
    SectionOffset {
        /// Which.
        section: Section,
    },
    /// Offset plus length of a section overflow.
    SectionOverflow {
        /// Which.
        section: Section,
    },
    /// The data section does not end where it should.
    DataLength {
        /// Where it should end.
        expected: u64,
        /// Where it ends.
        found: u64,
    },
    /// Reserved bytes are not zero.
    ReservedNotZero {
        /// Where.
        section: Section,
    },
    /// Bytes between two sections are not zero.
    PaddingNotZero {
        /// The section behind the padding.
        section: Section,
    },
    /// The CRC of a section does not match.
    SectionCrc {
        /// Which.
        section: Section,
    },
    /// The config section has another length than 64.
    ConfigLength {
        /// Bytes found.
        found: u64,
    },
    /// The config names an activation this version does not know.
    UnknownActivation {
        /// Its code.
        code: u32,
    },
    /// A size in the config is out of range.
    Config(ConfigError),
    /// The number of tensors does not follow from the config.
    TensorCount {
        /// What the config asks for.
        expected: u32,
        /// What the header says.
        found: u32,
    },
    /// The directory's length does not follow from the number of tensors.
    DirectoryLength {
        /// What the number of tensors asks for.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// A tensor is not the one that belongs at this place.
    TensorOrder {
        /// Its place in the directory.
        tensor: u32,
    },
    /// An encoding this version does not know.
    UnknownEncoding {
        /// Place in the directory.
        tensor: u32,
        /// Its code.
        code: u8,
    },
    /// A packing this version does not know.
    UnknownPacking {
        /// Place in the directory.
        tensor: u32,
        /// Its code.
        code: u8,
    },
    /// This tensor may not have this encoding.
    EncodingNotAllowed {
        /// Place in the directory.
        tensor: u32,
    },
    /// This tensor may not have this packing.
    PackingNotAllowed {
        /// Place in the directory.
        tensor: u32,
    },
    /// The group size is not that of the encoding.
    GroupSize {
        /// Place in the directory.
        tensor: u32,
        /// Group size found.
        found: u16,
    },
    /// Rows or columns do not follow from the config.
    TensorShape {
        /// Place in the directory.
        tensor: u32,
    },
    /// A tensor does not begin right behind the one before.
    TensorOffset {
        /// Place in the directory.
        tensor: u32,
    },
    /// A tensor's length does not follow from its shape.
    TensorLength {
        /// Place in the directory.
        tensor: u32,
    },
    /// A codebook, which this version does not know.
    UnknownCodebook {
        /// Place in the directory.
        tensor: u32,
    },
    /// Reserved bytes of an entry are not zero.
    EntryReservedNotZero {
        /// Place in the directory.
        tensor: u32,
    },
    /// The metadata is not UTF-8.
    MetadataNotUtf8,
    /// The tokenizer's tables break a rule.
    Tokenizer(crate::tokenizer::TokenizerError),
    /// The tokenizer has more entries than the model's vocabulary.
    TokenizerTooLarge {
        /// Entries of the tokenizer.
        found: u32,
        /// The model's `vocab_size`.
        vocab_size: u32,
    },
    /// A tensor's CRC does not match (found by `verify` only).
    TensorCrc {
        /// Place in the directory.
        tensor: u32,
    },
    /// Bytes behind a tensor, or padded rows, inputs or scales, are not zero (`verify` only).
    TensorPadding {
        /// Place in the directory.
        tensor: u32,
    },
    /// A scale or a float weight is infinite or not a number (`verify` only).
    NotFinite {
        /// Place in the directory.
        tensor: u32,
    },
    /// An int8 weight, or a block scale of q4 or q3, is −128 (`verify` only).
    OutsideRange {
        /// Place in the directory.
        tensor: u32,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooShort { len } => {
                write!(f, "not a .pgpt file: only {len} bytes, a header has 128")
            }
            Self::BadMagic => write!(f, "not a .pgpt file: it does not begin with PGPT"),
            Self::UnsupportedVersion { found } => write!(
                f,
                "format version {found}, this program reads version {}; convert the model again or update pocketgpt",
                crate::format::VERSION
            ),
            Self::HeaderCrc => write!(f, "the header is damaged (checksum)"),
            Self::FileLength { expected, found } => {
                write!(f, "the file has {found} bytes, its header says {expected}")?;
                if found < expected { write!(f, ": it was cut short") } else { Ok(()) }
            }
            Self::Misaligned => write!(f, "the bytes must begin at a multiple of 64 in memory"),
            Self::SectionOffset { section } => {
                write!(
                    f,
                    "the {} section does not begin right behind the one before",
                    section.name()
                )
            }
            Self::SectionOverflow { section } => {
                write!(f, "the {} section reaches beyond 64 bits", section.name())
            }
            Self::DataLength { expected, found } => {
                write!(f, "the data ends at byte {found}, expected {expected}")
            }
            Self::ReservedNotZero { section } => {
                write!(f, "reserved bytes of the {} are not zero", section.name())
            }
            Self::PaddingNotZero { section } => {
                write!(f, "bytes before the {} section are not zero", section.name())
            }
            Self::SectionCrc { section } => {
                write!(f, "the {} section is damaged (checksum)", section.name())
            }
            Self::ConfigLength { found } => write!(f, "the config has {found} bytes, expected 64"),
            Self::UnknownActivation { code } => write!(f, "unknown activation function {code}"),
            Self::Config(error) => write!(f, "{error}"),
            Self::TensorCount { expected, found } => {
                write!(f, "{found} tensors, the config asks for {expected}")
            }
            Self::DirectoryLength { expected, found } => {
                write!(f, "the directory has {found} bytes, expected {expected}")
            }
            Self::TensorOrder { tensor } => {
                write!(f, "tensor {tensor} of the directory is not the one that belongs there")
            }
            Self::UnknownEncoding { tensor, code } => {
                write!(f, "tensor {tensor} has the unknown encoding {code}")
            }
            Self::UnknownPacking { tensor, code } => {
                write!(f, "tensor {tensor} has the unknown packing {code}")
            }
            Self::EncodingNotAllowed { tensor } => {
                write!(f, "tensor {tensor} may not have its encoding")
            }
            Self::PackingNotAllowed { tensor } => {
                write!(f, "tensor {tensor} may not have its packing")
            }
            Self::GroupSize { tensor, found } => {
                write!(f, "tensor {tensor} has groups of {found}, which its encoding does not have")
            }
            Self::TensorShape { tensor } => {
                write!(f, "the shape of tensor {tensor} does not follow from the config")
            }
            Self::TensorOffset { tensor } => {
                write!(f, "tensor {tensor} does not begin right behind the one before")
            }
            Self::TensorLength { tensor } => {
                write!(f, "the length of tensor {tensor} does not follow from its shape")
            }
            Self::UnknownCodebook { tensor } => write!(f, "tensor {tensor} names a codebook"),
            Self::EntryReservedNotZero { tensor } => {
                write!(f, "reserved bytes of the entry of tensor {tensor} are not zero")
            }
            Self::MetadataNotUtf8 => write!(f, "the metadata is not UTF-8"),
            Self::Tokenizer(error) => write!(f, "tokenizer: {error}"),
            Self::TokenizerTooLarge { found, vocab_size } => {
                write!(f, "the tokenizer has {found} entries, the model only {vocab_size}")
            }
            Self::TensorCrc { tensor } => write!(f, "tensor {tensor} is damaged (checksum)"),
            Self::TensorPadding { tensor } => {
                write!(f, "padding of tensor {tensor} is not zero")
            }
            Self::NotFinite { tensor } => {
                write!(f, "tensor {tensor} has an infinite number or a NaN")
            }
            Self::OutsideRange { tensor } => {
                write!(f, "tensor {tensor} has an integer outside ±127")
            }
        }
    }
}

impl core::error::Error for FormatError {}

/// Something was asked for that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CapacityError {
    /// The workspace memory is smaller than the plan says.
    Workspace {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// No position is left for these tokens.
    ContextFull {
        /// Positions already used.
        used: usize,
        /// Tokens to add.
        adding: usize,
        /// Positions there are.
        capacity: usize,
    },
    /// The branches see every slot of the cache.
    SlotsFull {
        /// Slots there are.
        slots: usize,
    },
    /// A token id is not below `vocab_size`.
    TokenId {
        /// The id.
        id: u32,
        /// The model's vocabulary.
        vocab_size: u32,
    },
    /// An option asks for more than the model or the machine has.
    Option {
        /// Its name.
        name: &'static str,
        /// What was asked for.
        value: usize,
        /// Largest value possible.
        max: usize,
    },
    /// All of it together is more than this machine can address.
    TooLarge,
    /// More tokens are to be kept at the beginning of the text than there is room for beside
    /// others.
    Keep {
        /// Tokens to keep.
        keep: usize,
        /// Most that are possible.
        max: usize,
    },
}

impl fmt::Display for CapacityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Workspace { needed, given } => {
                write!(f, "the workspace has {given} bytes, {needed} are needed")
            }
            Self::ContextFull { used, adding, capacity } => write!(
                f,
                "the context is full: {used} of {capacity} positions are used and {adding} more are asked for"
            ),
            Self::SlotsFull { slots } => write!(
                f,
                "the branches use all {slots} slots of the cache: branch_slots is too small"
            ),
            Self::TokenId { id, vocab_size } => {
                write!(f, "token id {id} is not in the vocabulary of {vocab_size}")
            }
            Self::Option { name, value, max } => {
                write!(f, "{name} is {value}, possible is 1 to {max}")
            }
            Self::TooLarge => write!(
                f,
                "the session takes more memory than a {}-bit program has; make window, batch or branches smaller",
                usize::BITS
            ),
            Self::Keep { keep, max } => write!(
                f,
                "keep is {keep}: at most {max} tokens of the beginning leave room for what follows"
            ),
        }
    }
}

impl core::error::Error for CapacityError {}

/// Any error of this crate, for programs whose `?` cannot box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Error {
    /// Of a file.
    Format(FormatError),
    /// Of a text to be encoded.
    Tokenizer(crate::tokenizer::CapacityError),
    /// Of a session.
    Capacity(CapacityError),
    /// Of options, or logits.
    Decoding(DecodingError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(error) => error.fmt(f),
            Self::Tokenizer(error) => error.fmt(f),
            Self::Capacity(error) => error.fmt(f),
            Self::Decoding(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

impl From<crate::tokenizer::CapacityError> for Error {
    fn from(error: crate::tokenizer::CapacityError) -> Self {
        Self::Tokenizer(error)
    }
}

impl From<CapacityError> for Error {
    fn from(error: CapacityError) -> Self {
        Self::Capacity(error)
    }
}

impl From<DecodingError> for Error {
    fn from(error: DecodingError) -> Self {
        Self::Decoding(error)
    }
}

impl From<GenerateError> for Error {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Capacity(error) => Self::Capacity(error),
            GenerateError::Decoding(error) => Self::Decoding(error),
        }
    }
}
