//! 4-bit records.

use super::tile::{GROUP, QuantRecord, ROWS, q4_index};
use super::write_head;
use crate::format::Encoding;

/// Stored nibble of the value zero.
pub const ZERO_POINT: u8 = 8;

/// Writes a q4 record from quantized rows.
///
/// `values`: `[16][groups * 32]`, each in −8..=7; `block_scales`: `[16][groups]`;
/// `row_scales`: `[16]`. Rows and inputs behind the last one are to be zero.
///
/// # Panics
/// If a length does not fit the others.
pub fn pack_q4_block(values: &[i8], block_scales: &[i8], row_scales: &[f32; ROWS], out: &mut [u8]) {
    let weights =
        write_head(Encoding::Q4, values, bytemuck::cast_slice(block_scales), row_scales, out);
    let cols = values.len() / ROWS;
    for lane in 0..ROWS {
        for col in 0..cols {
            let nibble = (values[lane * cols + col] + ZERO_POINT as i8) as u8 & 15;
            let (byte, high) = q4_index(lane, col);
            weights[byte] |= if high { nibble << 4 } else { nibble };
        }
    }
}

/// Reads one weight of a q4 record: `(n − 8) · b` is exact, so there is one rounding.
pub fn unpack_q4(record: &QuantRecord<'_>, lane: usize, col: usize) -> f32 {
    let (byte, high) = q4_index(lane, col);
    let byte = record.weights()[byte];
    let nibble = if high { byte >> 4 } else { byte & 15 };
    let b = record.block_scales(col / GROUP)[lane] as i8;
    (f32::from(nibble) - f32::from(ZERO_POINT)) * f32::from(b) * record.row_scale(lane)
}
