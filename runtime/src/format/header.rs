//! The fixed first 128 bytes, and the 64 bytes of the config.

use super::{ALIGN, DATA_ALIGN, MAGIC, VERSION, align_up, u32_at, u64_at};
use crate::config::{Activation, Gpt2Config};
use crate::error::{FormatError, Section};

/// Bytes of the header.
pub const HEADER_LEN: usize = 128;
/// Bytes of the config section.
pub const CONFIG_LEN: usize = 64;

/// A byte range of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Span {
    /// First byte behind the range; `None` on overflow.
    pub fn end(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }
}

/// Where the parts of a file are.
///
/// | bytes | field |
/// |---|---|
/// | 0..4 | magic `PGPT` |
/// | 4..8 | version, `u32` = 1 |
/// | 8..16 | file length, `u64` |
/// | 16..80 | config, directory, tokenizer, metadata: offset `u64`, length `u64` each |
/// | 80..96 | tensor data: offset `u64`, length `u64` |
/// | 96..112 | CRC-32 of config, directory, tokenizer, metadata, `u32` each |
/// | 112..116 | number of tensors, `u32` |
/// | 116..124 | zero |
/// | 124..128 | CRC-32 of bytes 0..124 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the whole file in bytes.
    pub file_len: u64,
    /// Config, directory, tokenizer, metadata, in file order.
    pub sections: [Span; 4],
    /// Tensor data.
    pub data: Span,
    /// CRC-32 (ISO-HDLC) of the four sections.
    pub section_crcs: [u32; 4],
    /// Entries of the directory.
    pub tensor_count: u32,
}

impl Header {
    /// Reads the header and proves that the sections tile the file: in order, each at its
    /// alignment, no gap but padding, no overlap, no tail.
    pub fn decode(file: &[u8]) -> Result<Self, FormatError> {
        let Some(head) = file.get(..HEADER_LEN) else {
            return Err(FormatError::TooShort { len: file.len() as u64 });
        };
        if head[..4] != MAGIC {
            return Err(FormatError::BadMagic);
        }
        let version = u32_at(head, 4);
        if version != VERSION {
            return Err(FormatError::UnsupportedVersion { found: version });
        }
        let crc = crc32fast::hash(&head[..HEADER_LEN - 4]);
        if u32_at(head, HEADER_LEN - 4) != crc {
            return Err(FormatError::HeaderCrc);
        }
        let span = |at| Span { offset: u64_at(head, at), len: u64_at(head, at + 8) };
        let header = Self {
            file_len: u64_at(head, 8),
            sections: [span(16), span(32), span(48), span(64)],
            data: span(80),
            section_crcs: [
                u32_at(head, 96),
                u32_at(head, 100),
                u32_at(head, 104),
                u32_at(head, 108),
            ],
            tensor_count: u32_at(head, 112),
        };
        if head[116..124].iter().any(|&b| b != 0) {
            return Err(FormatError::ReservedNotZero { section: Section::Header });
        }
        if header.file_len != file.len() as u64 {
            return Err(FormatError::FileLength {
                expected: header.file_len,
                found: file.len() as u64,
            });
        }
        header.check_tiling()?;
        Ok(header)
    }

    fn check_tiling(&self) -> Result<(), FormatError> {
        let mut end = HEADER_LEN as u64;
        let parts = self.sections.iter().zip(Section::IN_ORDER).map(|(s, name)| (s, name, ALIGN));
        for (span, section, align) in parts.chain([(&self.data, Section::Data, DATA_ALIGN)]) {
            if Some(span.offset) != align_up(end, align) {
                return Err(FormatError::SectionOffset { section });
            }
            end = span.end().ok_or(FormatError::SectionOverflow { section })?;
        }
        if end != self.file_len {
            return Err(FormatError::DataLength { expected: self.file_len, found: end });
        }
        Ok(())
    }

