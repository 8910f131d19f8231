//! `repetition_penalty`

use crate::decoding::candidate::Candidate;

/// Divides positive and multiplies negative logits of the tokens in the text (Keskar et al. 2019).
///
/// All are read before the first is changed, so that a token that occurs twice is penalized once;
/// `seen` keeps them.
pub(super) fn apply(penalty: f32, text: &[u32], scores: &mut [f32], seen: &mut [Candidate]) {
    let seen = &mut seen[..text.len()];
    for (seen, &token) in seen.iter_mut().zip(text) {
        let value = scores.get(token as usize).copied().unwrap_or(0.0);
        *seen = Candidate { value, token };
    }
    for &Candidate { value, token } in &*seen {
        if let Some(score) = scores.get_mut(token as usize) {
            // A penalty below 1 must not make a finite logit infinite: infinities have no difference.
            *score = if value < 0.0 { value * penalty } else { (value / penalty).min(f32::MAX) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_penalty_below_one_leaves_logits_finite() {
        let mut scores = [f32::MAX, -f32::MAX, 1.0, f32::NEG_INFINITY];
        apply(0.5, &[0, 1, 2, 3], &mut scores, &mut [Candidate::default(); 4]);
        assert_eq!(scores, [f32::MAX, -f32::MAX / 2.0, 2.0, f32::NEG_INFINITY]);
    }
}
