//! 8-bit records.

use super::tile::{GROUP, QuantRecord, ROWS, q8_index};
use super::write_head;
use crate::format::Encoding;

/// Writes a q8 record from quantized rows.
///
/// `values`: `[16][groups * 32]`, each in −127..=127; `block_scales`: `[16][groups]`;
/// `row_scales`: `[16]`. Rows and inputs behind the last one are to be zero.
///
/// # Panics
/// If a length does not fit the others.
pub fn pack_q8_block(values: &[i8], block_scales: &[u8], row_scales: &[f32; ROWS], out: &mut [u8]) {
    let weights = write_head(Encoding::Q8, values, block_scales, row_scales, out);
    let cols = values.len() / ROWS;
    for lane in 0..ROWS {
        for col in 0..cols {
            weights[q8_index(lane, col)] = values[lane * cols + col] as u8;
        }
    }
}

/// Reads one weight of a q8 record: `q · b` is exact, so there is one rounding.
pub fn unpack_q8(record: &QuantRecord<'_>, lane: usize, col: usize) -> f32 {
    let q = record.weights()[q8_index(lane, col)] as i8;
    let b = record.block_scales(col / GROUP)[lane];
    f32::from(q) * f32::from(b) * record.row_scale(lane)
}
