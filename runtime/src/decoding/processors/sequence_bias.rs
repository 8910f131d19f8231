//! `sequence_bias`

/// What is added to the logit of the last of these tokens where the others stand at the end of the
/// text: with one token, to its logit always.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequenceBias<'a> {
    /// The sequence, at least one token.
    pub tokens: &'a [u32],
    /// Above 0 more probable, below 0 less; negative infinity excludes it.
    pub bias: f32,
}

pub(super) fn apply(biases: &[SequenceBias<'_>], text: &[u32], scores: &mut [f32]) {
    for SequenceBias { tokens, bias } in biases {
        if let Some((&last, before)) = tokens.split_last()
            && text.ends_with(before)
            && let Some(score) = scores.get_mut(last as usize)
        {
            *score += bias;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_count_where_they_are_begun() {
        let biases = [
            SequenceBias { tokens: &[1], bias: 2.0 },
            SequenceBias { tokens: &[7, 8, 1], bias: 0.5 },
            SequenceBias { tokens: &[8, 7, 2], bias: 4.0 },
            SequenceBias { tokens: &[3], bias: f32::NEG_INFINITY },
        ];
        let mut scores = [1.0; 4];
        apply(&biases, &[7, 8], &mut scores);
        assert_eq!(scores, [1.0, 3.5, 1.0, f32::NEG_INFINITY]);
        let mut scores = [1.0; 4];
        apply(&biases, &[8], &mut scores);
        assert_eq!(scores, [1.0, 3.0, 1.0, f32::NEG_INFINITY]);
    }
}
