//! A checkpoint's bytes as f32: f16 and bf16 are exact in it.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::source::SourceDtype;
use pocketgpt_runtime::quant::tile::ROWS;

/// One number.
pub fn number_at(dtype: SourceDtype, bytes: &[u8], index: usize) -> f32 {
    let at = index * dtype.width();
    match dtype {
        SourceDtype::F32 => {
            f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        }
        SourceDtype::F16 => f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
        SourceDtype::Bf16 => bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
    }
}

/// Numbers that stand one after another; `out` says how many.
pub fn read_numbers(dtype: SourceDtype, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * dtype.width());
    match dtype {
        SourceDtype::F32 => {
            for (value, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*b);
            }
        }
        SourceDtype::F16 => {
            for (value, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f16::from_le_bytes(*b).to_f32();
            }
        }
        SourceDtype::Bf16 => {
            for (value, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = bf16::from_le_bytes(*b).to_f32();
            }
        }
    }
}

/// How many numbers are infinite or NaN.
pub fn count_not_finite(dtype: SourceDtype, bytes: &[u8]) -> usize {
    // The exponent's bits, all set, in the number's own width: no conversion.
    let exponent: u16 = match dtype {
        SourceDtype::F32 | SourceDtype::Bf16 => 0x7f80,
        SourceDtype::F16 => 0x7c00,
    };
    let bad = |high: [u8; 2]| usize::from(u16::from_le_bytes(high) & exponent == exponent);
    bytes
        .par_chunks(1 << 20)
        .map(|part| match dtype {
            SourceDtype::F32 => {
                part.as_chunks::<4>().0.iter().map(|b| bad([b[2], b[3]])).sum::<usize>()
            }
            _ => part.as_chunks::<2>().0.iter().map(|b| bad(*b)).sum(),
        })
        .sum()
}

/// A matrix of the checkpoint, in memory: output rows and inputs, whichever comes first there.
#[derive(Clone, Copy, Debug)]
pub struct SourceMatrix<'a> {
    /// The tensor's bytes.
    pub bytes: &'a [u8],
    /// How they are to be read.
    pub dtype: SourceDtype,
    /// Whether they are `[cols, rows]` (Conv1D) instead of `[rows, cols]`.
    pub transposed: bool,
    /// Output rows.
    pub rows: usize,
    /// Inputs per row.
    pub cols: usize,
}

impl SourceMatrix<'_> {
    /// Reads the 16 output rows of a block into `out`, `[16][cols]`; rows behind the last one
    /// are zero. Gives how many rows there are.
    pub fn read_block(&self, block: usize, out: &mut [f32]) -> usize {
        assert_eq!(out.len(), ROWS * self.cols);
        let first = block * ROWS;
        let used = (self.rows - first).min(ROWS);
        let width = self.dtype.width();
        out[used * self.cols..].fill(0.0);
        if !self.transposed {
            let bytes = &self.bytes[first * self.cols * width..][..used * self.cols * width];
            read_numbers(self.dtype, bytes, &mut out[..used * self.cols]);
            return used;
        }
        let mut lanes = [0.0; ROWS];
        for col in 0..self.cols {
            let bytes = &self.bytes[(col * self.rows + first) * width..][..used * width];
            read_numbers(self.dtype, bytes, &mut lanes[..used]);
            for (lane, value) in lanes[..used].iter().enumerate() {
                out[lane * self.cols + col] = *value;
            }
        }
        used
    }
}
