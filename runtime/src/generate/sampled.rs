//! Several sampled sequences of one prompt, side by side.

use super::text::Text;
use super::{GenerateError, Generator, Memory, Observer, unread};
use crate::decoding::{Random, Sampler, StopReason};
use crate::parallel::Parallel;
use crate::session::Session;
use crate::workspace::SessionOptions;

impl Generator<'_, '_> {
    pub(super) fn run_sampled(
        &mut self,
        session: &mut Session<'_, '_>,
        par: &dyn Parallel,
        prompt: &[u32],
        observer: &mut dyn Observer,
    ) -> Result<(), GenerateError> {
        let Memory::Sampled { texts, scores, candidates } = &mut self.memory else {
            unreachable!("the strategy is greedy or sampled")
        };
        let options = &self.options;
        let sequences = options.num_return_sequences;
        let kernels = *session.model().kernels();
        let mut sampler = Sampler::new(options, scores, candidates)?;
        // Each sequence has its own generator, so none depends on when another ends.
        let mut random = Random::new(options.seed);
        let mut randoms: [Random; SessionOptions::MAX_BRANCHES] = core::array::from_fn(|_| {
            let next = random.clone().next_sequence();
            core::mem::replace(&mut random, next)
        });

        // Of each branch its sequence and its next token.
        let mut active = [(0, 0u32); SessionOptions::MAX_BRANCHES];
        let mut count = 0;
        session.feed(unread(session, prompt), par)?;
        session.split(sequences)?;
        let positions = session.remaining_in_window();
        for sequence in 0..sequences {
            let tokens = &mut texts[sequence * self.max_text..][..self.max_text];
            let mut text = Text::new(tokens, prompt);
            let token = sampler.choose(
                &kernels,
                // Branches are alike at first.
                session.branch_logits(0),
                text.context(),
                &mut randoms[sequence],
                &mut |stage, left| observer.stage(sequence, stage, left),
            )?;
            let reason = text.push(token, options, positions, (sequence, observer));
            let len = text.tokens().len();
            self.results.ends[sequence] = (len, reason.unwrap_or(StopReason::Interrupted));
            if reason.is_none() {
                active[count] = (sequence, token);
                count += 1;
            }
        }
        self.results.count = sequences;
        if count > 0 {
            session.reorder(&[0; SessionOptions::MAX_BRANCHES][..count]);
        }

        while count > 0 && observer.step().is_continue() {
            let tokens = active.map(|(_, token)| token);
            session.feed_branches(&tokens[..count], par)?;
            let positions = session.remaining_in_window();
            let mut parents = [0; SessionOptions::MAX_BRANCHES];
            let mut kept = 0;
            for branch in 0..count {
                let (sequence, _) = active[branch];
                let (len, _) = self.results.ends[sequence];
                let tokens = &mut texts[sequence * self.max_text..][..self.max_text];
                let mut text = Text::resume(tokens, prompt.len(), len);
                let token = sampler.choose(
                    &kernels,
                    session.branch_logits(branch),
                    text.context(),
                    &mut randoms[sequence],
                    &mut |stage, left| observer.stage(sequence, stage, left),
                )?;
                let reason = text.push(token, options, positions, (sequence, observer));
                let len = text.tokens().len();
                self.results.ends[sequence] = (len, reason.unwrap_or(StopReason::Interrupted));
                if reason.is_none() {
                    active[kept] = (sequence, token);
                    parents[kept] = branch as u32;
                    kept += 1;
                }
            }
            if (1..count).contains(&kept) {
                session.reorder(&parents[..kept]);
            }
            count = kept;
        }
        session.truncate(prompt.len());
        Ok(())
    }
}
