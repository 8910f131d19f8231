//! From logits to the next token: greedy or sampled, in the caller's memory.
//!
//! Options have the names and meaning of Hugging Face's generation config, applied in the same
//! order: repetition penalty, temperature, top-k, top-p, min-p. Everything is computed in a fixed
//! order, so that a seed gives the same text on every instruction set and thread count.

use core::cmp::Ordering;
use core::fmt;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::kernels::Kernels;

/// How the distribution is reshaped before a token is drawn. The default changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Logits are divided by it; above 0.
    pub temperature: f32,
    /// Only this many most probable tokens stay (and those equal to the last); 0 keeps all.
    pub top_k: u32,
    /// The smallest set of most probable tokens whose probabilities reach this stays (Holtzman et
    /// al. 2020); in (0, 1], 1 keeps all.
    pub top_p: f32,
    /// Tokens less probable than this times the most probable go; in [0, 1], 0 keeps all.
    pub min_p: f32,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// The most probable token; the lowest id where several are.
    Greedy,
    /// Drawn from the reshaped distribution.
    Sample(SamplingOptions),
}

/// Choosing a token is impossible.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SamplingError {
    /// An option is outside its range.
    Option {
        /// Its name.
        name: &'static str,
        /// What was asked for.
        value: f32,
        /// What is possible, in words.
        range: &'static str,
    },
    /// The scratch memory is for a smaller vocabulary.
    Scratch {
        /// Elements needed.
        needed: usize,
        /// Elements given.
        given: usize,
    },
    /// A logit is infinite or not a number: the weights are damaged or overflow.
    NotFinite {
        /// The first such token.
        token: u32,
    },
}

impl fmt::Display for SamplingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Option { name, value, range } => {
                write!(f, "{name} is {value}, it must be {range}")
            }
            Self::Scratch { needed, given } => {
                write!(f, "the sampler's memory is for {given} tokens, {needed} are needed")
            }
            Self::NotFinite { token } => write!(
                f,
                "the logit of token {token} is not a finite number: the weights are damaged or overflow"
            ),
        }
    }
}

impl core::error::Error for SamplingError {}

impl SamplingOptions {
    /// # Errors
    /// The first option that is outside its range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |ok, name, value, range| {
            if ok { Ok(()) } else { Err(SamplingError::Option { name, value, range }) }
        };
        let Self { temperature, top_p, min_p, .. } = *self;
        check(temperature > 0.0 && temperature.is_finite(), "temperature", temperature, "above 0")?;
        check(top_p > 0.0 && top_p <= 1.0, "top_p", top_p, "above 0 and at most 1")?;
        check((0.0..=1.0).contains(&min_p), "min_p", min_p, "0 to 1")
    }
}

/// Repetition penalties accepted: far beyond them logits overflow.
const PENALTIES: core::ops::RangeInclusive<f32> = 0.01..=100.0;

/// A token that may be chosen: an element of the sampler's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Candidate {
    /// Its logit, or its probability.
    pub value: f32,
    /// Its id.
    pub token: u32,
}

/// Most probable first, the lower id where two are equal.
fn by_value(a: &Candidate, b: &Candidate) -> Ordering {
    b.value.total_cmp(&a.value).then(a.token.cmp(&b.token))
}

/// Chooses tokens. Memory is the caller's.
///
/// The generator is xoshiro256++ (Blackman and Vigna 2019), seeded with SplitMix64 as its authors
/// recommend; a draw takes its upper 53 bits.
#[derive(Debug)]
pub struct Sampler<'m> {
    strategy: Strategy,
    repetition_penalty: f32,
    rng: Xoshiro256PlusPlus,
    candidates: &'m mut [Candidate],
    values: &'m mut [f32],
}

