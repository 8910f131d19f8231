//! Two models on the same text, side by side.

use std::ops::ControlFlow;

use anyhow::{Result, bail};
use pocketgpt_runtime::parallel::Parallel;
use pocketgpt_runtime::session::Session;
use serde::Serialize;

use crate::perplexity::{Score, nats};

/// Most probable tokens that are compared.
const TOP: usize = 5;

/// How far a model's predictions are from the reference's. Standard errors take positions as
/// independent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Divergence {
    pub reference_perplexity: f64,
    /// `perplexity / reference_perplexity`
    pub perplexity_ratio: f64,
    pub perplexity_ratio_stderr: f64,
    /// Kullback-Leibler divergence of the model's distribution from the reference's, in nats per token.
    pub mean_kl_divergence: f64,
    pub mean_kl_divergence_stderr: f64,
    pub median_kl_divergence: f64,
    pub p99_kl_divergence: f64,
    pub max_kl_divergence: f64,
    /// Share of positions with the same most probable token.
    pub top1_agreement: f64,
    pub top1_agreement_stderr: f64,
    /// Share of the reference's five most probable tokens that are among the model's five.
    pub top5_agreement: f64,
    pub top5_agreement_stderr: f64,
}

/// Figures of each position.
#[derive(Default)]
struct Positions {
    kl: Vec<f64>,
    /// Nats of the model less those of the reference.
    lost: Vec<f64>,
    top1: Vec<f64>,
    top5: Vec<f64>,
    reference_nats: f64,
}

/// Scores a stream as [`crate::perplexity::score`] does, with the reference beside the model.
/// There is no result if `progress` stops the work.
pub fn compare(
    (session, reference): (&mut Session<'_, '_>, &mut Session<'_, '_>),
    par: &dyn Parallel,
    tokens: &[u32],
    batch: usize,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<(Score, Divergence)>> {
    let n_ctx = session.model().config().n_ctx as usize;
    let vocab = session.model().config().vocab_size as usize;
    let mut score = Score::default();
    let mut positions = Positions::default();
    let mut expected = Vec::new();
    for window in tokens.chunks(n_ctx) {
        session.truncate(0);
        reference.truncate(0);
        let (mut targets, given) = (&window[1..], &window[..window.len() - 1]);
        for part in given.chunks(batch) {
            expected.clear();
            reference.feed_all(part, par, &mut |_, logits| expected.extend_from_slice(logits))?;
            session.feed_all(part, par, &mut |i, logits| {
                let expected = &expected[i * vocab..(i + 1) * vocab];
                score.nats += positions.add(expected, logits, targets[i]);
            })?;
            targets = &targets[part.len()..];
            if progress(part.len()).is_break() {
                return Ok(None);
            }
        }
        score.scored_tokens += given.len();
        if !score.nats.is_finite() || !positions.reference_nats.is_finite() {
            bail!("a logit is not a finite number");
        }
    }
    if score.scored_tokens == 0 {
        bail!("the model's context of one token leaves nothing to score");
    }
    Ok(Some((score, positions.summary())))
}

impl Positions {
    /// Adds a position; gives the model's nats for its token.
    fn add(&mut self, reference: &[f32], logits: &[f32], token: u32) -> f64 {
        let (nats_p, nats_q) = (nats(reference, token), nats(logits, token));
        self.reference_nats += nats_p;
        self.lost.push(nats_q - nats_p);
        self.kl.push(kl(reference, logits));
        let (p, q) = (top(reference), top(logits));
        self.top1.push(f64::from(u8::from(p[0] == q[0])));
        let common = p.iter().filter(|i| q.contains(i)).count();
        self.top5.push(common as f64 / p.len() as f64);
        nats_q
    }

    fn summary(mut self) -> Divergence {
        let n = self.kl.len() as f64;
        let (kl, kl_error) = mean(&self.kl);
        let (lost, lost_error) = mean(&self.lost);
        let (top1, top1_error) = mean(&self.top1);
        let (top5, top5_error) = mean(&self.top5);
        self.kl.sort_by(f64::total_cmp);
        let quantile = |part: f64| self.kl[((n - 1.0) * part).round() as usize];
        Divergence {
            reference_perplexity: (self.reference_nats / n).exp(),
            perplexity_ratio: lost.exp(),
            perplexity_ratio_stderr: lost.exp() * lost_error,
            mean_kl_divergence: kl,
            mean_kl_divergence_stderr: kl_error,
            median_kl_divergence: quantile(0.5),
            p99_kl_divergence: quantile(0.99),
            max_kl_divergence: quantile(1.0),
            top1_agreement: top1,
            top1_agreement_stderr: top1_error,
            top5_agreement: top5,
            top5_agreement_stderr: top5_error,
        }
    }
}

/// Mean and its standard error.
fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (variance / n).sqrt())
}

