//! `top_k`

use crate::decoding::candidate::{Candidate, largest};

/// Fills the first candidates with the `k` most probable tokens, in order, and those equal to the
/// last one, as in transformers; with every token that may follow if `k` is 0. Returns how many
/// there are.
pub(super) fn keep(k: usize, scores: &[f32], candidates: &mut [Candidate]) -> usize {
    if k == 0 || k >= scores.len() {
        return keep_all(scores, candidates);
    }
    let mut kept = largest(scores, &mut candidates[..k]);
    while kept > 0 && candidates[kept - 1].value == f32::NEG_INFINITY {
        kept -= 1;
    }
    if kept < k {
        return kept;
    }
    // Those equal to the last one that are not there yet have higher ids.
    let last = candidates[k - 1];
    let behind = last.token as usize + 1;
    for (chunk, values) in scores[behind..].chunks(16).enumerate() {
        if !values.iter().fold(false, |any, &x| any | (x == last.value)) {
            continue;
        }
        for (i, &value) in values.iter().enumerate() {
            if value == last.value {
                candidates[kept] = Candidate { value, token: (behind + 16 * chunk + i) as u32 };
                kept += 1;
            }
        }
    }
    kept
}

fn keep_all(scores: &[f32], candidates: &mut [Candidate]) -> usize {
    let mut kept = 0;
    for (token, &value) in scores.iter().enumerate() {
        candidates[kept] = Candidate { value, token: token as u32 };
        kept += usize::from(value > f32::NEG_INFINITY);
    }
    kept
}
