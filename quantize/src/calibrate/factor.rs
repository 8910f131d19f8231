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
        let d = self.d.iter().map(|x| *x as f32).collect();
        Feedback { n: self.n, m, d }
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Numbers between −1 and 1 that look random.
    pub(crate) fn noise(seed: u64, count: usize) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
            })
            .collect()
    }

    /// Second moments of correlated inputs.
    pub(crate) fn moments(n: usize) -> Vec<f64> {
        let samples = 3 * n;
        let raw = noise(7, samples * n);
        let x =
            |s: usize, i: usize| raw[s * n + i] + 0.7 * raw[s * n + (i + 1) % n] + 0.5 * raw[s * n];
        let mut h = vec![0.0; n * n];
        for i in 0..n {
            for k in 0..n {
                h[i * n + k] =
                    (0..samples).map(|s| x(s, i) * x(s, k)).sum::<f64>() / samples as f64;
            }
        }
        h
    }

    #[test]
    fn factors_multiply_to_the_matrix() {
        for n in [1, 5, 32, 33, 70, 100] {
            let h = moments(n);
            let factor = Factor::new(&h, n, n, 0.01);
            let ridge = 0.01 * (0..n).map(|i| h[i * n + i]).sum::<f64>() / n as f64;
            let m = |j: usize, k: usize| if j == k { 1.0 } else { factor.m[j * n + k] };
            for i in 0..n {
                assert!(factor.m[i * n + i..(i + 1) * n].iter().all(|x| *x == 0.0));
                for k in 0..=i {
                    let product: f64 = (i..n).map(|j| m(j, i) * factor.d[j] * m(j, k)).sum();
                    let expected = h[i * n + k] + if i == k { ridge } else { 0.0 };
                    assert!((product - expected).abs() < 1e-9, "n {n}, {i}, {k}");
                }
            }
        }
    }

    #[test]
    fn solving_undoes_the_product() {
        let n = 70;
        let h = moments(n);
        let factor = Factor::new(&h, n, n, 0.01);
        let ridge = 0.01 * (0..n).map(|i| h[i * n + i]).sum::<f64>() / n as f64;
        let x: Vec<[f64; 16]> =
            noise(3, 16 * n).chunks_exact(16).map(|lanes| lanes.try_into().unwrap()).collect();
        let mut g = vec![[0.0; 16]; n];
        for k in 0..n {
            for i in 0..n {
                let h = h[i * n + k] + if i == k { ridge } else { 0.0 };
                (0..16).for_each(|lane| g[k][lane] += x[i][lane] * h);
            }
        }
        factor.solve(&mut g);
        for (found, expected) in g.iter().zip(&x) {
            (0..16).for_each(|lane| assert!((found[lane] - expected[lane]).abs() < 1e-9));
        }
    }

    #[test]
    fn dead_inputs_leave_finite_numbers() {
        let n = 40;
        let mut h = moments(n);
        for dead in [0, 17, 39] {
            for i in 0..n {
                h[i * n + dead] = 0.0;
                h[dead * n + i] = 0.0;
            }
        }
        for h in [h, vec![0.0; n * n]] {
            let feedback = Factor::new(&h, n, n, 0.01).feedback();
            assert!(feedback.m.iter().chain(&feedback.d).all(|x| x.is_finite()));
            assert!(feedback.d.iter().all(|d| *d > 0.0));
            assert!(feedback.m[17 * n..18 * n].iter().all(|m| *m == 0.0));
        }
    }
}
