//! Matrices of f32, multiplied by the runtime's kernels, which give the same bits on every machine.

use bytemuck::{cast_slice, cast_slice_mut};
use pocketgpt_runtime::format::Encoding;
use pocketgpt_runtime::kernels::{Columns, FloatLhs, Kernels, Lhs};
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::quant::tile::{QuantRecord, ROWS, blocks, groups, record_len};
use pocketgpt_runtime::quant::{unpack_q3, unpack_q4, unpack_q8};
use rayon::prelude::*;

/// Tokens that a thread takes at a time: enough for a record to be used well while it is in cache.
const TOKENS: usize = 32;

/// A matrix `[rows][cols]` as kernels read it, and the bias behind its product.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// `[blocks(rows)][cols][16]` f32
    records: Vec<Line>,
    /// `[rows]`; empty for none.
    pub(crate) bias: Vec<f32>,
}

impl Linear {
    /// Packs `weights`, `[rows][cols]`.
    pub(crate) fn new(weights: &[f32], cols: usize, bias: Vec<f32>) -> Self {
        let rows = weights.len() / cols;
        let mut linear = Self::zero(rows, cols, bias);
        let record = ROWS * cols;
        cast_slice_mut::<Line, f32>(&mut linear.records)
            .par_chunks_exact_mut(record)
            .zip(weights.par_chunks(record))
            .for_each(|(record, rows)| {
                for (lane, row) in rows.chunks_exact(cols).enumerate() {
                    for (lanes, value) in record.as_chunks_mut::<ROWS>().0.iter_mut().zip(row) {
                        lanes[lane] = *value;
                    }
                }
            });
        linear
    }

    /// What the runtime makes of records of a file.
    pub(crate) fn from_records(
        encoding: Encoding,
        bytes: &[u8],
        (rows, cols): (usize, usize),
        bias: Vec<f32>,
    ) -> Self {
        let mut linear = Self::zero(rows, cols, bias);
        let len = record_len(encoding, cols);
        cast_slice_mut::<Line, f32>(&mut linear.records)
            .par_chunks_exact_mut(ROWS * cols)
            .zip(bytes.par_chunks_exact(len))
            .for_each(|(out, bytes)| unpack(encoding, bytes, out.as_chunks_mut::<ROWS>().0));
        linear
    }

    fn zero(rows: usize, cols: usize, bias: Vec<f32>) -> Self {
        let lines = blocks(rows) * record_len(Encoding::F32, cols) / Line::BYTES;
        Self { rows, cols, records: vec![Line::ZERO; lines], bias }
    }

    /// One output row.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let record = &self.floats()[row / ROWS * ROWS * self.cols..][..ROWS * self.cols];
        for (value, lanes) in out.iter_mut().zip(record.as_chunks::<ROWS>().0) {
            *value = lanes[row % ROWS];
        }
    }

    /// The records' numbers, `[blocks][cols][16]`.
    pub(crate) fn floats(&self) -> &[f32] {
        cast_slice(&self.records)
    }

    /// `x · Wᵀ + bias`: `[tokens][cols]` to `[tokens][rows]`.
    pub(crate) fn apply(&self, kernels: &Kernels, x: &[f32]) -> Vec<f32> {
        self.apply_with(kernels, x, &self.bias)
    }

    /// `x · Wᵀ`
    pub(crate) fn apply_unbiased(&self, kernels: &Kernels, x: &[f32]) -> Vec<f32> {
        self.apply_with(kernels, x, &[])
    }

    fn apply_with(&self, kernels: &Kernels, x: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.cols * self.rows];
        let stride = self.rows.next_multiple_of(ROWS);
        out.par_chunks_mut(TOKENS * self.rows).zip(x.par_chunks(TOKENS * self.cols)).for_each_init(
            Vec::new,
            |wide, (out, x)| {
                let records = cast_slice(&self.records);
                if stride == self.rows {
                    multiply(kernels, x, self.cols, records, out, stride);
                } else {
                    wide.resize(x.len() / self.cols * stride, 0.0);
                    multiply(kernels, x, self.cols, records, wide, stride);
                    let rows = out.chunks_exact_mut(self.rows).zip(wide.chunks_exact(stride));
                    rows.for_each(|(out, wide)| out.copy_from_slice(&wide[..self.rows]));
                }
                for out in out.chunks_exact_mut(self.rows) {
                    for (out, bias) in out.iter_mut().zip(bias) {
                        *out += *bias;
                    }
                }
            },
        );
        out
    }
}

/// `out[t][r] = Σ x[t][k] w[r][k]` for f32 records; `x` is `[m][cols]`.
pub(crate) fn multiply(
    kernels: &Kernels,
    x: &[f32],
    cols: usize,
    records: &[u8],
    out: &mut [f32],
    stride: usize,
) {
    let lhs = Lhs::Float(FloatLhs { x, m: x.len() / cols, cols });
    kernels.matmul(&lhs, Encoding::F32, records, &mut Columns::new(out, stride));
}

fn unpack(encoding: Encoding, bytes: &[u8], out: &mut [[f32; ROWS]]) {
    let each = |out: &mut [[f32; ROWS]], weight: &dyn Fn(usize, usize) -> f32| {
        for (col, lanes) in out.iter_mut().enumerate() {
            for (lane, value) in lanes.iter_mut().enumerate() {
                *value = weight(lane, col);
            }
        }
    };
    let float = |at: usize| f32::from_le_bytes(std::array::from_fn(|i| bytes[4 * at + i]));
    let half = |at: usize| half::f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32();
    let record = |cols| QuantRecord::new(bytes, groups(cols));
    match encoding {
        Encoding::F32 => each(out, &|lane, col| float(ROWS * col + lane)),
        Encoding::F16 => each(out, &|lane, col| half(ROWS * col + lane)),
        Encoding::Q8 => {
            let record = record(out.len());
            each(out, &|lane, col| unpack_q8(&record, lane, col));
        }
        Encoding::Q4 => {
            let record = record(out.len());
            each(out, &|lane, col| unpack_q4(&record, lane, col));
        }
        Encoding::Q3 => {
            let record = record(out.len());
            each(out, &|lane, col| unpack_q3(&record, lane, col));
        }
    }
}
