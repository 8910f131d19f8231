//! The fixed first 128 bytes.

use super::error::SavedError;
use crate::format::{u32_at, u64_at};
use crate::kv_cache::KvType;
use crate::overflow::Overflow;
use crate::workspace::SessionOptions;

/// First bytes of the file.
pub const MAGIC: [u8; 4] = *b"PGSS";
/// Version of the format.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 128;

const KV_TYPES: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8];

/// What was saved.
///
/// | bytes | field |
/// |---|---|
/// | 0..4 | magic `PGSS` |
/// | 4..8 | version, `u32` = 1 |
/// | 8..16 | file length, `u64` |
/// | 16..24 | length of the model's file, `u64` |
/// | 24..28 | CRC-32 in the header of the model's file, `u32` |
/// | 28..32 | cache type: 0 f32, 1 f16, 2 q8 |
/// | 32..36 | overflow: 0 stop, 1 refill, 2 shadow |
/// | 36..48 | window, keep, tail (0 with stop), `u32` each |
/// | 48..52 | position of the next token, `u32` |
/// | 52..56 | length of the metadata, `u32` |
/// | 56..64 | tokens of the text that were read, `u64` |
/// | 64..72 | tokens of the text, `u64` |
/// | 72..80 | how many of them, the last ones, are new, `u64` |
/// | 80..88 | seed, `u64` |
/// | 88..124 | zero |
/// | 124..128 | CRC-32 of bytes 0..124 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the whole file in bytes.
    pub file_len: u64,
    /// Length of the model's file.
    pub model_len: u64,
    /// CRC-32 in the header of the model's file.
    pub model_crc: u32,
    /// How keys and values are stored.
    pub kv: KvType,
    /// What happens when all positions are used.
    pub overflow: Overflow,
    /// Positions whose keys and values are kept.
    pub window: u32,
    /// First tokens of the text that stay.
    pub keep: u32,
    /// Tokens behind them when the context begins anew; 0 where it does not.
    pub tail: u32,
    /// Position of the next token.
    pub position: u32,
    /// Bytes of metadata.
    pub metadata_len: u32,
    /// Tokens of the text that were read.
    pub fed: u64,
    /// Tokens of the text.
    pub tokens: u64,
    /// How many of them, the last ones, are new.
    pub new_tokens: u64,
    /// What draws follow from.
    pub seed: u64,
}

impl Header {
    /// Reads the header; whether its numbers fit each other and a model is another question.
    pub(crate) fn decode(file: &[u8]) -> Result<Self, SavedError> {
        let Some(head) = file.get(..HEADER_LEN) else {
            return Err(SavedError::TooShort { len: file.len() as u64 });
        };
        if head[..4] != MAGIC {
            return Err(SavedError::BadMagic);
        }
        let version = u32_at(head, 4);
        if version != VERSION {
            return Err(SavedError::UnsupportedVersion { found: version });
        }
        if u32_at(head, 124) != crc32fast::hash(&head[..124]) {
            return Err(SavedError::HeaderCrc);
        }
        let file_len = u64_at(head, 8);
        if file_len != file.len() as u64 {
            let (expected, found) = (file_len, file.len() as u64);
            return Err(SavedError::FileLength { expected, found });
        }
        if head[88..124].iter().any(|&b| b != 0) {
            return Err(SavedError::ReservedNotZero);
        }
        let (kv, overflow) = (u32_at(head, 28), u32_at(head, 32));
        let metadata_len = u32_at(head, 52);
        if metadata_len as usize > super::MAX_METADATA_LEN {
            return Err(SavedError::MetadataTooLong { len: metadata_len });
        }
        Ok(Self {
            file_len,
            model_len: u64_at(head, 16),
            model_crc: u32_at(head, 24),
            kv: *KV_TYPES.get(kv as usize).ok_or(SavedError::UnknownKvType { code: kv })?,
            overflow: *Overflow::ALL
                .get(overflow as usize)
                .ok_or(SavedError::UnknownOverflow { code: overflow })?,
            window: u32_at(head, 36),
            keep: u32_at(head, 40),
            tail: u32_at(head, 44),
            position: u32_at(head, 48),
            metadata_len,
            fed: u64_at(head, 56),
            tokens: u64_at(head, 64),
            new_tokens: u64_at(head, 72),
            seed: u64_at(head, 80),
        })
    }

    /// The 128 bytes, CRC included.
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..4].copy_from_slice(&MAGIC);
        let kv = KV_TYPES.iter().position(|&kv| kv == self.kv).unwrap_or_default();
        let overflow = Overflow::ALL.iter().position(|&o| o == self.overflow).unwrap_or_default();
        for (at, word) in [
            (4, VERSION),
            (24, self.model_crc),
            (28, kv as u32),
            (32, overflow as u32),
            (36, self.window),
            (40, self.keep),
            (44, self.tail),
            (48, self.position),
            (52, self.metadata_len),
        ] {
            out[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        for (at, word) in [
            (8, self.file_len),
            (16, self.model_len),
            (56, self.fed),
            (64, self.tokens),
            (72, self.new_tokens),
            (80, self.seed),
        ] {
            out[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..124]);
        out[124..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `base` with what was saved.
    pub(super) fn options(&self, base: &SessionOptions) -> SessionOptions {
        let stops = self.overflow == Overflow::Stop;
        SessionOptions {
            kv: self.kv,
            window: self.window as usize,
            keep: self.keep as usize,
            overflow: self.overflow,
            tail: (!stops).then_some(self.tail as usize),
            ..*base
        }
    }
}
