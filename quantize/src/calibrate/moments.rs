//! Sums over tokens that a layer's weights are fitted with.

use bytemuck::{cast_slice, cast_slice_mut};
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::quant::tile::ROWS;
use rayon::prelude::*;

use super::dense::multiply;

/// Sums over the inputs `a` of a matrix and over what its output lacks, `y`.
///
/// Products of some thousand tokens are summed in f32 by the kernels, the sums of those in f64.
#[derive(Debug)]
pub(crate) struct Moments {
    pub(crate) inputs: usize,
    /// `inputs` rounded up to whole records.
    pub(crate) stride: usize,
    pub(crate) outputs: usize,
    pub(crate) tokens: usize,
    /// Whether a bias can take the mean of what the output lacks.
    pub(crate) biased: bool,
    /// `Σ aᵢ aₖ`, `[stride][stride]`; only k ≤ i is kept.
    pub(crate) aa: Vec<f64>,
    /// `Σ yᵣ aₖ`, `[outputs][stride]`
    pub(crate) ya: Vec<f64>,
    /// `Σ a`, `[stride]`
    pub(crate) a: Vec<f64>,
    /// `Σ y`, `[outputs]`
    pub(crate) y: Vec<f64>,
}

impl Moments {
    /// Of no tokens; `outputs` is 0 where nothing is to be fitted.
    pub(crate) fn new(inputs: usize, outputs: usize) -> Self {
        let stride = inputs.next_multiple_of(ROWS);
        Self {
            inputs,
            stride,
            outputs,
            tokens: 0,
            biased: outputs > 0,
            aa: vec![0.0; stride * stride],
            ya: vec![0.0; outputs * stride],
            a: vec![0.0; stride],
            y: vec![0.0; outputs],
        }
    }

    /// Adds tokens: `a` is `[tokens][inputs]`, `y` `[tokens][outputs]`.
    pub(crate) fn add(&mut self, kernels: &Kernels, a: &[f32], y: &[f32]) {
        let (tokens, stride) = (a.len() / self.inputs, self.stride);
        self.tokens += tokens;
        let records = blocked(a, self.inputs, stride, tokens);
        let records: &[u8] = cast_slice(&records);
        let record = 4 * ROWS * tokens;
        // Row block i needs the columns up to its own only: the rest is symmetric.
        self.aa.par_chunks_mut(ROWS * stride).enumerate().for_each(|(i, sums)| {
            let lhs = columns(a, self.inputs, i * ROWS);
            let width = (i + 1) * ROWS;
            let mut out = vec![0.0; ROWS * width];
            multiply(kernels, &lhs, tokens, &records[..(i + 1) * record], &mut out, width);
            for (sums, out) in sums.chunks_exact_mut(stride).zip(out.chunks_exact(width)) {
                add(&mut sums[..width], out);
            }
        });
        self.ya.par_chunks_mut(ROWS * stride).enumerate().for_each(|(i, sums)| {
            let mut lhs = columns(y, self.outputs, i * ROWS);
            lhs.truncate(sums.len() / stride * tokens);
            let mut out = vec![0.0; sums.len()];
            multiply(kernels, &lhs, tokens, records, &mut out, stride);
            add(sums, &out);
        });
        for row in a.chunks_exact(self.inputs) {
            add(&mut self.a[..self.inputs], row);
        }
        if self.outputs > 0 {
            y.chunks_exact(self.outputs).for_each(|row| add(&mut self.y, row));
        }
    }

    /// Of no tokens, for a matrix with a bias that is not moved.
    pub(crate) fn unmoved(inputs: usize) -> Self {
        Self { biased: true, ..Self::new(inputs, 0) }
    }

    /// Second moments per token around the mean if there is a bias, otherwise around zero;
    /// `[stride][stride]`, k ≤ i.
    pub(crate) fn covariance(&self) -> Vec<f64> {
        let n = self.tokens.max(1) as f64;
        let mut out = self.aa.clone();
        out.par_chunks_mut(self.stride).enumerate().for_each(|(i, row)| {
            let mean = self.a[i] / n;
            for (k, value) in row.iter_mut().enumerate() {
                let shift = if self.biased { mean * (self.a[k] / n) } else { 0.0 };
                *value = *value / n - shift;
            }
        });
        out
    }

    /// Mean of the inputs, `[inputs]`.
    pub(crate) fn mean(&self) -> Vec<f64> {
        let n = self.tokens.max(1) as f64;
        self.a[..self.inputs].iter().map(|sum| sum / n).collect()
    }
}

fn add(sums: &mut [f64], values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += f64::from(*value);
    }
}

/// `[tokens][cols]` as records of sixteen columns, `[stride / 16][tokens][16]`.
fn blocked(a: &[f32], cols: usize, stride: usize, tokens: usize) -> Vec<Line> {
    let mut lines = vec![Line::ZERO; stride / ROWS * tokens];
    cast_slice_mut::<Line, f32>(&mut lines)
        .par_chunks_exact_mut(ROWS * tokens)
        .enumerate()
        .for_each(|(block, out)| {
            let first = block * ROWS;
            let used = ROWS.min(cols - first);
            for (out, row) in out.chunks_exact_mut(ROWS).zip(a.chunks_exact(cols)) {
                out[..used].copy_from_slice(&row[first..first + used]);
            }
        });
    lines
}

/// Sixteen columns from `first` on as rows, `[16][tokens]`; zeros behind the last one.
fn columns(a: &[f32], cols: usize, first: usize) -> Vec<f32> {
    let tokens = a.len() / cols;
    let mut out = vec![0.0; ROWS * tokens];
    let end = cols.min(first + ROWS);
    for (t, row) in a.chunks_exact(cols).enumerate() {
        for (lane, value) in row[first..end].iter().enumerate() {
            out[lane * tokens + t] = *value;
        }
    }
    out
}
