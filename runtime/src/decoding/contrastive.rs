//! Which candidate of a contrastive search wins (Su et al. 2022): probable, and unlike everything
//! in the text.

use super::DecodingError;
use super::candidate::{Candidate, largest};
use super::options::ContrastiveOptions;
use crate::format::Encoding;
use crate::kernels::{Columns, FloatLhs, Kernels, Lhs};
use crate::math::{sqrt, sum_tree};
use crate::memory::{Arena, Line};
use crate::parallel::{Parallel, scatter, share};
use crate::quant::tile::ROWS;

/// A candidate and what it is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Contrast {
    /// Its id.
    pub token: u32,
    /// Its probability.
    pub probability: f32,
    /// The largest cosine between its hidden state and one of the text.
    pub similarity: f32,
    /// `(1 − α) · probability − α · similarity`; the largest wins.
    pub score: f32,
}

/// The hidden states of a text and of the candidates.
#[derive(Debug)]
pub(crate) struct ContrastiveScorer<'m> {
    alpha: f32,
    n_embd: usize,
    /// Tokens of the text.
    len: usize,
    /// Unit vectors of the text's tokens, packed as an f32 matrix is:
    /// `[positions / 16][n_embd][16]`.
    text: &'m mut [f32],
    /// Unit vectors of the candidates, `[top_k][n_embd]`.
    states: &'m mut [f32],
    /// Cosines, `[top_k][positions, rounded up to 16]`.
    cosines: &'m mut [f32],
    top: &'m mut [Candidate],
    contrasts: &'m mut [Contrast],
    /// Candidates at hand.
    count: usize,
}

impl<'m> ContrastiveScorer<'m> {
    /// Lines that [`ContrastiveScorer::cut`] takes, for texts of at most `positions` tokens.
    ///
    /// # Errors
    /// If the vectors of a text are more than half of what this machine can address.
    pub(crate) fn lines(
        top_k: usize,
        n_embd: usize,
        positions: usize,
    ) -> Result<usize, DecodingError> {
        let padded = positions.next_multiple_of(ROWS);
        // The only length that may not fit 32 bits.
        let needed = size_of::<f32>() as u64 * padded as u64 * n_embd as u64;
        let given = isize::MAX as usize;
        if needed > given as u64 {
            let needed = usize::try_from(needed).unwrap_or(usize::MAX);
            return Err(DecodingError::Memory { needed, given });
        }
        Ok(lines::<f32>(padded * n_embd)
            + lines::<f32>(top_k * n_embd)
            + lines::<f32>(top_k * padded)
            + lines::<Candidate>(top_k)
            + lines::<Contrast>(top_k))
    }

    pub(crate) fn cut(
        options: ContrastiveOptions,
        n_embd: usize,
        positions: usize,
        arena: &mut Arena<'m>,
    ) -> Self {
        let padded = positions.next_multiple_of(ROWS);
        let top_k = options.top_k;
        Self {
            alpha: options.penalty_alpha,
            n_embd,
            len: 0,
            text: arena.take(padded * n_embd),
            states: arena.take(top_k * n_embd),
            cosines: arena.take(top_k * padded),
            top: arena.take(top_k),
            contrasts: arena.take(top_k),
            count: 0,
        }
    }

    /// Forgets the text.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds the hidden state of the text's next token, as it is behind `ln_f`.
    pub(crate) fn push_text(&mut self, hidden: &[f32]) {
        let inverse = inverse_norm(hidden);
        let tile = &mut self.text[self.len / ROWS * (ROWS * self.n_embd)..];
        for (lanes, &x) in tile.chunks_exact_mut(ROWS).zip(hidden) {
            lanes[self.len % ROWS] = x * inverse;
        }
        self.len += 1;
    }

    /// Takes the candidates from the logits of what may follow, which become scratch.
    pub(crate) fn choose_candidates(&mut self, kernels: &Kernels, scores: &mut [f32]) {
        let found = largest(scores, self.top);
        let total = kernels.softmax_unnormalized(scores);
        self.count = 0;
        for candidate in &self.top[..found] {
            // Tokens that may not follow are no candidates.
            if candidate.value > f32::NEG_INFINITY {
                self.contrasts[self.count] = Contrast {
                    token: candidate.token,
                    probability: scores[candidate.token as usize] / total,
                    ..Contrast::default()
                };
                self.count += 1;
            }
        }
    }

    /// The candidates; complete after [`ContrastiveScorer::choose`].
    pub(crate) fn candidates(&self) -> &[Contrast] {
        &self.contrasts[..self.count]
    }

    /// Sets the hidden state that a candidate has after the text.
    pub(crate) fn set_state(&mut self, candidate: usize, hidden: &[f32]) {
        let inverse = inverse_norm(hidden);
        let state = &mut self.states[candidate * self.n_embd..][..self.n_embd];
        state.iter_mut().zip(hidden).for_each(|(out, &x)| *out = x * inverse);
    }

