//! One matrix: fitted to what its output should be, then rounded.

use pocketgpt_runtime::format::Encoding;
use pocketgpt_runtime::quant::tile::{ROWS, record_len};
use rayon::prelude::*;

use super::Step;
use super::dense::Linear;
use super::factor::Factor;
use super::moments::Moments;
use super::rounding;
use crate::pack::Loss;

/// What is added to the second moments' diagonal, as a part of its mean.
const DAMP: f64 = 0.01;
/// Blocks of rows between which work can be stopped.
const BLOCKS: usize = 128;

/// A matrix in the form of the file.
#[derive(Debug)]
pub(crate) struct Fitted {
    /// The file's bytes.
    pub(crate) records: Vec<u8>,
    /// What the runtime will make of them, with a bias that suits it.
    pub(crate) linear: Linear,
    /// Against the checkpoint's weights.
    pub(crate) loss: Loss,
}

/// Rounds `source`; with outputs among the moments its weights are first moved to where the
/// output comes nearest to what it should be, and the bias takes the mean of what is left.
pub(crate) fn fit<E>(
    source: &Linear,
    encoding: Encoding,
    moments: &Moments,
    step: Step<'_, E>,
) -> Result<Fitted, E> {
    let (n, stride) = (source.cols, moments.stride);
    let moved = moments.outputs > 0;
    let factor = Factor::new(&moments.covariance(), n, stride, DAMP);
    let feedback = factor.feedback();
    let (tokens, mean) = (moments.tokens.max(1) as f64, moments.mean());
    let mean_y: Vec<f64> = moments.y.iter().map(|y| y / tokens).collect();
    let len = record_len(encoding, n);
    let mut records = vec![0; source.floats().len() / (ROWS * n) * len];
    let encode = |block: usize, record: &mut [u8]| {
        let mut weights =
            source.floats()[block * ROWS * n..][..ROWS * n].as_chunks::<ROWS>().0.to_vec();
        if moved {
            let mut change = vec![[0.0; ROWS]; n];
            for lane in 0..ROWS.min(source.rows - block * ROWS) {
                let row = block * ROWS + lane;
                for (k, change) in change.iter_mut().enumerate() {
                    change[lane] = moments.ya[row * stride + k] / tokens - mean_y[row] * mean[k];
                }
            }
            factor.solve(&mut change);
            for (weights, change) in weights.iter_mut().zip(&change) {
                (0..ROWS).for_each(|lane| weights[lane] += change[lane] as f32);
            }
        }
        rounding::encode(encoding, &weights, &feedback, record);
    };
    for (part, records) in records.chunks_mut(BLOCKS * len).enumerate() {
        let blocks = records.par_chunks_exact_mut(len).enumerate();
        blocks.for_each(|(block, record)| encode(part * BLOCKS + block, record));
        step()?;
    }
    let shape = (source.rows, n);
    let mut linear = Linear::from_records(encoding, &records, shape, source.bias.clone());
    let loss = loss(source, &linear);
    if moments.biased {
        set_bias(&mut linear, source, &mean, &mean_y);
    }
    Ok(Fitted { records, linear, loss })
}

/// `bias = bias + mean y + (W − Q) mean a`
fn set_bias(stored: &mut Linear, source: &Linear, mean: &[f64], mean_y: &[f64]) {
    let n = source.cols;
    let bias: Vec<f32> = (0..source.rows)
        .into_par_iter()
        .map_init(
            || (vec![0.0; n], vec![0.0; n]),
            |(w, q), row| {
                source.row(row, w);
                stored.row(row, q);
                let off: f64 = (w.iter().zip(&*q).zip(mean))
                    .map(|((w, q), mean)| (f64::from(*w) - f64::from(*q)) * mean)
                    .sum();
                (f64::from(source.bias[row]) + mean_y.get(row).unwrap_or(&0.0) + off) as f32
            },
        )
        .collect();
    stored.bias = bias;
}

/// Squared differences, block by block in order.
pub(crate) fn loss(source: &Linear, stored: &Linear) -> Loss {
    let block = ROWS * source.cols;
    let parts: Vec<Loss> = (source.floats().par_chunks(block))
        .zip(stored.floats().par_chunks(block))
        .map(|(a, b)| {
            let mut loss = Loss::default();
            for (a, b) in a.iter().zip(b) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                loss.signal += a * a;
                loss.noise += (a - b) * (a - b);
            }
            loss
        })
        .collect();
    let mut total = Loss::default();
    parts.into_iter().for_each(|loss| total += loss);
    total
}
