//! The factorization by which an error in one weight is made good by the weights behind it.
//!
//! A row's loss is `eᵀ H e`, with `e` the error of its weights and `H` the second moments of the
//! inputs. With `H = Mᵀ D M`, M unit lower triangular, it is `Σ Dⱼ (eⱼ + Σ_{k<j} Mⱼₖ eₖ)²`: each term
//! is as small as rounding allows if weight j is rounded from `wⱼ + Σ_{k<j} Mⱼₖ eₖ`. That is GPTQ
//! (Frantar et al. 2022) without inverting H, as LDLQ (Chee et al. 2023) writes it.

use rayon::prelude::*;

/// Rows that are eliminated before the others are updated.
const PANEL: usize = 32;

/// `H = Mᵀ D M`.
#[derive(Debug)]
pub(crate) struct Factor {
    n: usize,
    /// `[n][n]`, row j has k < j.
    m: Vec<f64>,
    d: Vec<f64>,
}

impl Factor {
    /// Factors `h`, `[n][stride]` with k ≤ i, after adding `damp` times the mean of its diagonal.
    pub(crate) fn new(h: &[f64], n: usize, stride: usize, damp: f64) -> Self {
        let trace: f64 = (0..n).map(|i| h[i * stride + i]).sum();
        // Inputs that are all zero leave nothing to weigh: every weight counts the same then.
        let mean = trace / n as f64;
        let ridge = if mean > 0.0 { damp * mean } else { 1.0 };
        let mut m = vec![0.0; n * n];
        m.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
            row[..=i].copy_from_slice(&h[i * stride..][..=i]);
            row[i] += ridge;
        });
        let mut d = vec![0.0; n];
        let mut end = n;
        while end > 0 {
            let first = end.saturating_sub(PANEL);
            for j in (first..end).rev() {
                let (above, row) = m.split_at_mut(j * n);
                let row = &mut row[..n];
                // Rounding may leave less than the ridge that was added, but never that little.
                let pivot = row[j].max(ridge * 1e-3);
                d[j] = pivot;
                row[j..].fill(0.0);
                row[..j].iter_mut().for_each(|x| *x /= pivot);
                for (i, other) in above.chunks_exact_mut(n).enumerate().skip(first) {
                    subtract(&mut other[..=i], &row[..=i], pivot * row[i]);
                }
            }
            let (above, panel) = m.split_at_mut(first * n);
            above.par_chunks_mut(n).enumerate().for_each(|(i, other)| {
                let other = &mut other[..=i];
                for (four, d) in
                    panel[..(end - first) * n].chunks(4 * n).zip(d[first..end].chunks(4))
                {
                    if let ([d0, d1, d2, d3], 4) = (d, four.len() / n) {
                        let rows = [0, 1, 2, 3].map(|j| &four[j * n..j * n + i + 1]);
                        subtract_four(other, rows, [d0, d1, d2, d3], i);
                    } else {
                        for (row, d) in four.chunks_exact(n).zip(d) {
                            subtract(other, &row[..=i], d * row[i]);
                        }
                    }
                }
            });
            end = first;
        }
        Self { n, m, d }
    }

    /// Row j's factors of the errors before it, and what row j's own error counts, in f32.
    pub(crate) fn feedback(&self) -> Feedback {
        let m = self.m.par_iter().map(|x| *x as f32).collect();
        Feedback { n: self.n, m, d: self.d.iter().map(|x| *x as f32).collect() }
    }

    /// Solves `x H = g` in place for sixteen rows in lanes, `[n][16]`.
    pub(crate) fn solve(&self, x: &mut [[f64; 16]]) {
        let n = self.n;
        for j in (0..n).rev() {
            let (before, own) = x.split_at_mut(j);
            for (x, m) in before.iter_mut().zip(&self.m[j * n..]) {
                (0..16).for_each(|lane| x[lane] -= m * own[0][lane]);
            }
        }
        for (x, d) in x.iter_mut().zip(&self.d) {
            x.iter_mut().for_each(|x| *x /= d);
        }
        for j in 0..n {
            let (before, own) = x.split_at_mut(j);
            for (x, m) in before.iter().zip(&self.m[j * n..]) {
                (0..16).for_each(|lane| own[0][lane] -= m * x[lane]);
            }
        }
    }
}

fn subtract(out: &mut [f64], row: &[f64], factor: f64) {
    for (out, x) in out.iter_mut().zip(row) {
        *out -= factor * x;
    }
}

fn subtract_four(out: &mut [f64], rows: [&[f64]; 4], d: [&f64; 4], i: usize) {
    let [a, b, c, e] = [0, 1, 2, 3].map(|j| d[j] * rows[j][i]);
    let [ra, rb, rc, re] = rows;
    let (ra, rb, rc, re) = (&ra[..out.len()], &rb[..out.len()], &rc[..out.len()], &re[..out.len()]);
    for k in 0..out.len() {
        out[k] = out[k] - a * ra[k] - b * rb[k] - c * rc[k] - e * re[k];
    }
}

/// What [`super::rounding`] needs of a factor.
#[derive(Debug)]
pub(crate) struct Feedback {
    pub(crate) n: usize,
    /// `[n][n]`
    pub(crate) m: Vec<f32>,
    /// `[n]`
    pub(crate) d: Vec<f32>,
}
