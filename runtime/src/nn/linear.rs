//! LayerNorm, quantization of activations, and the matrix product behind them.

use core::ops::Range;

use crate::format::TensorView;
use crate::kernels::{Columns, FloatLhs, Kernels, Lhs, QuantLhs};
use crate::nn::parting::Parting;
use crate::parallel::{Parallel, scatter, share};
use crate::quant::tile::{self, GROUP, ROWS};

/// LayerNorm's parameters.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'w> {
    pub(crate) weight: &'w [f32],
    pub(crate) bias: &'w [f32],
    pub(crate) eps: f32,
}

/// Activations in the form a matrix product takes, for some number of rows.
///
/// Rows have room for the widest input of the model.
pub(crate) struct LhsBuffers<'m> {
    /// Widest input.
    pub(crate) cols: usize,
    /// `[rows][cols]`
    pub(crate) float: &'m mut [f32],
    /// `[rows][groups(cols) * 32]`
    pub(crate) q: &'m mut [i8],
    /// `[rows][groups(cols)]`
    pub(crate) scales: &'m mut [f32],
    /// `[rows][groups(cols)]`
    pub(crate) sums: &'m mut [i32],
}

impl LhsBuffers<'_> {
    fn reborrow(&mut self) -> LhsBuffers<'_> {
        LhsBuffers {
            cols: self.cols,
            float: self.float,
            q: self.q,
            scales: self.scales,
            sums: self.sums,
        }
    }

    /// Room for `rows` rows of `cols` inputs each, packed without gaps, and the rest.
    fn split<'a>(self, rows: usize, cols: usize) -> (LhsBuffers<'a>, LhsBuffers<'a>)
    where
        Self: 'a,
    {
        let groups = tile::groups(cols);
        let (float, float_rest) = self.float.split_at_mut(rows * cols);
        let (q, q_rest) = self.q.split_at_mut(rows * groups * GROUP);
        let (scales, scales_rest) = self.scales.split_at_mut(rows * groups);
        let (sums, sums_rest) = self.sums.split_at_mut(rows * groups);
        (
            LhsBuffers { cols, float, q, scales, sums },
            LhsBuffers {
                cols: self.cols,
                float: float_rest,
                q: q_rest,
                scales: scales_rest,
                sums: sums_rest,
            },
        )
    }

    /// Fills the rows of these buffers (as split off) from `x`, `[rows][cols]`.
    fn prepare(&mut self, kernels: &Kernels, x: &[f32], norm: Option<Norm<'_>>, quant: bool) {
        let (cols, groups) = (self.cols, tile::groups(self.cols));
        for (t, x) in x.chunks_exact(cols).enumerate() {
            let float = &mut self.float[t * cols..(t + 1) * cols];
            let x = match norm {
                Some(norm) => {
                    kernels.layer_norm(x, norm.weight, norm.bias, norm.eps, float);
                    &*float
                }
                None => x,
            };
            if quant {
                let q = &mut self.q[t * groups * GROUP..(t + 1) * groups * GROUP];
                let range = t * groups..(t + 1) * groups;
                let (scales, sums) = (&mut self.scales[range.clone()], &mut self.sums[range]);
                kernels.quantize(x, GROUP, q, scales, sums);
            }
        }
    }

    /// The prepared rows; `x` is what they were prepared from.
    fn lhs<'a>(&'a self, x: &'a [f32], norm: bool, quant: bool) -> Lhs<'a> {
        let (m, cols) = (x.len() / self.cols, self.cols);
        if quant {
            let groups = tile::groups(cols);
            Lhs::Quant(QuantLhs { q: self.q, scales: self.scales, sums: self.sums, m, groups })
        } else if norm {
            Lhs::Float(FloatLhs { x: self.float, m, cols })
        } else {
            Lhs::Float(FloatLhs { x, m, cols })
        }
    }
}

/// Where a product goes, and what is changed together with it.
struct Target<'a> {
    /// `[m][rows rounded up to 16]`
    out: Columns<'a>,
    /// `[m][anything]`
    other: Option<Columns<'a>>,
}