    /// Scores the candidates and returns the first of the best. It becomes part of the text.
    pub(crate) fn choose(&mut self, kernels: &Kernels, par: &dyn Parallel) -> usize {
        let width = self.len.next_multiple_of(ROWS);
        self.compare(kernels, par, width);
        let mut best = 0;
        for (i, cosines) in self.cosines.chunks_exact(width).take(self.count).enumerate() {
            let similarity = super::candidate::max(&cosines[..self.len]);
            let contrast = &mut self.contrasts[i];
            contrast.similarity = similarity;
            contrast.score = (1.0 - self.alpha) * contrast.probability - self.alpha * similarity;
            if contrast.score > self.contrasts[best].score {
                best = i;
            }
        }
        let tile = &mut self.text[self.len / ROWS * (ROWS * self.n_embd)..];
        let state = &self.states[best * self.n_embd..][..self.n_embd];
        for (lanes, &x) in tile.chunks_exact_mut(ROWS).zip(state) {
            lanes[self.len % ROWS] = x;
        }
        self.len += 1;
        best
    }

    /// Fills the cosines: a matrix product, with the text's positions as output rows.
    fn compare(&mut self, kernels: &Kernels, par: &dyn Parallel, width: usize) {
        let (n_embd, count) = (self.n_embd, self.count);
        let x = &self.states[..count * n_embd];
        let lhs = Lhs::Float(FloatLhs { x, m: count, cols: n_embd });
        let text = &self.text[..width * n_embd];
        let mut columns = Some(Columns::new(&mut self.cosines[..count * width], width));
        let threads = par.threads();
        let parts = (0..threads).map(|thread| {
            let tiles = share(width / ROWS, threads, thread);
            let (mine, rest) = columns.take().expect("put back below").split_at(tiles.len() * ROWS);
            columns = Some(rest);
            (&text[tiles.start * ROWS * n_embd..tiles.end * ROWS * n_embd], mine)
        });
        scatter(par, parts, |(tiles, mut out)| {
            if !tiles.is_empty() {
                kernels.matmul(&lhs, Encoding::F32, bytemuck::cast_slice(tiles), &mut out);
            }
        });
    }
}

/// What makes a vector's length 1; 0 for one that has none.
fn inverse_norm(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for chunk in x.chunks(16) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    let norm = sqrt(sum_tree(lanes));
    if norm > 0.0 { 1.0 / norm } else { 0.0 }
}

/// Lines of an array.
fn lines<T>(len: usize) -> usize {
    Line::count_for(len * size_of::<T>())
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::config::Gpt2Config;
    use crate::parallel::Serial;

    /// Of the largest model that opens they are more than 32 bits can count.
    #[test]
    fn largest_texts_are_planned_or_refused() {
        let (n_embd, n_ctx) = (Gpt2Config::MAX_EMBD as usize, Gpt2Config::MAX_CTX as usize);
        let lines = ContrastiveScorer::lines(64, n_embd, n_ctx + 1);
        assert_eq!(lines.is_ok(), usize::BITS == 64, "{lines:?}");
    }

    fn numbers(seed: u32, n: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Straight from the paper's formula, in f64.
    fn naive(alpha: f64, text: &[Vec<f32>], p: f64, state: &[f32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let cosine = |row: &Vec<f32>| dot(row, state) / (dot(row, row) * dot(state, state)).sqrt();
        let most = text.iter().map(cosine).fold(f64::MIN, f64::max);
        (1.0 - alpha) * p - alpha * most
    }

    #[test]
    fn scores_follow_the_formula() {
        let (n_embd, top_k) = (48, 3);
        let options = ContrastiveOptions { penalty_alpha: 0.6, top_k };
        let mut memory = vec![Line::ZERO; ContrastiveScorer::lines(top_k, n_embd, 40).unwrap()];
        let mut arena = Arena::new(&mut memory);
        let mut scorer = ContrastiveScorer::cut(options, n_embd, 40, &mut arena);
        let kernels = Kernels::best();
        let mut text: Vec<Vec<f32>> = (0..15).map(|i| numbers(i, n_embd)).collect();
        text.iter().for_each(|row| scorer.push_text(row));
        for step in 0..20u32 {
            let logits = numbers(1000 + step, 30);
            scorer.choose_candidates(&kernels, &mut logits.clone());
            let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            let states: Vec<_> = (0..3).map(|i| numbers(100 * step + i + 7, n_embd)).collect();
            for (i, state) in states.iter().enumerate() {
                scorer.set_state(i, state);
            }
            let best = scorer.choose(&kernels, &Serial);
            for (contrast, state) in scorer.candidates().iter().zip(&states) {
                let p = f64::from(logits[contrast.token as usize]).exp() / total;
                assert!((f64::from(contrast.probability) - p).abs() < 1e-6);
                let score = naive(0.6, &text, p, state);
                assert!((f64::from(contrast.score) - score).abs() < 1e-6);
                assert!(contrast.score <= scorer.candidates()[best].score);
            }
            text.push(states[best].clone());
        }
    }
}