/// `Σ p ln (p / q)` of two softmaxes, in nats.
fn kl(p: &[f32], q: &[f32]) -> f64 {
    let max = |x: &[f32]| f64::from(x.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x)));
    let (max_p, max_q) = (max(p), max(q));
    let (mut sum_p, mut sum_q, mut off) = (0.0, 0.0, 0.0);
    for (p, q) in p.iter().zip(q) {
        let (p, q) = (f64::from(*p) - max_p, f64::from(*q) - max_q);
        let weight = p.exp();
        sum_p += weight;
        sum_q += q.exp();
        off += weight * (p - q);
    }
    // Rounding may leave a little less than nothing.
    (off / sum_p - sum_p.ln() + sum_q.ln()).max(0.0)
}

/// The most probable tokens, the first one first; of equal ones the lower id.
fn top(logits: &[f32]) -> Vec<usize> {
    let mut top: Vec<usize> = Vec::with_capacity(TOP + 1);
    for (i, logit) in logits.iter().enumerate() {
        if top.len() == TOP && *logit <= logits[top[TOP - 1]] {
            continue;
        }
        let at = top.partition_point(|other| logits[*other] >= *logit);
        top.insert(at, i);
        top.truncate(TOP);
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_that_of_two_distributions() {
        let (p, q) = ([0.25f64, 0.75], [0.5f64, 0.5]);
        let logits = |x: [f64; 2], shift: f64| x.map(|x| (x.ln() + shift) as f32);
        let expected: f64 = (0..2).map(|i| p[i] * (p[i] / q[i]).ln()).sum();
        assert!((kl(&logits(p, 3.0), &logits(q, -8.0)) - expected).abs() < 1e-6);
        assert_eq!(kl(&logits(p, 3.0), &logits(p, 3.0)), 0.0);
    }

    #[test]
    fn most_probable_come_first() {
        assert_eq!(top(&[0.0, 5.0, 1.0, 5.0, 2.0, 3.0, -1.0]), [1, 3, 5, 4, 2]);
        assert_eq!(top(&[1.0, 2.0]), [1, 0]);
    }

    #[test]
    fn errors_are_those_of_means() {
        let (value, error) = mean(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(value, 2.5);
        assert!((error - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean(&[7.0]), (7.0, 0.0));
    }

    #[test]
    fn a_position_counts_once() {
        let mut positions = Positions::default();
        let (p, q) = ([2.0, 1.0, 0.0, -1.0, -2.0, -3.0], [1.0, 2.0, 0.0, -1.0, -3.0, -2.0]);
        let nats_q = positions.add(&p, &q, 0);
        assert!((nats_q - nats(&q, 0)).abs() < 1e-12);
        let summary = positions.summary();
        assert_eq!((summary.top1_agreement, summary.top5_agreement), (0.0, 0.8));
        assert!((summary.perplexity_ratio - (nats(&q, 0) - nats(&p, 0)).exp()).abs() < 1e-12);
        assert_eq!(summary.mean_kl_divergence, summary.max_kl_divergence);
    }
}
