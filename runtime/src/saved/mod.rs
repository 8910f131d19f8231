//! Saved sessions: a text with its cache in one file, to go on from later or elsewhere.
//!
//! A session that was saved and restored computes, bit for bit, what it would have computed without
//! having stopped, on any instruction set and thread count. The file belongs to one model file; it
//! is little-endian and has no padding:
//!
//! | part | contents |
//! |---|---|
//! | header | 128 bytes, see [`Header`] |
//! | text | token ids, `u32` each |
//! | metadata | JSON text of the program that wrote it; ignored by the runtime |
//! | cache | for each layer, head and slot in use: key, value, and in q8 their scales |
//! | shadow | the same of the second cache, with [`Overflow::Shadow`](crate::Overflow::Shadow) |
//! | CRC | CRC-32 (ISO-HDLC) of all parts behind the header, `u32` |
//!
//! Slots in use are the first `min(position, window)`. A key or a value has the model's head size
//! rounded up to a multiple of 16, as f32, f16 or int8 in ±127; scales are f32.
//!
//! Nothing in such a file is believed: [`SavedSession::new`] proves lengths, counts and checksums,
//! [`Session::restore`](crate::session::Session::restore) each number of the cache.

mod error;
mod header;

pub use error::SavedError;
pub use header::{HEADER_LEN, Header, MAGIC, VERSION};

use crate::format::WeightFile;
use crate::kv_cache::KvLayout;
use crate::workspace::SessionOptions;

/// What is saved beside the session: the text, and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedText<'a> {
    /// The whole text. The session has read it, or all but the last tokens.
    pub tokens: &'a [u32],
    /// How many of the tokens, the last ones, were written by the model.
    pub new_tokens: usize,
    /// What draws follow from.
    pub seed: u64,
    /// Anything else, as JSON text; at most [`MAX_METADATA_LEN`] bytes.
    pub metadata: &'a str,
}

/// Most bytes of metadata.
pub const MAX_METADATA_LEN: usize = 1 << 20;

/// A saved session in memory, its lengths, counts and checksums proven.
#[derive(Clone, Copy, Debug)]
pub struct SavedSession<'a> {
    header: Header,
    tokens: &'a [[u8; 4]],
    metadata: &'a str,
    cache: &'a [u8],
    shadow: &'a [u8],
}

impl<'a> SavedSession<'a> {
    /// Proves a file that was saved with this model. Where the bytes begin does not matter.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new(bytes: &'a [u8], model: &WeightFile<'_>) -> Result<Self, SavedError> {
        let header = Header::decode(bytes)?;
        let (found, expected) = ((header.model_len, header.model_crc), model.identity());
        if found != expected {
            return Err(SavedError::OtherModel);
        }
        let config = model.config();
        let base = SessionOptions::new(config);
        if !(1..=base.window as u64).contains(&u64::from(header.window)) {
            return Err(SavedError::Window { found: header.window });
        }
        let rules = header.options(&base).rules(config).map_err(SavedError::Options)?;
        if header.tail as usize != rules.tail {
            return Err(SavedError::ReservedNotZero);
        }
        if !rules.reaches(header.fed, header.position) {
            return Err(SavedError::Position { fed: header.fed, position: header.position });
        }
        if header.tokens < header.fed.max(1) {
            return Err(SavedError::TextTooShort { fed: header.fed, tokens: header.tokens });
        }
        if header.new_tokens > header.tokens {
            let (new_tokens, tokens) = (header.new_tokens, header.tokens);
            return Err(SavedError::NewTokens { new_tokens, tokens });
        }

        let layout = KvLayout::new(config, header.kv, header.window as usize);
        let slots = |position: usize| position.min(header.window as usize) as u64;
        let per_slot = layout.slot_bytes() as u64;
        let cache_len = slots(header.position as usize) * per_slot;
        let shadow_len = slots(rules.shadow_positions(header.position as usize)) * per_slot;
        let parts = [Some(HEADER_LEN as u64), header.tokens.checked_mul(4)]
            .into_iter()
            .chain([u64::from(header.metadata_len), cache_len, shadow_len, 4].map(Some));
        let expected = parts.reduce(|sum, part| sum?.checked_add(part?)).flatten();
        let found = bytes.len() as u64;
        if expected != Some(found) {
            let expected = expected.unwrap_or(u64::MAX);
            return Err(SavedError::PartLengths { expected, found });
        }

        let rest = &bytes[HEADER_LEN..];
        let (rest, crc) = rest.split_last_chunk::<4>().expect("the length was proven");
        if crc32fast::hash(rest) != u32::from_le_bytes(*crc) {
            return Err(SavedError::DataCrc);
        }
        let (tokens, rest) = rest.split_at(4 * header.tokens as usize);
        let (metadata, rest) = rest.split_at(header.metadata_len as usize);
        let (cache, shadow) = rest.split_at(cache_len as usize);
        let metadata = core::str::from_utf8(metadata).map_err(|_| SavedError::MetadataNotUtf8)?;
        let saved = Self { header, tokens: tokens.as_chunks().0, metadata, cache, shadow };
        let vocab_size = config.vocab_size;
        match saved.tokens().find(|&id| id >= vocab_size) {
            Some(id) => Err(SavedError::TokenId { id, vocab_size }),
            None => Ok(saved),
        }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The text's token ids, all of them in the vocabulary.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = u32> + DoubleEndedIterator + use<'a> {
        self.tokens.iter().map(|&id| u32::from_le_bytes(id))
    }

    pub(crate) fn token(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.tokens[at])
    }

    /// How many of the tokens, the last ones, were written by the model.
    pub fn new_tokens(&self) -> usize {
        self.header.new_tokens as usize
    }

    /// What draws follow from.
    pub fn seed(&self) -> u64 {
        self.header.seed
    }

    /// What the program that wrote the file has to say, JSON as a rule.
    pub fn metadata(&self) -> &'a str {
        self.metadata
    }

    /// A session like the saved one; what decides speed and memory only is taken from `base`.
    pub fn session_options(&self, base: &SessionOptions) -> SessionOptions {
        self.header.options(base)
    }

    /// Numbers of the cache, and of the shadow.
    pub(crate) fn caches(&self) -> [&'a [u8]; 2] {
        [self.cache, self.shadow]
    }
}