impl<'m> Sampler<'m> {
    /// A sampler. `repetition_penalty` (Keskar et al. 2019) divides positive and multiplies
    /// negative logits of tokens that are in the text already; 1 changes nothing. `candidates` and
    /// `values` have an element for each token of the vocabulary.
    ///
    /// # Errors
    /// If an option is outside its range.
    pub fn new(
        strategy: Strategy,
        repetition_penalty: f32,
        seed: u64,
        candidates: &'m mut [Candidate],
        values: &'m mut [f32],
    ) -> Result<Self, SamplingError> {
        if let Strategy::Sample(options) = &strategy {
            options.validate()?;
        }
        if !PENALTIES.contains(&repetition_penalty) {
            return Err(SamplingError::Option {
                name: "repetition_penalty",
                value: repetition_penalty,
                range: "0.01 to 100",
            });
        }
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Ok(Self { strategy, repetition_penalty, rng, candidates, values })
    }

    /// The token that follows `history`, given its logits `[vocab_size]`.
    ///
    /// # Errors
    /// If a logit is not finite, or the memory is for a smaller vocabulary.
    pub fn next(
        &mut self,
        kernels: &Kernels,
        logits: &[f32],
        history: &[u32],
    ) -> Result<u32, SamplingError> {
        let given = self.candidates.len().min(self.values.len());
        if logits.is_empty() || given < logits.len() {
            return Err(SamplingError::Scratch { needed: logits.len().max(1), given });
        }
        let values = &mut self.values[..logits.len()];
        values.copy_from_slice(logits);
        penalize(values, logits, history, self.repetition_penalty);
        if let Some(token) = values.iter().position(|x| !x.is_finite()) {
            return Err(SamplingError::NotFinite { token: token as u32 });
        }
        let Strategy::Sample(options) = self.strategy else {
            return Ok(argmax(values));
        };
        // The largest becomes 0 first, so that a low temperature cannot overflow.
        let max = values[argmax(values) as usize];
        values.iter_mut().for_each(|x| *x = (*x - max) / options.temperature);
        let kept = self.keep_top_k(logits.len(), options.top_k as usize);
        let kept = self.probabilities(kernels, kept);
        let kept = self.keep_top_p(kept, options.top_p);
        let kept = self.keep_min_p(kept, options.min_p);
        Ok(self.draw(kept))
    }

    /// Fills the first candidates with the `k` most probable of the first `n` values (all if `k`
    /// is 0), and returns how many there are.
    fn keep_top_k(&mut self, n: usize, k: usize) -> usize {
        let candidates = &mut self.candidates[..n];
        for (token, (candidate, &value)) in candidates.iter_mut().zip(&*self.values).enumerate() {
            *candidate = Candidate { value, token: token as u32 };
        }
        if k == 0 || k >= n {
            return n;
        }
        // As in transformers, those equal to the last one stay.
        let last = candidates.select_nth_unstable_by(k - 1, by_value).1.value;
        let mut kept = k;
        for i in k..n {
            if candidates[i].value == last {
                candidates.swap(kept, i);
                kept += 1;
            }
        }
        candidates[..kept].sort_unstable_by(by_value);
        kept
    }

    /// Turns the logits of the first `n` candidates into probabilities.
    fn probabilities(&mut self, kernels: &Kernels, n: usize) -> usize {
        let values = &mut self.values[..n];
        for (value, candidate) in values.iter_mut().zip(&*self.candidates) {
            *value = candidate.value;
        }
        let normalize = 1.0 / kernels.softmax_unnormalized(values);
        for (candidate, value) in self.candidates.iter_mut().zip(values) {
            candidate.value = *value * normalize;
        }
        n
    }

    /// Drops the least probable candidates as long as together they stay within `1 - top_p`.
    fn keep_top_p(&mut self, n: usize, top_p: f32) -> usize {
        if top_p >= 1.0 {
            return n;
        }
        let allowed = 1.0 - f64::from(top_p);
        // Those below their share of what may go, go in any case: no need to sort them.
        let share = allowed / n as f64;
        let (kept, mut dropped) = self.partition(n, |p| f64::from(p) > share);
        let candidates = &mut self.candidates[..kept];
        candidates.sort_unstable_by(by_value);
        let mut kept = kept;
        while kept > 1 {
            dropped += f64::from(candidates[kept - 1].value);
            if dropped > allowed {
                break;
            }
            kept -= 1;
        }
        kept.max(1)
    }

