//! `temperature`

use crate::decoding::candidate::max;

/// Divides, after the largest has become 0, so that a low temperature cannot overflow. That
/// changes no probability.
pub(super) fn apply(temperature: f32, scores: &mut [f32]) {
    let max = max(scores);
    scores.iter_mut().for_each(|x| *x = (*x - max) / temperature);
}
