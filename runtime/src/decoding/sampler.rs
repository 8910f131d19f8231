//! From logits to the next token: greedy or sampled, in the caller's memory.

use super::candidate::{Candidate, argmax, max};
use super::error::DecodingError;
use super::explain::{Distribution, Stage};
use super::options::{DecodingOptions, SamplingOptions, Strategy};
use super::processors::{Context, process};
use super::random::Random;
use super::warpers::{Shortlist, warp};
use crate::kernels::Kernels;

/// Chooses tokens with [`Strategy::Greedy`] or [`Strategy::Sample`]. Memory is the caller's.
///
/// The generator is xoshiro256++ (Blackman and Vigna 2019), seeded with SplitMix64 as its authors
/// recommend; a draw takes its upper 53 bits. Everything is computed in a fixed order, so that a
/// seed gives the same text on every instruction set and thread count.
#[derive(Debug)]
pub struct Sampler<'m, 'o> {
    options: DecodingOptions<'o>,
    random: Random,
    scores: &'m mut [f32],
    candidates: &'m mut [Candidate],
}

/// Told what each stage leaves.
pub(crate) type Explain<'a> = &'a mut dyn FnMut(Stage, Distribution<'_>);

impl<'m, 'o> Sampler<'m, 'o> {
    /// A sampler. `scores` has an element for each token of the vocabulary, `candidates` for each
    /// of the vocabulary or of the longest text, whatever is more.
    ///
    /// # Errors
    /// If an option is outside its range, or the strategy is another.
    pub fn new(
        options: &DecodingOptions<'o>,
        scores: &'m mut [f32],
        candidates: &'m mut [Candidate],
    ) -> Result<Self, DecodingError> {
        options.validate()?;
        if !matches!(options.strategy, Strategy::Greedy | Strategy::Sample(_)) {
            let reason = "chooses more than one token at a time: this takes a Generator";
            return Err(DecodingError::Conflict { name: "strategy", reason });
        }
        Ok(Self { options: *options, random: Random::new(options.seed), scores, candidates })
    }

    /// The token that follows a text, given its logits `[vocab_size]`.
    ///
    /// # Errors
    /// If a logit is not finite, no token may follow, or the memory is too small.
    pub fn next(
        &mut self,
        kernels: &Kernels,
        logits: &[f32],
        context: Context<'_>,
    ) -> Result<u32, DecodingError> {
        let mut random = self.random.clone();
        let token = self.choose(kernels, logits, context, &mut random, &mut |_, _| {});
        self.random = random;
        token
    }

    /// Calls `each(token, probability)` for the tokens that [`Sampler::next`] would draw from.
    ///
    /// # Errors
    /// As [`Sampler::next`].
    pub fn distribution(
        &mut self,
        kernels: &Kernels,
        logits: &[f32],
        context: Context<'_>,
        mut each: impl FnMut(u32, f32),
    ) -> Result<(), DecodingError> {
        let scores = self.process(logits, context, &mut |_, _| {})?;
        match self.options.strategy {
            Strategy::Sample(options) => {
                let scores = &mut self.scores[..scores];
                let mut list = warp(kernels, &options, scores, self.candidates, &mut |_, _| {});
                let (candidates, weights, total) = list.weigh();
                for (candidate, &weight) in candidates.iter().zip(weights) {
                    each(candidate.token, (f64::from(weight) / total) as f32);
                }
            }
            _ => each(argmax(&self.scores[..scores]), 1.0),
        }
        Ok(())
    }

    /// [`Sampler::next`] with another generator, and telling how it came about.
    pub(crate) fn choose(
        &mut self,
        kernels: &Kernels,
        logits: &[f32],
        context: Context<'_>,
        random: &mut Random,
        explain: Explain<'_>,
    ) -> Result<u32, DecodingError> {
        let len = self.process(logits, context, explain)?;
        let scores = &mut self.scores[..len];
        Ok(match &self.options.strategy {
            Strategy::Sample(options) => {
                sample(kernels, options, scores, self.candidates, random, explain)
            }
            _ => argmax(scores),
        })
    }

    /// Leaves the processed logits in `scores` and returns how many there are.
    fn process(
        &mut self,
        logits: &[f32],
        context: Context<'_>,
        explain: Explain<'_>,
    ) -> Result<usize, DecodingError> {
        let needed = Self::needed(&self.options, logits.len(), context.text.len());
        let given = (self.scores.len(), self.candidates.len());
        if given.0 < needed.0 || given.1 < needed.1 {
            let bytes = |(scores, candidates)| 4 * scores + size_of::<Candidate>() * candidates;
            return Err(DecodingError::Memory { needed: bytes(needed), given: bytes(given) });
        }
        check_finite(logits)?;
        let scores = &mut self.scores[..logits.len()];
        scores.copy_from_slice(logits);
        explain(Stage::Logits, Distribution::All(scores));
        process(&self.options, context, scores, self.candidates, explain);
        check_some_left(scores)?;
        Ok(logits.len())
    }

    /// Elements of `scores` and of `candidates` that these options take, with this vocabulary and
    /// texts of at most so many tokens.
    pub fn needed(options: &DecodingOptions<'_>, vocab: usize, text: usize) -> (usize, usize) {
        let seen = if options.repetition_penalty == 1.0 { 0 } else { text };
        match options.strategy {
            Strategy::Sample(_) => (vocab, vocab.max(seen)),
            _ => (vocab, seen),
        }
    }
}

/// # Errors
/// The first logit that is not a number or infinite.
pub(crate) fn check_finite(logits: &[f32]) -> Result<(), DecodingError> {
    // x · 0 is 0 for a number only; sixteen at a time, since all are numbers almost always.
    let (chunks, rest) = logits.as_chunks::<16>();
    let bad =
        chunks.iter().position(|chunk| chunk.iter().fold(false, |any, &x| any | (x * 0.0 != 0.0)));
    let from = bad.map_or(logits.len() - rest.len(), |chunk| 16 * chunk);
    match logits[from..].iter().position(|x| !x.is_finite()) {
        Some(at) => Err(DecodingError::NotFinite { token: (from + at) as u32 }),
        None => Ok(()),
    }
}

/// # Errors
/// If every score is negative infinity.
pub(crate) fn check_some_left(scores: &[f32]) -> Result<(), DecodingError> {
    if max(scores) > f32::NEG_INFINITY { Ok(()) } else { Err(DecodingError::NothingLeft) }
}

fn sample(
    kernels: &Kernels,
    options: &SamplingOptions,
    scores: &mut [f32],
    candidates: &mut [Candidate],
    random: &mut Random,
    explain: Explain<'_>,
) -> u32 {
    let mut list: Shortlist<'_> = warp(kernels, options, scores, candidates, explain);
    let (candidates, weights, total) = list.weigh();
    let mut left = random.unit() * total;
    for (candidate, &weight) in candidates.iter().zip(weights) {
        left -= f64::from(weight);
        if left < 0.0 {
            return candidate.token;
        }
    }
    candidates.last().map_or(0, |candidate| candidate.token)
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn options(strategy: Strategy) -> DecodingOptions<'static> {
        DecodingOptions {
            strategy,
            max_new_tokens: 100,
            min_new_tokens: 0,
            eos_token_id: None,
            num_return_sequences: 1,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            sequence_bias: &[],
            stop: None,
            prompt_lookup_num_tokens: 0,
            overflow: crate::Overflow::Stop,
            seed: 7,
        }
    }

    const EMPTY: Context<'static> = Context { text: &[], new_tokens: 0 };

    /// Shares of the tokens in many draws.
    fn draw_many(logits: &[f32], sampling: SamplingOptions) -> Vec<f64> {
        let (mut scores, mut candidates) = (vec![0.0; 6], vec![Candidate::default(); 6]);
        let options = options(Strategy::Sample(sampling));
        let mut sampler = Sampler::new(&options, &mut scores, &mut candidates).unwrap();
        let mut counts = vec![0.0; logits.len()];
        let n = 20_000;
        for _ in 0..n {
            let token = sampler.next(&Kernels::best(), logits, EMPTY).unwrap();
            counts[token as usize] += 1.0 / n as f64;
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

    /// Tokens that are ever drawn, which must be those of the distribution.
    fn kept(sampling: SamplingOptions) -> Vec<usize> {
        let shares = draw_many(&LOGITS, sampling);
        let drawn: Vec<usize> = (0..6).filter(|&i| shares[i] > 0.0).collect();
        let (mut scores, mut candidates) = (vec![0.0; 6], vec![Candidate::default(); 6]);
        let options = options(Strategy::Sample(sampling));
        let mut sampler = Sampler::new(&options, &mut scores, &mut candidates).unwrap();
        let mut possible = Vec::new();
        sampler
            .distribution(&Kernels::best(), &LOGITS, EMPTY, |token, p| {
                if p > 0.0 {
                    possible.push(token as usize);
                }
            })
            .unwrap();
        possible.sort_unstable();
        assert_eq!(drawn, possible);
        drawn
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
        // So little that 1 − p is 1: also of one, or of many alike, one stays.
        for top_k in [0, 1, 2] {
            assert_eq!(kept(SamplingOptions { top_k, top_p: 1e-20, ..neutral() }), [1]);
        }
        // The entropy is 1.33, −ln p 3.66, 0.66, 2.66, 1.66, 1.66, 4.66: 3 and 4 are nearest.
        assert_eq!(kept(SamplingOptions { typical_p: 0.01, ..neutral() }), [3, 4]);
        assert_eq!(kept(SamplingOptions { typical_p: 0.38, ..neutral() }), [1, 3, 4]);
        assert_eq!(kept(SamplingOptions { typical_p: 0.95, ..neutral() }), [1, 2, 3, 4]);
        // One after the other: 0 and 5 go first, then the rest is 1 before the others.
        assert_eq!(kept(SamplingOptions { top_k: 4, top_p: 0.5, ..neutral() }), [1]);
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
            let (mut scores, mut candidates) = ([0.0; 6], [Candidate::default(); 6]);
            let options = DecodingOptions { seed, ..options(Strategy::Sample(neutral())) };
            let mut sampler = Sampler::new(&options, &mut scores, &mut candidates).unwrap();
            let next = |_| sampler.next(&Kernels::best(), &LOGITS, EMPTY).unwrap();
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
        let (mut scores, mut candidates) = ([0.0; 40], [Candidate::default(); 40]);
        let options = DecodingOptions { repetition_penalty: 2.0, ..options(Strategy::Greedy) };
        let mut sampler = Sampler::new(&options, &mut scores, &mut candidates).unwrap();
        let mut logits = [-5.0; 40];
        (logits[17], logits[33]) = (3.0, 3.0);
        let mut next = |logits: &[f32], text: &[u32]| {
            sampler.next(&Kernels::best(), logits, Context { text, new_tokens: 0 })
        };
        assert_eq!(next(&logits, &[]), Ok(17));
        assert_eq!(next(&logits, &[17, 17]), Ok(33));
        // 3 / 2 is above what is left, 3 / 4 would not be.
        (logits[33], logits[2]) = (1.0, -0.1);
        assert_eq!(next(&logits, &[17, 17, 2]), Ok(17));
    }

    /// Found by fuzzing: the largest logit became infinite, then no number, and nothing was left.
    #[test]
    fn a_penalty_below_one_keeps_the_largest_logit() {
        let (mut scores, mut candidates) = ([0.0; 6], [Candidate::default(); 6]);
        let options = DecodingOptions {
            repetition_penalty: 0.5,
            ..options(Strategy::Sample(SamplingOptions { top_k: 3, ..neutral() }))
        };
        let mut sampler = Sampler::new(&options, &mut scores, &mut candidates).unwrap();
        let logits = [0.0, f32::MAX, 1.0, 2.0, 0.5, -1.0];
        let context = Context { text: &[1], new_tokens: 0 };
        let mut possible = Vec::new();
        let each = |token, p| possible.push((token, p));
        sampler.distribution(&Kernels::best(), &logits, context, each).unwrap();
        assert_eq!(possible.iter().find(|(_, p)| *p > 0.0), Some(&(1, 1.0)));
        assert_eq!(sampler.next(&Kernels::best(), &logits, context), Ok(1));
    }

    #[test]
    fn the_text_does_not_end_too_early() {
        let (mut scores, mut candidates) = ([0.0; 6], [Candidate::default(); 6]);
        let options = DecodingOptions {
            eos_token_id: Some(1),
            min_new_tokens: 3,
            ..options(Strategy::Greedy)
        };
        let mut sampler = Sampler::new(&options, &mut scores, &mut candidates).unwrap();
        for (new_tokens, expected) in [(0, 3), (2, 3), (3, 1)] {
            let context = Context { text: &[], new_tokens };
            assert_eq!(sampler.next(&Kernels::best(), &LOGITS, context), Ok(expected));
        }
    }

    #[test]
    fn rejects_logits_that_nothing_can_be_chosen_from() {
        let (mut scores, mut candidates) = ([0.0; 40], [Candidate::default(); 40]);
        let options = DecodingOptions { no_repeat_ngram_size: 1, ..options(Strategy::Greedy) };
        let mut sampler = Sampler::new(&options, &mut scores, &mut candidates).unwrap();
        let kernels = Kernels::best();
        for token in [0, 1, 15, 16, 31, 32, 39] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut logits = [0.0; 40];
                logits[token] = bad;
                let error = DecodingError::NotFinite { token: token as u32 };
                assert_eq!(sampler.next(&kernels, &logits, EMPTY), Err(error));
            }
        }
        let context = Context { text: &[1, 0], new_tokens: 0 };
        let nothing = sampler.next(&kernels, &[0.0; 2], context);
        assert_eq!(nothing, Err(DecodingError::NothingLeft));
        let small = sampler.next(&kernels, &[0.0; 41], EMPTY);
        assert!(matches!(small, Err(DecodingError::Memory { .. })));
    }
}
