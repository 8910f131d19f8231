//! What reshapes logits by what is in the text already, one file each, with the names and in the
//! order of transformers.
//!
//! They change the logits of a whole vocabulary in place; a token that may not follow becomes
//! negative infinity.

mod min_new_tokens;
mod no_repeat_ngram;
mod repetition_penalty;
mod sequence_bias;

pub use sequence_bias::SequenceBias;

use super::candidate::Candidate;
use super::explain::{Distribution, Stage};
use super::options::DecodingOptions;

/// The text that a token is chosen for.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Prompt and what was written.
    pub text: &'a [u32],
    /// How many of its tokens are new.
    pub new_tokens: usize,
}

/// Applies all of them; `seen` is scratch with an element for each token of the text.
///
/// `explain` sees the logits after each that is in use.
pub(crate) fn process(
    options: &DecodingOptions<'_>,
    context: Context<'_>,
    scores: &mut [f32],
    seen: &mut [Candidate],
    explain: &mut dyn FnMut(Stage, Distribution<'_>),
) {
    let text = context.text;
    if !options.sequence_bias.is_empty() {
        sequence_bias::apply(options.sequence_bias, text, scores);
        explain(Stage::SequenceBias, Distribution::All(scores));
    }
    if options.repetition_penalty != 1.0 {
        repetition_penalty::apply(options.repetition_penalty, text, scores, seen);
        explain(Stage::RepetitionPenalty, Distribution::All(scores));
    }
    if options.no_repeat_ngram_size > 0 {
        no_repeat_ngram::apply(options.no_repeat_ngram_size, text, scores);
        explain(Stage::NoRepeatNgram, Distribution::All(scores));
    }
    if let Some(eos) = options.eos_token_id
        && context.new_tokens < options.min_new_tokens
    {
        min_new_tokens::apply(eos, scores);
        explain(Stage::MinNewTokens, Distribution::All(scores));
    }
}