impl Target<'_> {
    /// The first columns, and the others.
    fn split_at(self, width: usize) -> (Self, Self) {
        let (out, out_rest) = self.out.split_at(width);
        let (other, other_rest) = self.other.map(|all| all.split_at(width)).unzip();
        (Self { out, other }, Self { out: out_rest, other: other_rest })
    }

    /// The first rows, and the others.
    fn split_rows(self, rows: usize) -> (Self, Self) {
        let (out, out_rest) = self.out.split_rows(rows);
        let (other, other_rest) = self.other.map(|all| all.split_rows(rows)).unzip();
        (Self { out, other }, Self { out: out_rest, other: other_rest })
    }
}

/// A matrix product over the rows of a batch, split between threads by tokens where there are
/// many, else by output rows.
pub(crate) struct Linear<'a, 'w> {
    pub(crate) kernels: &'a Kernels,
    pub(crate) weight: TensorView<'w>,
    pub(crate) norm: Option<Norm<'w>>,
    /// Records of the matrix that are multiplied.
    blocks: Range<usize>,
}

impl<'a, 'w> Linear<'a, 'w> {
    pub(crate) fn new(
        kernels: &'a Kernels,
        weight: TensorView<'w>,
        norm: Option<Norm<'w>>,
    ) -> Self {
        let blocks = 0..tile::blocks(weight.entry.rows as usize);
        Self { kernels, weight, norm, blocks }
    }

    /// Only some of the outputs, and those that share a record with them.
    pub(crate) fn outputs(self, outputs: Range<usize>) -> Self {
        Self { blocks: outputs.start / ROWS..outputs.end.div_ceil(ROWS), ..self }
    }

    /// `out[t] = norm(x[t]) · Wᵀ` for the rows of `x`, then `finish(first, out, other)` for each
    /// row and the columns of each thread: `first` is the number of the first column, `out` the
    /// columns, `other` those of `other` as far as it has them.
    ///
    /// `x` is `[m][cols]`, `out` is `[m][rows rounded up to 16]`, `other` is `[m][anything]`. Columns
    /// of other records than those of [`Linear::outputs`] are left as they are.
    pub(crate) fn run(
        &self,
        par: &dyn Parallel,
        buffers: &mut LhsBuffers<'_>,
        x: &[f32],
        out: &mut [f32],
        other: Option<Columns<'_>>,
        finish: impl Fn(usize, &mut [f32], Option<&mut [f32]>) + Sync,
    ) {
        let m = x.len() / self.cols();
        let out = Columns::new(out, self.rows().next_multiple_of(ROWS));
        let (_, target) = Target { out, other }.split_at(self.blocks.start * ROWS);
        let (target, _) = target.split_at(self.blocks.len() * ROWS);
        // Weights that are not quantized are four or two times as many bytes: reading them for each
        // part anew took a third of the speed.
        let parts =
            Parting::of(self.kernels.isa()).parts(m, par.threads()).filter(|_| self.is_quantized());
        if let Some(parts) = parts {
            self.split_by_tokens(par, buffers, x, parts, target, &finish);
        } else if m == 1 {
            self.run_one_row(par, buffers, x, target, &finish);
        } else {
            self.split_by_output(par, buffers, x, target, &finish);
        }
    }

    fn rows(&self) -> usize {
        self.weight.entry.rows as usize
    }

    fn cols(&self) -> usize {
        self.weight.entry.cols as usize
    }

    fn is_quantized(&self) -> bool {
        self.weight.entry.encoding.is_quantized()
    }

    fn share_of_blocks(&self, par: &dyn Parallel, thread: usize) -> Range<usize> {
        let share = share(self.blocks.len(), par.threads(), thread);
        self.blocks.start + share.start..self.blocks.start + share.end
    }

    /// Fills the rows of these buffers from `x`.
    fn prepare(&self, buffers: &mut LhsBuffers<'_>, x: &[f32]) {
        buffers.prepare(self.kernels, x, self.norm, self.is_quantized());
    }