    fn keep_min_p(&mut self, n: usize, min_p: f32) -> usize {
        if min_p <= 0.0 {
            return n;
        }
        let most = self.candidates[..n].iter().fold(0.0f32, |most, c| most.max(c.value));
        self.partition(n, |p| p >= min_p * most).0
    }

    /// Moves the candidates to keep to the front, in order; returns their number and the sum of
    /// the others. At least one is kept.
    fn partition(&mut self, n: usize, keep: impl Fn(f32) -> bool) -> (usize, f64) {
        let (mut kept, mut dropped) = (0, 0.0);
        for i in 0..n {
            let candidate = self.candidates[i];
            if keep(candidate.value) {
                self.candidates[kept] = candidate;
                kept += 1;
            } else {
                dropped += f64::from(candidate.value);
            }
        }
        (kept.max(1), dropped)
    }

    /// Draws one of the first `n` candidates.
    fn draw(&mut self, n: usize) -> u32 {
        let candidates = &self.candidates[..n];
        let total: f64 = candidates.iter().map(|c| f64::from(c.value)).sum();
        let unit = (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        let mut left = unit * total;
        for candidate in candidates {
            left -= f64::from(candidate.value);
            if left < 0.0 {
                return candidate.token;
            }
        }
        candidates[n - 1].token
    }
}

/// Computed from the original logit, so that a token that occurs twice is penalized once.
fn penalize(values: &mut [f32], logits: &[f32], history: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    for &token in history {
        if let Some(&logit) = logits.get(token as usize) {
            values[token as usize] = if logit < 0.0 { logit * penalty } else { logit / penalty };
        }
    }
}

/// The first of the largest.
fn argmax(values: &[f32]) -> u32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let max = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    values.iter().position(|&x| x == max).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// Shares of the tokens in many draws.
    fn draw_many(logits: &[f32], options: SamplingOptions) -> Vec<f64> {
        let mut candidates = vec![Candidate::default(); logits.len()];
        let mut values = vec![0.0; logits.len()];
        let mut sampler =
            Sampler::new(Strategy::Sample(options), 1.0, 7, &mut candidates, &mut values).unwrap();
        let mut counts = vec![0.0; logits.len()];
        let n = 20_000;
        for _ in 0..n {
            counts[sampler.next(&Kernels::best(), logits, &[]).unwrap() as usize] += 1.0 / n as f64;
        }
        counts
    }

    fn neutral() -> SamplingOptions {
        SamplingOptions::default()
    }

    const LOGITS: [f32; 6] = [0.0, 3.0, 1.0, 2.0, 2.0, -1.0];

    fn softmax(logits: &[f32]) -> Vec<f64> {
        let e: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.iter().map(|x| x / sum).collect()
    }

    #[test]
    fn draws_follow_the_distribution() {
        for temperature in [0.5, 1.0, 2.0] {
            let scaled = LOGITS.map(|x| x / temperature);
            let shares = draw_many(&LOGITS, SamplingOptions { temperature, ..neutral() });
            for (share, p) in shares.iter().zip(softmax(&scaled)) {
                assert!((share - p).abs() < 0.02, "{share} {p}");
            }
        }
    }

    /// Tokens that are ever drawn.
    fn kept(options: SamplingOptions) -> Vec<usize> {
        let shares = draw_many(&LOGITS, options);
        shares.iter().enumerate().filter(|(_, s)| **s > 0.0).map(|(i, _)| i).collect()
    }

