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
            *score = if value < 0.0 { value * penalty } else { value / penalty };
        }
    }
}
