//! `typical_p`

use super::Shortlist;
use crate::decoding::candidate::{Candidate, by_value};
use crate::math::{One, exp};

/// Keeps the candidates whose information content is nearest to the entropy, as many as it takes
/// to reach the probability `mass`, and those as near as the last of them (Meister et al. 2023).
/// What is kept is in order.
///
/// With logits `v` and weights `w = e^v` the distance `|−ln p − H|` is `|v − Σ w v / Σ w|`: the
/// logarithm of the sum cancels.
pub(super) fn keep(mass: f32, list: &mut Shortlist<'_>) {
    let (candidates, weights, total) = list.weigh();
    let weighted = candidates.iter().zip(weights).filter(|(_, w)| **w > 0.0);
    let sum: f64 = weighted.map(|(c, &w)| f64::from(w) * f64::from(c.value)).sum();
    let mean = (sum / total) as f32;
    let distance = |c: &Candidate| (c.value - mean).abs();

    let n = list.len;
    let candidates = &mut list.candidates[..n];
    let total: u64 = candidates.iter().map(weight).sum();
    let last = last_within(candidates, (f64::from(mass) * total as f64) as u64, distance);
    let mut kept = 0;
    for i in 0..n {
        if distance(&candidates[i]) <= last {
            candidates[kept] = candidates[i];
            kept += 1;
        }
    }
    candidates[..kept].sort_unstable_by(by_value);
    list.len = kept;
}

/// Weights in fixed point, so that their sum does not depend on the order.
fn weight(candidate: &Candidate) -> u64 {
    (f64::from(exp(One, candidate.value)) * (1u64 << 40) as f64) as u64
}

/// The distance at which the candidates up to there, by distance, first weigh `mass`; the largest
/// if they never do. Halves the range again and again instead of sorting it.
fn last_within(
    candidates: &mut [Candidate],
    mass: u64,
    distance: impl Fn(&Candidate) -> f32,
) -> f32 {
    let (mut range, mut before) = (candidates, 0);
    while range.len() > 1 {
        let middle = range.len() / 2;
        range.select_nth_unstable_by(middle, |a, b| {
            distance(a).total_cmp(&distance(b)).then(a.token.cmp(&b.token))
        });
        let (near, far) = range.split_at_mut(middle);
        let sum: u64 = near.iter().map(weight).sum();
        if before + sum >= mass {
            range = near;
        } else {
            before += sum;
            range = far;
        }
    }
    range.first().map_or(0.0, distance)
}
