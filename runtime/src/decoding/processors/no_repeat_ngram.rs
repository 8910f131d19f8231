//! `no_repeat_ngram_size`

/// Excludes every token that would complete a run of `size` tokens which is in the text already
/// (Paulus et al. 2017).
pub(super) fn apply(size: usize, text: &[u32], scores: &mut [f32]) {
    if text.len() < size {
        return;
    }
    let begun = &text[text.len() + 1 - size..];
    for run in text.windows(size) {
        if run[..size - 1] == *begun
            && let Some(score) = scores.get_mut(run[size - 1] as usize)
        {
            *score = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(size: usize, text: &[u32]) -> std::vec::Vec<usize> {
        let mut scores = [0.0; 10];
        apply(size, text, &mut scores);
        (0..10).filter(|&i| scores[i] == f32::NEG_INFINITY).collect()
    }

    #[test]
    fn completions_are_excluded() {
        assert_eq!(excluded(2, &[1, 2, 3, 1]), [2]);
        assert_eq!(excluded(2, &[1, 2, 1, 3, 1]), [2, 3]);
        assert_eq!(excluded(3, &[1, 2, 3, 1, 2]), [3]);
        assert_eq!(excluded(3, &[1, 2, 3, 4, 2]), [0usize; 0]);
        assert_eq!(excluded(1, &[1, 2, 1]), [1, 2]);
        // The run that is begun does not exclude its own continuation.
        assert_eq!(excluded(2, &[5, 5]), [5]);
        assert_eq!(excluded(3, &[5, 5]), [0usize; 0]);
        // Tokens behind the vocabulary are none.
        assert_eq!(excluded(2, &[1, 12, 1]), [0usize; 0]);
    }
}
