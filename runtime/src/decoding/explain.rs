//! Looking at how a token is chosen.

use super::candidate::Candidate;

/// A step on the way from logits to a token, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// What the model says.
    Logits,
    /// After `sequence_bias`.
    SequenceBias,
    /// After `repetition_penalty`.
    RepetitionPenalty,
    /// After `no_repeat_ngram_size`.
    NoRepeatNgram,
    /// After `min_new_tokens`.
    MinNewTokens,
    /// After `temperature`.
    Temperature,
    /// After `top_k`.
    TopK,
    /// After `top_p`.
    TopP,
    /// After `min_p`.
    MinP,
    /// After `typical_p`.
    TypicalP,
}

impl Stage {
    /// The option's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::SequenceBias => "sequence_bias",
            Self::RepetitionPenalty => "repetition_penalty",
            Self::NoRepeatNgram => "no_repeat_ngram_size",
            Self::MinNewTokens => "min_new_tokens",
            Self::Temperature => "temperature",
            Self::TopK => "top_k",
            Self::TopP => "top_p",
            Self::MinP => "min_p",
            Self::TypicalP => "typical_p",
        }
    }
}

/// What is left after a stage. Values are logits: probabilities are their softmax.
#[derive(Clone, Copy, Debug)]
pub enum Distribution<'a> {
    /// Of every token, by id; negative infinity where it may not follow.
    All(&'a [f32]),
    /// Of those that were kept, in no certain order.
    Kept(&'a [Candidate]),
}

impl Distribution<'_> {
    /// The tokens that may follow.
    pub fn iter(&self) -> impl Iterator<Item = Candidate> {
        let (all, kept): (&[f32], &[Candidate]) = match self {
            Self::All(all) => (all, &[]),
            Self::Kept(kept) => (&[], kept),
        };
        let all = (0..).zip(all).map(|(token, &value)| Candidate { value, token });
        all.chain(kept.iter().copied()).filter(|c| c.value > f32::NEG_INFINITY)
    }
}
