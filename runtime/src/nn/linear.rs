//! LayerNorm, quantization of activations, and the matrix product behind them.

use crate::format::{Encoding, TensorView};
use crate::kernels::{Columns, FloatLhs, Kernels, Lhs, QuantLhs};
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

/// A matrix product over the rows of a batch, split between threads by output rows.
pub(crate) struct Linear<'a, 'w> {
    pub(crate) kernels: &'a Kernels,
    pub(crate) weight: TensorView<'w>,
    pub(crate) norm: Option<Norm<'w>>,
}

impl Linear<'_, '_> {
    /// `out[t] = norm(x[t]) · Wᵀ` for the rows of `x`, then `finish(first, out, other)` for each
    /// row and the columns of each thread: `first` is the number of the first column, `out` the
    /// columns, `other` those of `other` as far as it has them.
    ///
    /// `x` is `[m][cols]`, `out` is `[m][rows rounded up to 16]`, `other` is `[m][anything]`.
    pub(crate) fn run(
        &self,
        par: &dyn Parallel,
        buffers: &mut LhsBuffers<'_>,
        x: &[f32],
        out: &mut [f32],
        other: Option<Columns<'_>>,
        finish: impl Fn(usize, &mut [f32], Option<&mut [f32]>) + Sync,
    ) {
        let (rows, cols) = (self.weight.entry.rows as usize, self.weight.entry.cols as usize);
        let quant = matches!(self.weight.entry.encoding, Encoding::Q8 | Encoding::Q4);
        let m = x.len() / cols;
        let threads = par.threads();
        let mut out = Some(Columns::new(out, rows.next_multiple_of(ROWS)));
        let mut other = other;
        let mut columns = |thread| {
            let blocks = share(tile::blocks(rows), threads, thread);
            let width = blocks.len() * ROWS;
            let (mine, rest) = out.take().expect("put back below").split_at(width);
            out = Some(rest);
            let other = other.take().map(|all| all.split_at(width)).map(|(mine, rest)| {
                other = Some(rest);
                mine
            });
            (blocks, mine, other)
        };
        let multiply = |lhs: &Lhs<'_>,
                        blocks: core::ops::Range<usize>,
                        out: &mut Columns<'_>,
                        other: &mut Option<Columns<'_>>| {
            let len = self.weight.record_len();
            let records = &self.weight.bytes[blocks.start * len..blocks.end * len];
            self.kernels.matmul(lhs, self.weight.entry.encoding, records, out);
            for t in 0..m {
                let other = other.as_mut().map(|other| other.row_mut(t));
                finish(blocks.start * ROWS, out.row_mut(t), other);
            }
        };

        if m == 1 {
            // Each thread prepares the one row for itself: cheaper than to wait for another.
            let mut rest = Some(buffers.reborrow());
            let parts = (0..threads).map(|thread| {
                let (mine, others) = rest.take().expect("put back below").split(1, cols);
                rest = Some(others);
                (mine, columns(thread))
            });
            scatter(par, parts, |(mut mine, (blocks, mut out, mut other))| {
                if blocks.is_empty() {
                    return;
                }
                mine.prepare(self.kernels, x, self.norm, quant);
                let lhs = mine.lhs(x, self.norm.is_some(), quant);
                multiply(&lhs, blocks, &mut out, &mut other);
            });
            return;
        }

        let (mut all, _) = buffers.reborrow().split(m, cols);
        if quant || self.norm.is_some() {
            let mut rest = Some(all.reborrow());
            let parts = (0..threads).map(|thread| {
                let tokens = share(m, threads, thread);
                let (mine, others) = rest.take().expect("put back below").split(tokens.len(), cols);
                rest = Some(others);
                (mine, &x[tokens.start * cols..tokens.end * cols])
            });
            scatter(par, parts, |(mut mine, x)| {
                mine.prepare(self.kernels, x, self.norm, quant);
            });
        }
        let lhs = all.lhs(x, self.norm.is_some(), quant);
        let parts = (0..threads).map(columns);
        scatter(par, parts, |(blocks, mut out, mut other)| {
            if !blocks.is_empty() {
                multiply(&lhs, blocks, &mut out, &mut other);
            }
        });
    }
}