    /// The 128 bytes, CRC included.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..16].copy_from_slice(&self.file_len.to_le_bytes());
        for (i, span) in self.sections.iter().chain([&self.data]).enumerate() {
            let at = 16 + 16 * i;
            out[at..at + 8].copy_from_slice(&span.offset.to_le_bytes());
            out[at + 8..at + 16].copy_from_slice(&span.len.to_le_bytes());
        }
        for (i, crc) in self.section_crcs.iter().enumerate() {
            out[96 + 4 * i..100 + 4 * i].copy_from_slice(&crc.to_le_bytes());
        }
        out[112..116].copy_from_slice(&self.tensor_count.to_le_bytes());
        let crc = crc32fast::hash(&out[..HEADER_LEN - 4]);
        out[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

const FLAG_SCALE_ATTN: u32 = 1;
const FLAG_INVERSE_LAYER: u32 = 2;
const FLAG_TIED: u32 = 4;
/// Stands for "the checkpoint names no such token".
const NO_TOKEN: u32 = u32::MAX;

/// Reads the config section and validates it.
///
/// | bytes | field |
/// |---|---|
/// | 0..24 | `vocab_size`, `n_ctx`, `n_embd`, `n_layer`, `n_head`, `n_inner`, `u32` each |
/// | 24..28 | activation: 0 gelu_new, 1 gelu, 2 relu, 3 silu |
/// | 28..32 | flags: 1 scale_attn_weights, 2 scale_attn_by_inverse_layer_idx, 4 tied head |
/// | 32..36 | layer_norm_epsilon, `f32` |
/// | 36..44 | bos_token_id, eos_token_id, `u32`; `0xffff_ffff` for none |
/// | 44..64 | zero |
pub fn decode_config(bytes: &[u8]) -> Result<Gpt2Config, FormatError> {
    if bytes.len() != CONFIG_LEN {
        return Err(FormatError::ConfigLength { found: bytes.len() as u64 });
    }
    let flags = u32_at(bytes, 28);
    if bytes[44..].iter().any(|&b| b != 0)
        || flags & !(FLAG_SCALE_ATTN | FLAG_INVERSE_LAYER | FLAG_TIED) != 0
    {
        return Err(FormatError::ReservedNotZero { section: Section::Config });
    }
    let code = u32_at(bytes, 24);
    let token = |at| Some(u32_at(bytes, at)).filter(|&id| id != NO_TOKEN);
    let config = Gpt2Config {
        vocab_size: u32_at(bytes, 0),
        n_ctx: u32_at(bytes, 4),
        n_embd: u32_at(bytes, 8),
        n_layer: u32_at(bytes, 12),
        n_head: u32_at(bytes, 16),
        n_inner: u32_at(bytes, 20),
        activation: Activation::from_code(code).ok_or(FormatError::UnknownActivation { code })?,
        scale_attn_weights: flags & FLAG_SCALE_ATTN != 0,
        scale_attn_by_inverse_layer_idx: flags & FLAG_INVERSE_LAYER != 0,
        tied_head: flags & FLAG_TIED != 0,
        layer_norm_epsilon: f32::from_bits(u32_at(bytes, 32)),
        bos_token_id: token(36),
        eos_token_id: token(40),
    };
    config.validate().map_err(FormatError::Config)?;
    Ok(config)
}

/// The config section's bytes.
pub fn encode_config(config: &Gpt2Config) -> [u8; CONFIG_LEN] {
    let flag = |on, bit| if on { bit } else { 0 };
    let flags = flag(config.scale_attn_weights, FLAG_SCALE_ATTN)
        | flag(config.scale_attn_by_inverse_layer_idx, FLAG_INVERSE_LAYER)
        | flag(config.tied_head, FLAG_TIED);
    let words = [
        config.vocab_size,
        config.n_ctx,
        config.n_embd,
        config.n_layer,
        config.n_head,
        config.n_inner,
        config.activation as u32,
        flags,
        config.layer_norm_epsilon.to_bits(),
        config.bos_token_id.unwrap_or(NO_TOKEN),
        config.eos_token_id.unwrap_or(NO_TOKEN),
    ];
    let mut out = [0; CONFIG_LEN];
    for (i, word) in words.iter().enumerate() {
        out[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
    }
    out
}
