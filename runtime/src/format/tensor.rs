//! Directory entries: which tensor, how its numbers are stored, where.

use super::{ALIGN, align_up, u16_at, u32_at, u64_at};
use crate::config::Gpt2Config;
use crate::error::FormatError;
use crate::quant::tile;

/// What a tensor is for; names are GPT-2's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Role {
    /// Token embedding `[vocab_size, n_embd]`; the head as well when tied.
    Wte = 0,
    /// Position embedding `[n_ctx, n_embd]`.
    Wpe = 1,
    /// `ln_f.weight` `[n_embd]`
    LnFWeight = 2,
    /// `ln_f.bias` `[n_embd]`
    LnFBias = 3,
    /// Untied vocabulary head `[vocab_size, n_embd]`.
    LmHead = 4,
    /// `ln_1.weight` `[n_embd]`
    Ln1Weight = 16,
    /// `ln_1.bias` `[n_embd]`
    Ln1Bias = 17,
    /// `attn.c_attn.weight`, output rows: `[3 n_embd, n_embd]`
    CAttnWeight = 18,
    /// `attn.c_attn.bias` `[3 n_embd]`
    CAttnBias = 19,
    /// `attn.c_proj.weight` `[n_embd, n_embd]`
    AttnCProjWeight = 20,
    /// `attn.c_proj.bias` `[n_embd]`
    AttnCProjBias = 21,
    /// `ln_2.weight` `[n_embd]`
    Ln2Weight = 22,
    /// `ln_2.bias` `[n_embd]`
    Ln2Bias = 23,
    /// `mlp.c_fc.weight` `[n_inner, n_embd]`
    CFcWeight = 24,
    /// `mlp.c_fc.bias` `[n_inner]`
    CFcBias = 25,
    /// `mlp.c_proj.weight` `[n_embd, n_inner]`
    MlpCProjWeight = 26,
    /// `mlp.c_proj.bias` `[n_embd]`
    MlpCProjBias = 27,
}

/// The twelve tensors of a block, in file order.
pub const BLOCK_ROLES: [Role; 12] = [
    Role::Ln1Weight,
    Role::Ln1Bias,
    Role::CAttnWeight,
    Role::CAttnBias,
    Role::AttnCProjWeight,
    Role::AttnCProjBias,
    Role::Ln2Weight,
    Role::Ln2Bias,
    Role::CFcWeight,
    Role::CFcBias,
    Role::MlpCProjWeight,
    Role::MlpCProjBias,
];

impl Role {
    /// The tensor's name inside a block, or of the whole model.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wte => "wte.weight",
            Self::Wpe => "wpe.weight",
            Self::LnFWeight => "ln_f.weight",
            Self::LnFBias => "ln_f.bias",
            Self::LmHead => "lm_head.weight",
            Self::Ln1Weight => "ln_1.weight",
            Self::Ln1Bias => "ln_1.bias",
            Self::CAttnWeight => "attn.c_attn.weight",
            Self::CAttnBias => "attn.c_attn.bias",
            Self::AttnCProjWeight => "attn.c_proj.weight",
            Self::AttnCProjBias => "attn.c_proj.bias",
            Self::Ln2Weight => "ln_2.weight",
            Self::Ln2Bias => "ln_2.bias",
            Self::CFcWeight => "mlp.c_fc.weight",
            Self::CFcBias => "mlp.c_fc.bias",
            Self::MlpCProjWeight => "mlp.c_proj.weight",
            Self::MlpCProjBias => "mlp.c_proj.bias",
        }
    }

    /// Whether the tensor belongs to a block (and has a layer number).
    pub const fn in_block(self) -> bool {
        self as u16 >= Self::Ln1Weight as u16
    }

    /// `[rows, cols]`, output rows first; vectors have one row.
    pub const fn shape(self, config: &Gpt2Config) -> (u32, u32) {
        let (d, i) = (config.n_embd, config.n_inner);
        match self {
            Self::Wte | Self::LmHead => (config.vocab_size, d),
            Self::Wpe => (config.n_ctx, d),
            Self::CAttnWeight => (3 * d, d),
            Self::CAttnBias => (1, 3 * d),
            Self::AttnCProjWeight => (d, d),
            Self::CFcWeight => (i, d),
            Self::CFcBias => (1, i),
            Self::MlpCProjWeight => (d, i),
            _ => (1, d),
        }
    }

    /// Whether the tensor is multiplied with activations, and so stored in tiles of rows.
    pub const fn is_matrix(self) -> bool {
        matches!(
            self,
            Self::Wte
                | Self::LmHead
                | Self::CAttnWeight
                | Self::AttnCProjWeight
                | Self::CFcWeight
                | Self::MlpCProjWeight
        )
    }

    /// Whether a file may store the tensor this way.
    pub const fn allows(self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::F32 => true,
            Encoding::F16 => self.is_matrix() || matches!(self, Self::Wpe),
            Encoding::Q8 | Encoding::Q4 | Encoding::Q3 => self.is_matrix(),
        }
    }
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// IEEE binary32
    F32 = 0,
    /// IEEE binary16
    F16 = 1,
    /// Symmetric 8-bit, groups of 32 along the input, see [`crate::quant`].
    Q8 = 2,
    /// Symmetric 4-bit, groups of 32 along the input, see [`crate::quant`].
    Q4 = 3,
    /// Symmetric 3-bit, groups of 32 along the input, see [`crate::quant`].
    Q3 = 4,
}

