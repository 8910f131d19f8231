//! Beam search.

use super::{GenerateError, Generator, Memory, Observer, unread};
use crate::decoding::{
    BeamScorer, Candidate, Context, DecodingError, DecodingOptions, Distribution, Stage,
    StopReason, check_finite, max, process,
};
use crate::kernels::Kernels;
use crate::math::ln;
use crate::parallel::Parallel;
use crate::session::Session;

impl Generator<'_, '_> {
    pub(super) fn run_beam(
        &mut self,
        session: &mut Session<'_, '_>,
        par: &dyn Parallel,
        prompt: &[u32],
        observer: &mut dyn Observer,
    ) -> Result<(), GenerateError> {
        let Memory::Beam { scorer, weights, seen } = &mut self.memory else {
            unreachable!("the strategy is beam search")
        };
        let options = &self.options;
        let kernels = *session.model().kernels();
        session.feed(unread(session, prompt), par)?;
        let beams = scorer.num_beams();
        session.split(beams)?;
        // The last token needs no position.
        let possible = session.remaining_in_window() + 1;
        let (new, at_limit) = if possible < options.max_new_tokens {
            (possible, StopReason::ContextFull)
        } else {
            (options.max_new_tokens, StopReason::MaxNewTokens)
        };
        scorer.begin(prompt, new, at_limit);
        self.results.count = options.num_return_sequences;
        self.results.ends.fill((usize::MAX, StopReason::Interrupted));

        // Beams are alike at first.
        let row = session.branch_logits(0);
        log_probabilities(&kernels, row, weights)?;
        process_beam(options, scorer, 0, row, seen, observer);
        (0..beams).for_each(|beam| scorer.offer(beam, row));
        while choose(options, scorer, observer)? {
            if observer.step().is_break() {
                scorer.stop(StopReason::Interrupted);
                break;
            }
            session.reorder(scorer.parents());
            session.feed_branches(scorer.tokens(), par)?;
            for beam in 0..beams {
                let row = session.branch_logits(beam);
                log_probabilities(&kernels, row, weights)?;
                process_beam(options, scorer, beam, row, seen, observer);
                scorer.offer(beam, row);
            }
        }
        session.truncate(prompt.len());
        Ok(())
    }
}

/// Log-softmax in place; `weights` is scratch.
fn log_probabilities(
    kernels: &Kernels,
    row: &mut [f32],
    weights: &mut [f32],
) -> Result<(), DecodingError> {
    check_finite(row)?;
    weights.copy_from_slice(row);
    let log_sum = ln(f64::from(kernels.softmax_unnormalized(weights))) as f32;
    let max = max(row);
    row.iter_mut().for_each(|x| *x = (*x - max) - log_sum);
    Ok(())
}

fn process_beam(
    options: &DecodingOptions<'_>,
    scorer: &BeamScorer<'_>,
    beam: usize,
    row: &mut [f32],
    seen: &mut [Candidate],
    observer: &mut dyn Observer,
) {
    observer.stage(beam, Stage::Logits, Distribution::All(row));
    let context = Context { text: scorer.text(beam), new_tokens: scorer.new_tokens() };
    process(options, context, row, seen, &mut |stage, left| observer.stage(beam, stage, left));
}

/// Chooses what goes on; false when the search is over.
fn choose(
    options: &DecodingOptions<'_>,
    scorer: &mut BeamScorer<'_>,
    observer: &mut dyn Observer,
) -> Result<bool, DecodingError> {
    scorer.find_ends(options.stop);
    let continuations = scorer.continuations();
    if continuations.iter().all(|continuation| continuation.score == f32::NEG_INFINITY) {
        return Err(DecodingError::NothingLeft);
    }
    observer.continuations(continuations);
    Ok(scorer.advance())
}
