//! One matrix: fitted to what its output should be, then rounded.

use pocketgpt_runtime::format::Encoding;
use pocketgpt_runtime::quant::tile::{ROWS, record_len};
use rayon::prelude::*;

use super::Step;
use super::dense::Linear;
use super::factor::{Factor, Feedback};
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
    let factor = factor(moments);
    fit_with(source, encoding, moments, (&factor, &factor.feedback()), step)
}

/// The same in several encodings.
pub(crate) fn fit_each<E>(
    source: &Linear,
    encodings: &[Encoding],
    moments: &Moments,
    step: Step<'_, E>,
) -> Result<Vec<Fitted>, E> {
    let factor = factor(moments);
    let feedback = factor.feedback();
    let one = |encoding: &Encoding| {
        fit_with(source, *encoding, moments, (&factor, &feedback), &mut *step)
    };
    encodings.iter().map(one).collect()
}

fn factor(moments: &Moments) -> Factor {
    Factor::new(&moments.covariance(), moments.inputs, moments.stride, DAMP)
}

fn fit_with<E>(
    source: &Linear,
    encoding: Encoding,
    moments: &Moments,
    (factor, feedback): (&Factor, &Feedback),
    step: Step<'_, E>,
) -> Result<Fitted, E> {
    let (n, stride) = (source.cols, moments.stride);
    let moved = moments.outputs > 0;
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
        rounding::encode(encoding, &weights, feedback, record);
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use pocketgpt_runtime::kernels::Kernels;

    use super::super::factor::tests::noise;
    use super::*;

    /// `x` of `x A = b`, by Gauss and Jordan with pivots.
    fn solved(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
        let n = b.len();
        for i in 0..n {
            let pivot = (i..n).max_by(|p, q| a[*p][i].abs().total_cmp(&a[*q][i].abs())).unwrap();
            a.swap(i, pivot);
            b.swap(i, pivot);
            for other in (0..n).filter(|other| *other != i) {
                let factor = a[other][i] / a[i][i];
                (0..n).for_each(|k| a[other][k] -= factor * a[i][k]);
                b[other] -= factor * b[i];
            }
        }
        (0..n).map(|i| b[i] / a[i][i]).collect()
    }

    /// q8 is near enough to see what the weights were moved to: least squares by the textbook, from
    /// the tokens themselves.
    #[test]
    fn weights_are_moved_by_least_squares() {
        let (n, outputs, tokens) = (40, 20, 300);
        let numbers =
            |seed, count| -> Vec<f32> { noise(seed, count).iter().map(|x| *x as f32).collect() };
        let mut a = numbers(1, tokens * n);
        // Inputs that know of each other, around a mean.
        for row in a.chunks_exact_mut(n) {
            (1..n).for_each(|k| row[k] += 0.6 * row[k - 1] + 0.2);
        }
        let y = numbers(2, tokens * outputs);
        let (weights, bias) = (numbers(3, outputs * n), numbers(4, outputs));
        let source = Linear::new(&weights, n, bias.clone());
        let mut moments = Moments::new(n, outputs);
        // In two parts, as chunks of a text are.
        let (first, second) = (200 * n, 200 * outputs);
        moments.add(&Kernels::best(), &a[..first], &y[..second]);
        moments.add(&Kernels::best(), &a[first..], &y[second..]);
        let step = &mut || Ok::<(), Infallible>(());
        let Ok(fitted) = fit(&source, Encoding::Q8, &moments, step);

        let mean = |of: &dyn Fn(usize) -> f64| (0..tokens).map(of).sum::<f64>() / tokens as f64;
        let input = |t: usize, k: usize| f64::from(a[t * n + k]);
        let mean_a: Vec<f64> = (0..n).map(|k| mean(&|t| input(t, k))).collect();
        let mut h: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                let of =
                    |k: usize| mean(&|t| (input(t, i) - mean_a[i]) * (input(t, k) - mean_a[k]));
                (0..n).map(of).collect()
            })
            .collect();
        let ridge = DAMP * (0..n).map(|i| h[i][i]).sum::<f64>() / n as f64;
        (0..n).for_each(|i| h[i][i] += ridge);
        let mut row = vec![0.0; n];
        for r in 0..outputs {
            let lacks = |t: usize| f64::from(y[t * outputs + r]);
            let mean_y = mean(&lacks);
            let cross: Vec<f64> = (0..n)
                .map(|k| mean(&|t| (lacks(t) - mean_y) * (input(t, k) - mean_a[k])))
                .collect();
            let change = solved(h.clone(), cross);
            fitted.linear.row(r, &mut row);
            let mut off = 0.0;
            for k in 0..n {
                let expected = f64::from(weights[r * n + k]) + change[k];
                // A step of the grid, and what is fed from others.
                assert!((f64::from(row[k]) - expected).abs() < 0.03, "row {r}, input {k}");
                off += (f64::from(weights[r * n + k]) - f64::from(row[k])) * mean_a[k];
            }
            let expected = f64::from(bias[r]) + mean_y + off;
            assert!((f64::from(fitted.linear.bias[r]) - expected).abs() < 1e-5, "bias {r}");
            // That would not hold for weights that stayed.
            assert!(change.iter().any(|x| x.abs() > 0.06), "row {r}");
        }
    }

    #[test]
    fn work_can_be_stopped_between_rows() {
        let source = Linear::new(&vec![0.5; 3 * BLOCKS * ROWS * 4], 4, vec![]);
        let mut steps = 0;
        let step = &mut || {
            steps += 1;
            if steps < 2 { Ok(()) } else { Err("stop") }
        };
        assert_eq!(fit(&source, Encoding::Q4, &Moments::new(4, 0), step).unwrap_err(), "stop");
        assert_eq!(steps, 2);
    }
}