impl Encoding {
    /// The encoding with this code in a file, if there is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::F32),
            1 => Some(Self::F16),
            2 => Some(Self::Q8),
            3 => Some(Self::Q4),
            4 => Some(Self::Q3),
            _ => None,
        }
    }

    /// Name in commands and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
            Self::Q3 => "q3",
        }
    }

    /// Whether numbers are integers with scales.
    pub const fn is_quantized(self) -> bool {
        matches!(self, Self::Q8 | Self::Q4 | Self::Q3)
    }

    /// Inputs that share a scale; 0 where there are no scales.
    pub const fn group_size(self) -> u16 {
        if self.is_quantized() { tile::GROUP as u16 } else { 0 }
    }
}

/// In which order numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Packing {
    /// Row after row.
    Rows = 0,
    /// Sixteen output rows in lanes, see [`crate::quant::tile`].
    Tile16 = 1,
}

impl Packing {
    /// The packing with this code in a file, if there is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Rows),
            1 => Some(Self::Tile16),
            _ => None,
        }
    }
}

/// Bytes of a directory entry.
pub const ENTRY_LEN: usize = 64;
/// Layer number of tensors outside the blocks.
pub const NO_LAYER: u16 = u16::MAX;

/// One tensor of the directory.
///
/// | bytes | field |
/// |---|---|
/// | 0..2 | role, `u16` |
/// | 2..4 | layer, `u16`; `0xffff` outside the blocks |
/// | 4 | encoding |
/// | 5 | packing |
/// | 6..8 | group size, `u16`; 0 without scales |
/// | 8..16 | rows, cols, `u32` each |
/// | 16..32 | offset from the start of the file, length, `u64` each |
/// | 32..36 | CRC-32 of the tensor's bytes |
/// | 36..40 | codebook, `u32`; 0: values are linear |
/// | 40..64 | zero |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// What the tensor is for.
    pub role: Role,
    /// Block number, or [`NO_LAYER`].
    pub layer: u16,
    /// How numbers are stored.
    pub encoding: Encoding,
    /// In which order.
    pub packing: Packing,
    /// Output rows.
    pub rows: u32,
    /// Inputs per row.
    pub cols: u32,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Number of bytes, without the padding behind.
    pub len: u64,
    /// CRC-32 (ISO-HDLC) of the bytes.
    pub crc: u32,
}

/// Number of tensors in a file of this config.
pub const fn tensor_count(config: &Gpt2Config) -> usize {
    4 + BLOCK_ROLES.len() * config.n_layer as usize + !config.tied_head as usize
}

/// Role and layer of the `index`-th tensor: `wte`, `wpe`, the blocks, `ln_f`, and `lm_head`
/// when it is not tied.
///
/// # Panics
/// If `index` is not below [`tensor_count`].
pub const fn canonical(config: &Gpt2Config, index: usize) -> (Role, u16) {
    let behind_blocks = 2 + BLOCK_ROLES.len() * config.n_layer as usize;
    assert!(index < tensor_count(config));
    if index >= 2 && index < behind_blocks {
        let i = index - 2;
        return (BLOCK_ROLES[i % BLOCK_ROLES.len()], (i / BLOCK_ROLES.len()) as u16);
    }
    let role = match index {
        0 => Role::Wte,
        1 => Role::Wpe,
        _ if index == behind_blocks => Role::LnFWeight,
        _ if index == behind_blocks + 1 => Role::LnFBias,
        _ => Role::LmHead,
    };
    (role, NO_LAYER)
}

/// Place of a tensor in the directory, the inverse of [`canonical`].
pub const fn index_of(config: &Gpt2Config, role: Role, layer: usize) -> usize {
    let behind_blocks = 2 + BLOCK_ROLES.len() * config.n_layer as usize;
    match role {
        Role::Wte => 0,
        Role::Wpe => 1,
        Role::LnFWeight => behind_blocks,
        Role::LnFBias => behind_blocks + 1,
        Role::LmHead => behind_blocks + 2,
        _ => 2 + BLOCK_ROLES.len() * layer + (role as usize - Role::Ln1Weight as usize),
    }
}

