//! The one packing of matrices, used in place by every kernel.
//!
//! A matrix `[rows, cols]` is stored as `rows / 16` *records*, rounded up; a record holds 16
//! output rows, and rows behind the last one are zero. Inputs are padded with zeros to a
//! multiple of 32 in the quantized encodings. With `groups = cols / 32`, rounded up, a record is
//!
//! | encoding | parts, each at a multiple of 64 bytes |
//! |---|---|
//! | f32 | `[cols][16]` f32 |
//! | f16 | `[cols][16]` f16 |
//! | q8 | row scales `[16]` f32; block scales `[groups][16]` u8; weights `[groups][8][16][4]` i8 |
//! | q4 | row scales `[16]` f32; block scales `[groups][16]` i8; weights `[groups][4][16][4]` bytes |
//! | q3 | row scales `[16]` f32; block scales `[groups][16]` i8; weights `[groups][3][16][4]` bytes |
//!
//! The innermost 4 of q8 are inputs `4j..4j + 4` of one row: what one lane of a dot-product
//! instruction takes. A byte of q4 holds input `8j + i` in its low and `8j + 4 + i` in its high
//! nibble.
//!
//! A group of q3 is three such tiles of 64 bytes, with 3 bits in each nibble: they hold the first 24
//! inputs as q4 does. The fourth tile is spread over the nibbles' last bits: bits 3 and 7 of a byte
//! of tile `p` are bits `p` and `4 + p` of the byte that it would have. So the kernels make it with
//! three shifts for all 16 rows, and then go on as with q4.

use crate::format::Encoding;

/// Output rows of a record: the lanes of one AVX-512 register, two AVX2, four NEON.
pub const ROWS: usize = 16;
/// Inputs that share a block scale, in weights and in activations.
pub const GROUP: usize = 32;
/// Bytes of a group of 16 rows in q8.
pub const Q8_GROUP_BYTES: usize = GROUP * ROWS;
/// Bytes of a group of 16 rows in q4.
pub const Q4_GROUP_BYTES: usize = GROUP * ROWS / 2;
/// Bytes of a group of 16 rows in q3.
pub const Q3_GROUP_BYTES: usize = GROUP * ROWS * 3 / 8;
/// Bytes of the 16 row scales.
pub const ROW_SCALES_BYTES: usize = 4 * ROWS;

/// Records of a matrix with this many rows.
pub const fn blocks(rows: usize) -> usize {
    rows.div_ceil(ROWS)
}

/// Groups of a row with this many inputs.
pub const fn groups(cols: usize) -> usize {
    cols.div_ceil(GROUP)
}

/// Bytes of the block scales of a record, padded.
pub const fn block_scales_len(groups: usize) -> usize {
    (groups * ROWS).next_multiple_of(64)
}

/// Where the weights of a quantized record begin.
pub const fn weights_offset(groups: usize) -> usize {
    ROW_SCALES_BYTES + block_scales_len(groups)
}

/// Bytes of a record, a multiple of 64.
pub const fn record_len(encoding: Encoding, cols: usize) -> usize {
    match encoding {
        Encoding::F32 => 4 * ROWS * cols,
        Encoding::F16 => (2 * ROWS * cols).next_multiple_of(64),
        Encoding::Q8 => weights_offset(groups(cols)) + groups(cols) * Q8_GROUP_BYTES,
        Encoding::Q4 => weights_offset(groups(cols)) + groups(cols) * Q4_GROUP_BYTES,
        Encoding::Q3 => weights_offset(groups(cols)) + groups(cols) * Q3_GROUP_BYTES,
    }
}

/// Place of the weight of (`lane`, `col`) among the weights of a q8 record.
pub const fn q8_index(lane: usize, col: usize) -> usize {
    col / 4 * (4 * ROWS) + lane * 4 + col % 4
}

/// Byte of (`lane`, `col`) among the weights of a q4 record, and whether it is the high nibble.
pub const fn q4_index(lane: usize, col: usize) -> (usize, bool) {
    (col / 8 * (4 * ROWS) + lane * 4 + col % 4, col % 8 >= 4)
}

/// Where the three bits of (`lane`, `col`) are among the weights of a q3 record: for each, the
/// lowest first, its byte and its place there.
pub const fn q3_bits(lane: usize, col: usize) -> [(usize, u32); 3] {
    let byte = col / GROUP * Q3_GROUP_BYTES + lane * 4 + col % 4;
    let (tile, place) = (col % GROUP / 8, if col % 8 < 4 { 0 } else { 4 });
    if tile < 3 {
        let byte = byte + tile * (4 * ROWS);
        [(byte, place), (byte, place + 1), (byte, place + 2)]
    } else {
        [(byte, place + 3), (byte + 4 * ROWS, place + 3), (byte + 8 * ROWS, place + 3)]
    }
}

/// The weight of (`lane`, `col`) among the weights of a q3 record, 0..=7.
pub const fn q3_value(weights: &[u8], lane: usize, col: usize) -> u8 {
    let [(a, i), (b, j), (c, k)] = q3_bits(lane, col);
    (weights[a] >> i & 1) | (weights[b] >> j & 1) << 1 | (weights[c] >> k & 1) << 2
}

/// The parts of a quantized record.
#[derive(Clone, Copy, Debug)]
pub struct QuantRecord<'a> {
    /// Sixteen f32.
    pub(crate) row_scales: &'a [u8; ROW_SCALES_BYTES],
    /// `[groups][16]`
    pub(crate) block_scales: &'a [[u8; ROWS]],
    pub(crate) weights: &'a [u8],
}

impl<'a> QuantRecord<'a> {
    /// A view of one record.
    ///
    /// # Panics
    /// If `bytes` is shorter than the scales of so many groups.
    #[inline(always)]
    pub fn new(bytes: &'a [u8], groups: usize) -> Self {
        let (head, weights) = bytes.split_at(weights_offset(groups));
        let (row_scales, block_scales) = head.split_first_chunk().expect("row scales");
        Self { row_scales, block_scales: &block_scales.as_chunks().0[..groups], weights }
    }

    /// Scale of a row.
    pub fn row_scale(&self, lane: usize) -> f32 {
        f32::from_le_bytes(self.row_scales.as_chunks().0[lane])
    }

    /// Block scales of a group, one byte per row: u8 in q8, i8 in q4 and q3.
    pub fn block_scales(&self, group: usize) -> &'a [u8; ROWS] {
        &self.block_scales[group]
    }

    /// All weights.
    pub fn weights(&self) -> &'a [u8] {
        self.weights
    }
}
