//! Contrastive search.

use super::text::Text;
use super::{GenerateError, Generator, Memory, Observer};
use crate::decoding::{
    ContrastiveScorer, Distribution, Stage, StopReason, check_finite, check_some_left, process,
};
use crate::model::Gpt2;
use crate::parallel::Parallel;
use crate::session::{Session, Tap};
use crate::workspace::SessionOptions;

impl Generator<'_, '_> {
    pub(super) fn run_contrastive(
        &mut self,
        session: &mut Session<'_, '_>,
        par: &dyn Parallel,
        prompt: &[u32],
        observer: &mut dyn Observer,
    ) -> Result<(), GenerateError> {
        let Memory::Contrastive { scorer, text, scores, seen, hidden } = &mut self.memory else {
            unreachable!("the strategy is contrastive search")
        };
        let options = &self.options;
        let (model, kernels) = (*session.model(), *session.model().kernels());
        // The hidden states of the whole text are needed, so all of it is read.
        session.truncate(0);
        scorer.clear();
        let mut states = States { model: &model, scorer, hidden };
        scores.copy_from_slice(session.feed_tapped(prompt, par, &mut states)?);

        let mut text = Text::new(text, prompt);
        let reason = loop {
            check_finite(scores)?;
            observer.stage(0, Stage::Logits, Distribution::All(scores));
            process(options, text.context(), scores, seen, &mut |stage, left| {
                observer.stage(0, stage, left);
            });
            check_some_left(scores)?;
            scorer.choose_candidates(&kernels, scores);
            // A candidate must be read to be chosen.
            if session.remaining_in_window() == 0 {
                break StopReason::ContextFull;
            }
            if observer.step().is_break() {
                break StopReason::Interrupted;
            }

            let mut tokens = [0; SessionOptions::MAX_BRANCHES];
            let count = scorer.candidates().len();
            for (token, candidate) in tokens.iter_mut().zip(scorer.candidates()) {
                *token = candidate.token;
            }
            session.split(count)?;
            session.feed_branches(&tokens[..count], par)?;
            for candidate in 0..count {
                Session::final_norm(&model, session.branch_hidden(candidate), hidden);
                scorer.set_state(candidate, hidden);
            }
            let chosen = scorer.choose(&kernels, par);
            observer.contrasts(scorer.candidates(), chosen);
            scores.copy_from_slice(session.branch_logits(chosen));
            session.keep(chosen);
            let positions = session.remaining_in_window();
            if let Some(reason) = text.push(tokens[chosen], options, positions, (0, observer)) {
                break reason;
            }
        };
        // The model's own end is not part of the text.
        session.truncate(session.fed().min(text.tokens().len()));
        self.results.count = 1;
        self.results.ends[0] = (text.tokens().len(), reason);
        Ok(())
    }
}

/// Takes the hidden states of the prompt.
struct States<'a, 'm, 'w> {
    model: &'a Gpt2<'w>,
    scorer: &'a mut ContrastiveScorer<'m>,
    hidden: &'a mut [f32],
}

impl Tap for States<'_, '_, '_> {
    fn hidden(&mut self, layer: usize, _first: usize, rows: &[f32]) {
        if layer == self.model.config().n_layer as usize {
            for row in rows.chunks_exact(self.hidden.len()) {
                Session::final_norm(self.model, row, self.hidden);
                self.scorer.push_text(self.hidden);
            }
        }
    }
}
