//! 3-bit records.

use super::tile::{GROUP, QuantRecord, ROWS, q3_bits, q3_value};
use super::write_head;
use crate::format::Encoding;

/// Stored integer of the value zero.
pub const ZERO_POINT: u8 = 4;

/// Writes a q3 record from quantized rows.
///
/// `values`: `[16][groups * 32]`, each in −4..=3; `block_scales`: `[16][groups]`;
/// `row_scales`: `[16]`. Rows and inputs behind the last one are to be zero.
///
/// # Panics
/// If a length does not fit the others.
pub fn pack_q3_block(values: &[i8], block_scales: &[i8], row_scales: &[f32; ROWS], out: &mut [u8]) {
    let weights =
        write_head(Encoding::Q3, values, bytemuck::cast_slice(block_scales), row_scales, out);
    let cols = values.len() / ROWS;
    for lane in 0..ROWS {
        for col in 0..cols {
            let value = (values[lane * cols + col] + ZERO_POINT as i8) as u8;
            for (bit, (byte, place)) in q3_bits(lane, col).into_iter().enumerate() {
                weights[byte] |= (value >> bit & 1) << place;
            }
        }
    }
}

/// Reads one weight of a q3 record: `(n − 4) · b` is exact, so there is one rounding.
pub fn unpack_q3(record: &QuantRecord<'_>, lane: usize, col: usize) -> f32 {
    let n = q3_value(record.weights(), lane, col);
    let b = record.block_scales(col / GROUP)[lane] as i8;
    (f32::from(n) - f32::from(ZERO_POINT)) * f32::from(b) * record.row_scale(lane)
}
