//! `min_new_tokens`

/// The end of the text may not come yet.
pub(super) fn apply(eos_token_id: u32, scores: &mut [f32]) {
    if let Some(score) = scores.get_mut(eos_token_id as usize) {
        *score = f32::NEG_INFINITY;
    }
}
