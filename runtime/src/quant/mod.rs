//! How weights are stored: groups of 32 inputs, 16 output rows in lanes.
//!
//! A quantized weight of row `r` in group `g` is
//!
//! ```text
//! q8:  w = q · b(r, g) · s(r)          q in −127..=127 (i8), b in 0..=255 (u8), s: f32
//! q4:  w = (n − 8) · b(r, g) · s(r)    n in 0..=15 (nibble), b in −127..=127 (i8), s: f32
//! q3:  w = (n − 4) · b(r, g) · s(r)    n in 0..=7 (3 bits), b in −127..=127 (i8), s: f32
//! ```
//!
//! `s` is the row's scale, `b` the block scale: an integer, so a block of 32 weights spends
//! 8 bits on it. A 4-bit or 3-bit block's scale may be negative, since the grids −8..=7 and −4..=3 are
//! lopsided.

mod int3;
mod int4;
mod int8;
pub mod tile;

use crate::format::Encoding;
use tile::{GROUP, ROW_SCALES_BYTES, ROWS};

pub use int3::{pack_q3_block, unpack_q3};
pub use int4::{pack_q4_block, unpack_q4};
pub use int8::{pack_q8_block, unpack_q8};

/// Writes the scales of a quantized record; gives its weights, which are zero bytes yet. Lengths are
/// as in [`pack_q8_block`], and so are panics.
fn write_head<'a>(
    encoding: Encoding,
    values: &[i8],
    block_scales: &[u8],
    row_scales: &[f32; ROWS],
    out: &'a mut [u8],
) -> &'a mut [u8] {
    let groups = block_scales.len() / ROWS;
    let cols = groups * GROUP;
    assert_eq!(block_scales.len(), ROWS * groups);
    assert_eq!(values.len(), ROWS * cols);
    assert_eq!(out.len(), tile::record_len(encoding, cols));
    out.fill(0);
    let (head, weights) = out.split_at_mut(tile::weights_offset(groups));
    for lane in 0..ROWS {
        head[4 * lane..4 * lane + 4].copy_from_slice(&row_scales[lane].to_le_bytes());
        for g in 0..groups {
            head[ROW_SCALES_BYTES + g * ROWS + lane] = block_scales[lane * groups + g];
        }
    }
    weights
}