/// Bytes of a tensor of this shape. Cannot overflow for a validated config.
pub const fn byte_len(rows: u32, cols: u32, encoding: Encoding, packing: Packing) -> u64 {
    match packing {
        Packing::Rows => {
            let width = match encoding {
                Encoding::F16 => 2,
                _ => 4,
            };
            rows as u64 * cols as u64 * width
        }
        Packing::Tile16 => {
            tile::blocks(rows as usize) as u64 * tile::record_len(encoding, cols as usize) as u64
        }
    }
}

impl TensorEntry {
    /// The entry a tensor of a valid file has, apart from its CRC; `None` if it may not be
    /// stored that way or the offsets overflow.
    pub fn expected(
        config: &Gpt2Config,
        index: usize,
        encoding: Encoding,
        previous_end: u64,
    ) -> Option<Self> {
        let (role, layer) = canonical(config, index);
        if !role.allows(encoding) {
            return None;
        }
        let (rows, cols) = role.shape(config);
        let packing = if role.is_matrix() { Packing::Tile16 } else { Packing::Rows };
        let len = byte_len(rows, cols, encoding, packing);
        let offset = align_up(previous_end, ALIGN)?;
        offset.checked_add(len)?;
        Some(Self { role, layer, encoding, packing, rows, cols, offset, len, crc: 0 })
    }

    /// Reads the `index`-th entry and proves it: everything but encoding and CRC follows from
    /// the config and the end of the tensor before.
    ///
    /// # Errors
    /// The first rule that is broken.
    ///
    /// # Panics
    /// If `index` is not below [`tensor_count`].
    pub fn decode(
        bytes: &[u8; ENTRY_LEN],
        config: &Gpt2Config,
        index: usize,
        previous_end: u64,
    ) -> Result<Self, FormatError> {
        let tensor = index as u32;
        let (role, layer) = canonical(config, index);
        if u16_at(bytes, 0) != role as u16 || u16_at(bytes, 2) != layer {
            return Err(FormatError::TensorOrder { tensor });
        }
        let encoding = Encoding::from_code(bytes[4])
            .ok_or(FormatError::UnknownEncoding { tensor, code: bytes[4] })?;
        let packing = Packing::from_code(bytes[5])
            .ok_or(FormatError::UnknownPacking { tensor, code: bytes[5] })?;
        let expected = Self::expected(config, index, encoding, previous_end)
            .ok_or(FormatError::EncodingNotAllowed { tensor })?;
        if packing != expected.packing {
            return Err(FormatError::PackingNotAllowed { tensor });
        }
        if u16_at(bytes, 6) != encoding.group_size() {
            return Err(FormatError::GroupSize { tensor, found: u16_at(bytes, 6) });
        }
        if (u32_at(bytes, 8), u32_at(bytes, 12)) != (expected.rows, expected.cols) {
            return Err(FormatError::TensorShape { tensor });
        }
        if u64_at(bytes, 16) != expected.offset {
            return Err(FormatError::TensorOffset { tensor });
        }
        if u64_at(bytes, 24) != expected.len {
            return Err(FormatError::TensorLength { tensor });
        }
        if u32_at(bytes, 36) != 0 {
            return Err(FormatError::UnknownCodebook { tensor });
        }
        if bytes[40..].iter().any(|&b| b != 0) {
            return Err(FormatError::EntryReservedNotZero { tensor });
        }
        Ok(Self { crc: u32_at(bytes, 32), ..expected })
    }

    /// The entry's bytes.
    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut out = [0; ENTRY_LEN];
        out[0..2].copy_from_slice(&(self.role as u16).to_le_bytes());
        out[2..4].copy_from_slice(&self.layer.to_le_bytes());
        out[4] = self.encoding as u8;
        out[5] = self.packing as u8;
        out[6..8].copy_from_slice(&self.encoding.group_size().to_le_bytes());
        out[8..12].copy_from_slice(&self.rows.to_le_bytes());
        out[12..16].copy_from_slice(&self.cols.to_le_bytes());
        out[16..24].copy_from_slice(&self.offset.to_le_bytes());
        out[24..32].copy_from_slice(&self.len.to_le_bytes());
        out[32..36].copy_from_slice(&self.crc.to_le_bytes());
        out
    }

    /// First byte behind the tensor.
    pub const fn end(&self) -> u64 {
        self.offset + self.len
    }
}
