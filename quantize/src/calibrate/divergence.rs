//! How far two models' predictions are from each other.

use std::ops::Range;

use pocketgpt_runtime::kernels::Kernels;
use rayon::prelude::*;

use super::dense::Linear;
use crate::report::ln;

/// As many as go through a head together.
const POSITIONS: usize = 32;

/// Mean over positions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Divergence {
    /// `Σ p ln (p / q)`, in nats.
    pub(crate) kl: f64,
    /// Share of positions whose most probable token is the same.
    pub(crate) top1: f64,
    pub(crate) positions: usize,
}

/// Compares predictions at the positions `rows` of two final hidden states, `[tokens][n]`.
pub(crate) fn divergence(
    kernels: &Kernels,
    (reference, reference_head): (&[f32], &Linear),
    (hidden, head): (&[f32], &Linear),
    rows: Range<usize>,
) -> Divergence {
    let n = head.cols;
    let mut sum = Sum::default();
    for part in parts(rows) {
        let part = part.start * n..part.end * n;
        let p = reference_head.apply(kernels, &reference[part.clone()]);
        sum.add(kernels, &p, &head.apply(kernels, &hidden[part]), head.rows);
    }
    sum.mean()
}

/// Positions whose logits are made together.
pub(crate) fn parts(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    rows.clone().step_by(POSITIONS).map(move |first| first..rows.end.min(first + POSITIONS))
}

/// Over positions so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum(Divergence);

impl Sum {
    /// Adds the positions of some logits, `[positions][vocab]`.
    pub(crate) fn add(&mut self, kernels: &Kernels, p: &[f32], q: &[f32], vocab: usize) {
        let each: Vec<(f64, bool)> = p
            .par_chunks_exact(vocab)
            .zip(q.par_chunks_exact(vocab))
            .map(|(p, q)| one(kernels, p, q))
            .collect();
        for (kl, same) in each {
            self.0.kl += kl;
            self.0.top1 += f64::from(u8::from(same));
            self.0.positions += 1;
        }
    }

    pub(crate) fn mean(self) -> Divergence {
        let Self(sum) = self;
        let count = sum.positions.max(1) as f64;
        Divergence { kl: sum.kl / count, top1: sum.top1 / count, ..sum }
    }
}

fn one(kernels: &Kernels, p: &[f32], q: &[f32]) -> (f64, bool) {
    let (best_p, best_q) = (top(p), top(q));
    let (max_p, max_q) = (p[best_p], q[best_q]);
    // exp and the logarithm are our own, since bytes of files depend on what is computed here.
    let (mut weights, mut other) = (p.to_vec(), q.to_vec());
    let sum_p = f64::from(kernels.softmax_unnormalized(&mut weights));
    let sum_q = f64::from(kernels.softmax_unnormalized(&mut other));
    let shift = ln(sum_p) - ln(sum_q);
    let total: f64 = (p.iter().zip(q).zip(&weights))
        .map(|((p, q), weight)| {
            let (p, q) = (f64::from(*p) - f64::from(max_p), f64::from(*q) - f64::from(max_q));
            f64::from(*weight) * (p - q - shift)
        })
        .sum();
    (total / sum_p, best_p == best_q)
}

fn top(x: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in x.iter().enumerate() {
        if *value > x[best] {
            best = i;
        }
    }
    best
}
