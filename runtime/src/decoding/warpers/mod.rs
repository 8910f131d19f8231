//! What reshapes the distribution before a token is drawn, one file each, with the names and in
//! the order of transformers.

mod min_p;
mod temperature;
mod top_k;
mod top_p;
mod typical_p;

use super::candidate::Candidate;
use super::explain::{Distribution, Stage};
use super::options::SamplingOptions;
use crate::kernels::Kernels;

/// The candidates that are left.
///
/// Their values are logits of which the largest is 0, and the most probable one is always among
/// them; so a candidate's weight is `e^value` whatever else was dropped, and needs no sum.
pub(crate) struct Shortlist<'a> {
    kernels: &'a Kernels,
    candidates: &'a mut [Candidate],
    /// Scratch, as long.
    weights: &'a mut [f32],
    len: usize,
}

impl<'a> Shortlist<'a> {
    /// The candidates.
    pub(crate) fn kept(&self) -> &[Candidate] {
        &self.candidates[..self.len]
    }

    /// The candidates' weights and their sum; a weight divided by it is a probability.
    pub(crate) fn weigh(&mut self) -> (&[Candidate], &[f32], f64) {
        let candidates = &self.candidates[..self.len];
        let weights = &mut self.weights[..self.len];
        for (weight, candidate) in weights.iter_mut().zip(candidates) {
            *weight = candidate.value;
        }
        self.kernels.softmax_unnormalized(weights);
        let total = weights.iter().map(|&w| f64::from(w)).sum();
        (candidates, weights, total)
    }

    /// Moves the candidates to keep to the front, in order; returns their number and the weight of
    /// the others. `weights` must be theirs.
    fn partition(&mut self, keep: impl Fn(f32) -> bool) -> (usize, f64) {
        let (mut kept, mut dropped) = (0, 0.0);
        for i in 0..self.len {
            if keep(self.weights[i]) {
                self.candidates[kept] = self.candidates[i];
                kept += 1;
            } else {
                dropped += f64::from(self.weights[i]);
            }
        }
        (kept, dropped)
    }
}

/// Reshapes the logits `scores` as the options say; `candidates` is as long. Afterwards `scores`
/// is scratch.
///
/// `explain` sees what is left after each filter that is in use.
pub(crate) fn warp<'a>(
    kernels: &'a Kernels,
    options: &SamplingOptions,
    scores: &'a mut [f32],
    candidates: &'a mut [Candidate],
    explain: &mut dyn FnMut(Stage, Distribution<'_>),
) -> Shortlist<'a> {
    temperature::apply(options.temperature, scores);
    if options.temperature != 1.0 {
        explain(Stage::Temperature, Distribution::All(scores));
    }
    let len = top_k::keep(options.top_k as usize, scores, candidates);
    let mut list = Shortlist { kernels, candidates, weights: scores, len };
    if options.top_k > 0 {
        explain(Stage::TopK, Distribution::Kept(list.kept()));
    }
    if options.top_p < 1.0 {
        top_p::keep(options.top_p, &mut list);
        explain(Stage::TopP, Distribution::Kept(list.kept()));
    }
    if options.min_p > 0.0 {
        min_p::keep(options.min_p, &mut list);
        explain(Stage::MinP, Distribution::Kept(list.kept()));
    }
    if options.typical_p < 1.0 {
        typical_p::keep(options.typical_p, &mut list);
        explain(Stage::TypicalP, Distribution::Kept(list.kept()));
    }
    list
}
