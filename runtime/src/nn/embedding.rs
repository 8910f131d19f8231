//! `wte[token] + wpe[position]`.

use crate::format::{Encoding, Packing, TensorView};
use crate::kernels::scalar::f16_to_f32;
use crate::quant::tile::{self, GROUP, QuantRecord, ROWS};
use crate::quant::{unpack_q3, unpack_q4};

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
    let quantized = || QuantRecord::new(record, tile::groups(cols));
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
        Encoding::Q8 => q8_row(&quantized(), lane, out),
        Encoding::Q4 => {
            let record = quantized();
            out.iter_mut().enumerate().for_each(|(col, out)| *out = unpack_q4(&record, lane, col));
        }
        Encoding::Q3 => {
            let record = quantized();
            out.iter_mut().enumerate().for_each(|(col, out)| *out = unpack_q3(&record, lane, col));
        }
    }
}

/// What [`crate::quant::unpack_q8`] gives for each column: a table of tokens is most often in q8.
fn q8_row(record: &QuantRecord<'_>, lane: usize, out: &mut [f32]) {
    let row_scale = record.row_scale(lane);
    let tiles = record.weights().as_chunks::<{ 4 * ROWS }>().0;
    let groups = out.chunks_mut(GROUP).zip(tiles.chunks_exact(GROUP / 4));
    for (g, (out, tiles)) in groups.enumerate() {
        let block_scale = f32::from(record.block_scales(g)[lane]);
        for (four, tile) in out.chunks_mut(4).zip(tiles) {
            for (x, &q) in four.iter_mut().zip(&tile[4 * lane..4 * lane + 4]) {
                *x = f32::from(q as i8) * block_scale * row_scale;
            }
        }
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
