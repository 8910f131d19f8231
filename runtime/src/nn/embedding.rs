//! `wte[token] + wpe[position]`.

use crate::format::{Encoding, Packing, TensorView};
use crate::kernels::scalar::f16_to_f32;
use crate::quant::tile::{self, QuantRecord, ROWS};
use crate::quant::{unpack_q4, unpack_q8};

/// Row `row` of a matrix or table: `out` is `[cols]`.
pub(crate) fn row(tensor: &TensorView<'_>, row: usize, out: &mut [f32]) {
    let cols = tensor.entry.cols as usize;
    debug_assert_eq!(out.len(), cols);
    if tensor.entry.packing == Packing::Rows {
        match tensor.entry.encoding {
            Encoding::F16 => {
                let halves = &tensor.bytes.as_chunks::<2>().0[row * cols..];
                for (out, &bytes) in out.iter_mut().zip(halves) {
                    *out = f16_to_f32(u16::from_le_bytes(bytes));
                }
            }
            _ => out.copy_from_slice(&tensor.f32s()[row * cols..][..cols]),
        }
        return;
    }
    let len = tensor.record_len();
    let record = &tensor.bytes[row / ROWS * len..][..len];
    let lane = row % ROWS;
    let quantized = |unpack: fn(&QuantRecord<'_>, usize, usize) -> f32, out: &mut [f32]| {
        let record = QuantRecord::new(record, tile::groups(cols));
        out.iter_mut().enumerate().for_each(|(col, out)| *out = unpack(&record, lane, col));
    };
    match tensor.entry.encoding {
        Encoding::F32 => {
            let numbers: &[f32] = bytemuck::cast_slice(record);
            let lanes = numbers.iter().skip(lane).step_by(ROWS);
            out.iter_mut().zip(lanes).for_each(|(out, &x)| *out = x);
        }
        Encoding::F16 => {
            let numbers: &[u16] = bytemuck::cast_slice(record);
            let lanes = numbers.iter().skip(lane).step_by(ROWS);
            out.iter_mut().zip(lanes).for_each(|(out, &x)| *out = f16_to_f32(x));
        }
        Encoding::Q8 => quantized(unpack_q8, out),
        Encoding::Q4 => quantized(unpack_q4, out),
    }
}

/// The residual stream of a token before the first block: `x` is `[n_embd]`, `scratch` as well.
pub(crate) fn embed(
    wte: &TensorView<'_>,
    wpe: &TensorView<'_>,
    token: usize,
    position: usize,
    x: &mut [f32],
    scratch: &mut [f32],
) {
    row(wte, token, x);
    row(wpe, position, scratch);
    x.iter_mut().zip(scratch).for_each(|(x, p)| *x += *p);
}