    /// The rows that were prepared from `x`.
    fn lhs<'l>(&self, buffers: &'l LhsBuffers<'_>, x: &'l [f32]) -> Lhs<'l> {
        buffers.lhs(x, self.norm.is_some(), self.is_quantized())
    }

    /// The product with some records of the matrix, and what is to be done with it.
    fn multiply(
        &self,
        lhs: &Lhs<'_>,
        blocks: Range<usize>,
        target: &mut Target<'_>,
        finish: &impl Fn(usize, &mut [f32], Option<&mut [f32]>),
    ) {
        let len = self.weight.record_len();
        let records = &self.weight.bytes[blocks.start * len..blocks.end * len];
        self.kernels.matmul(lhs, self.weight.entry.encoding, records, &mut target.out);
        for t in 0..target.out.rows() {
            let other = target.other.as_mut().map(|other| other.row_mut(t));
            finish(blocks.start * ROWS, target.out.row_mut(t), other);
        }
    }

    /// Each part takes its tokens through all weights: nobody waits for the activations of others,
    /// and they are still in the cache that the step before left them in.
    fn split_by_tokens(
        &self,
        par: &dyn Parallel,
        buffers: &mut LhsBuffers<'_>,
        x: &[f32],
        parts: usize,
        target: Target<'_>,
        finish: &(impl Fn(usize, &mut [f32], Option<&mut [f32]>) + Sync),
    ) {
        let (m, cols) = (x.len() / self.cols(), self.cols());
        let parting = Parting::of(self.kernels.isa());
        let mut rest = Some((buffers.reborrow(), target));
        let parts = (0..parts).map(|part| {
            let tokens = parting.tokens(m, parts, part);
            let (buffers, target) = rest.take().expect("put back below");
            let (buffers, buffers_rest) = buffers.split(tokens.len(), cols);
            let (target, target_rest) = target.split_rows(tokens.len());
            rest = Some((buffers_rest, target_rest));
            (buffers, &x[tokens.start * cols..tokens.end * cols], target)
        });
        scatter(par, parts, |(mut buffers, x, mut target)| {
            self.prepare(&mut buffers, x);
            let lhs = self.lhs(&buffers, x);
            self.multiply(&lhs, self.blocks.clone(), &mut target, finish);
        });
    }

    /// Each thread prepares the one row for itself, cheaper than to wait for another, and
    /// multiplies it with its share of the matrix.
    fn run_one_row(
        &self,
        par: &dyn Parallel,
        buffers: &mut LhsBuffers<'_>,
        x: &[f32],
        target: Target<'_>,
        finish: &(impl Fn(usize, &mut [f32], Option<&mut [f32]>) + Sync),
    ) {
        let mut rest = Some((buffers.reborrow(), target));
        let parts = (0..par.threads()).map(|thread| {
            let blocks = self.share_of_blocks(par, thread);
            let (buffers, target) = rest.take().expect("put back below");
            let (buffers, buffers_rest) = buffers.split(1, self.cols());
            let (target, target_rest) = target.split_at(blocks.len() * ROWS);
            rest = Some((buffers_rest, target_rest));
            (buffers, blocks, target)
        });
        scatter(par, parts, |(mut buffers, blocks, mut target)| {
            if blocks.is_empty() {
                return;
            }
            self.prepare(&mut buffers, x);
            let lhs = self.lhs(&buffers, x);
            self.multiply(&lhs, blocks, &mut target, finish);
        });
    }

    /// Each thread prepares some rows, then multiplies all of them with its share of the matrix.
    fn split_by_output(
        &self,
        par: &dyn Parallel,
        buffers: &mut LhsBuffers<'_>,
        x: &[f32],
        target: Target<'_>,
        finish: &(impl Fn(usize, &mut [f32], Option<&mut [f32]>) + Sync),
    ) {
        let (m, cols) = (x.len() / self.cols(), self.cols());
        let (mut all, _) = buffers.reborrow().split(m, cols);
        if self.is_quantized() || self.norm.is_some() {
            let mut rest = Some(all.reborrow());
            let parts = (0..par.threads()).map(|thread| {
                let tokens = share(m, par.threads(), thread);
                let (mine, others) = rest.take().expect("put back below").split(tokens.len(), cols);
                rest = Some(others);
                (mine, &x[tokens.start * cols..tokens.end * cols])
            });
            scatter(par, parts, |(mut mine, x)| self.prepare(&mut mine, x));
        }
        let lhs = self.lhs(&all, x);
        let mut rest = Some(target);
        let parts = (0..par.threads()).map(|thread| {
            let blocks = self.share_of_blocks(par, thread);
            let (mine, others) = rest.take().expect("put back below").split_at(blocks.len() * ROWS);
            rest = Some(others);
            (blocks, mine)
        });
        scatter(par, parts, |(blocks, mut target)| {
            if !blocks.is_empty() {
                self.multiply(&lhs, blocks, &mut target, finish);
            }
        });
    }
}
