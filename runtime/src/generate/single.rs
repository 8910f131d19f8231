//! One sequence, greedy or sampled; with prompt lookup several of its tokens at once.

use super::text::Text;
use super::{GenerateError, Generator, Memory, Observer, unread};
use crate::decoding::{DecodingError, Drafts, Random, Sampler, StopReason};
use crate::parallel::Parallel;
use crate::session::Session;

impl Generator<'_, '_> {
    pub(super) fn run_single(
        &mut self,
        session: &mut Session<'_, '_>,
        par: &dyn Parallel,
        (tokens, new_tokens): (&[u32], usize),
        observer: &mut dyn Observer,
    ) -> Result<(), GenerateError> {
        let Memory::Sampled { texts, scores, candidates } = &mut self.memory else {
            unreachable!("the strategy is greedy or sampled")
        };
        let options = &self.options;
        let kernels = *session.model().kernels();
        // A session may go on beyond what this generator has room for.
        let max_text = self.max_text;
        let left = |positions: usize, text: &Text<'_>| {
            positions.min(max_text.saturating_sub(text.tokens().len() + 1))
        };
        let mut sampler = Sampler::new(options, scores, candidates)?;
        let mut random = Random::new(options.seed);
        // One draw was made for each token.
        (0..new_tokens).for_each(|_| _ = random.unit());
        texts[..tokens.len()].copy_from_slice(tokens);
        let (prompt, len) = (tokens.len() - new_tokens, tokens.len());
        let mut text = Text::resume(&mut texts[..self.max_text], prompt, len);
        let mut choose = |logits: &[f32], text: &Text<'_>, observer: &mut dyn Observer| {
            let context = text.context();
            sampler.choose(&kernels, logits, context, &mut random, &mut |stage, left| {
                observer.stage(0, stage, left);
            })
        };
        let mut drafts = Drafts::new(options.prompt_lookup_num_tokens);

        let mut next = choose(session.feed(unread(session, tokens), par)?, &text, observer)?;
        let reason = loop {
            let positions = left(session.remaining(), &text);
            if let Some(reason) = text.push(next, options, positions, (0, observer)) {
                break reason;
            }
            if observer.step().is_break() {
                break StopReason::Interrupted;
            }
            // The last token that will be wanted needs no draft behind it.
            let wanted = options.max_new_tokens - text.new_tokens() - 1;
            let room = session.room_for_drafts().min(wanted);
            let batch = drafts.draft(text.tokens(), room);
            if batch.len() == 1 {
                next = choose(session.feed(batch, par)?, &text, observer)?;
                drafts.learn(0, 0);
                continue;
            }

            // Row `i` tells what follows the `i`-th token of the batch: as long as that is the
            // next one, the row after it is what the model would have said.
            let (start, mut accepted) = (session.fed(), 0);
            let remaining = session.remaining();
            let mut outcome: Option<Result<Step, DecodingError>> = None;
            session.feed_all(batch, par, &mut |i, logits| {
                if outcome.is_some() {
                    return;
                }
                let token = match choose(logits, &text, observer) {
                    Ok(token) => token,
                    Err(error) => return outcome = Some(Err(error)),
                };
                if batch.get(i + 1) != Some(&token) {
                    return outcome = Some(Ok(Step::Next(token)));
                }
                let positions = left(remaining.saturating_sub(i + 1), &text);
                match text.push(token, options, positions, (0, observer)) {
                    Some(reason) => outcome = Some(Ok(Step::End(reason))),
                    None => accepted += 1,
                }
            })?;
            session.truncate(start + 1 + accepted);
            let drafted = batch.len() - 1;
            drafts.learn(drafted, accepted);
            match outcome.expect("the row behind the last draft has an outcome")? {
                Step::Next(token) => next = token,
                Step::End(reason) => break reason,
            }
        };
        self.results.count = 1;
        self.results.ends[0] = (text.tokens().len(), reason);
        Ok(())
    }
}

/// How a batch of drafts ends.
enum Step {
    /// With a token that was not drafted.
    Next(u32),
    /// With the text.
    End(StopReason),
}