    #[test]
    fn filters_keep_what_they_should() {
        assert_eq!(kept(SamplingOptions { top_k: 1, ..neutral() }), [1]);
        // 3 and 4 are equal, so both stay.
        assert_eq!(kept(SamplingOptions { top_k: 2, ..neutral() }), [1, 3, 4]);
        assert_eq!(kept(SamplingOptions { top_k: 3, ..neutral() }), [1, 3, 4]);
        assert_eq!(kept(SamplingOptions { top_k: 4, ..neutral() }), [1, 2, 3, 4]);
        // Probabilities are about 0.03, 0.52, 0.07, 0.19, 0.19, 0.01.
        assert_eq!(kept(SamplingOptions { top_p: 0.5, ..neutral() }), [1]);
        assert_eq!(kept(SamplingOptions { top_p: 0.7, ..neutral() }), [1, 3]);
        assert_eq!(kept(SamplingOptions { top_p: 0.95, ..neutral() }), [1, 2, 3, 4]);
        assert_eq!(kept(SamplingOptions { min_p: 0.3, ..neutral() }), [1, 3, 4]);
        assert_eq!(kept(SamplingOptions { min_p: 1.0, ..neutral() }), [1]);
        assert_eq!(kept(SamplingOptions { top_p: 1e-9, ..neutral() }), [1]);
    }

    #[test]
    fn the_lowest_temperature_is_greedy() {
        for temperature in [1e-3, 1e-20, f32::from_bits(1)] {
            assert_eq!(kept(SamplingOptions { temperature, ..neutral() }), [1]);
        }
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let text = |seed| {
            let mut candidates = [Candidate::default(); 6];
            let mut values = [0.0; 6];
            let strategy = Strategy::Sample(neutral());
            let mut sampler =
                Sampler::new(strategy, 1.0, seed, &mut candidates, &mut values).unwrap();
            let next = |_| sampler.next(&Kernels::best(), &LOGITS, &[]).unwrap();
            (0..50).map(next).collect::<Vec<_>>()
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
        // The generator is part of the promise: a seed gives this text for good. The tokens were
        // computed apart, from the published definitions of SplitMix64 and xoshiro256++.
        assert_eq!(text(42)[..12], [4, 1, 4, 3, 3, 2, 1, 2, 1, 4, 2, 4]);
    }

    #[test]
    fn greedy_takes_the_first_largest_and_penalizes_once() {
        let mut candidates = [Candidate::default(); 40];
        let mut values = [0.0; 40];
        let mut sampler =
            Sampler::new(Strategy::Greedy, 2.0, 0, &mut candidates, &mut values).unwrap();
        let mut logits = [-5.0; 40];
        (logits[17], logits[33]) = (3.0, 3.0);
        let kernels = Kernels::best();
        assert_eq!(sampler.next(&kernels, &logits, &[]), Ok(17));
        assert_eq!(sampler.next(&kernels, &logits, &[17, 17]), Ok(33));
        // 3 / 2 is above what is left, 3 / 4 would not be.
        (logits[33], logits[2]) = (1.0, -0.1);
        assert_eq!(sampler.next(&kernels, &logits, &[17, 17, 2]), Ok(17));
    }

    #[test]
    fn rejects_what_makes_no_sense() {
        for options in [
            SamplingOptions { temperature: 0.0, ..neutral() },
            SamplingOptions { temperature: f32::NAN, ..neutral() },
            SamplingOptions { top_p: 0.0, ..neutral() },
            SamplingOptions { top_p: 1.5, ..neutral() },
            SamplingOptions { min_p: -0.1, ..neutral() },
        ] {
            assert!(matches!(options.validate(), Err(SamplingError::Option { .. })));
        }
        let (mut candidates, mut values) = ([Candidate::default(); 4], [0.0; 4]);
        for penalty in [0.0, -1.0, 1e-40, 1e30, f32::NAN] {
            let rejected = Sampler::new(Strategy::Greedy, penalty, 0, &mut candidates, &mut values);
            assert!(matches!(rejected, Err(SamplingError::Option { .. })));
        }
        let mut sampler =
            Sampler::new(Strategy::Greedy, 1.0, 0, &mut candidates, &mut values).unwrap();
        let kernels = Kernels::best();
        let nan = sampler.next(&kernels, &[0.0, f32::NAN], &[]);
        assert_eq!(nan, Err(SamplingError::NotFinite { token: 1 }));
        let small = sampler.next(&kernels, &[0.0; 5], &[]);
        assert_eq!(small, Err(SamplingError::Scratch { needed: 5, given: 4 }));
    }
}
