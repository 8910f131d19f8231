//! Looking on while a text is written.

use core::ops::ControlFlow;

use crate::decoding::{Continuation, Contrast, Distribution, Stage};

/// Takes the tokens as they are chosen, and may look at how; every method has a default that goes
/// on and does nothing.
///
/// A closure that takes a token is an observer of one sequence:
/// `|token| { print(token); ControlFlow::Continue(()) }`.
pub trait Observer {
    /// The token that was chosen for a sequence, numbered from 0, also where it is the model's end
    /// and not part of the text.
    fn chosen(&mut self, sequence: usize, token: u32) {
        let _ = (sequence, token);
    }
    /// A token of a sequence that is certain; [`ControlFlow::Break`] ends the
    /// sequence with it. Beam search is certain of nothing before its end, so it has none.
    fn token(&mut self, sequence: usize, token: u32) -> ControlFlow<()> {
        let _ = (sequence, token);
        ControlFlow::Continue(())
    }
    /// Comes before each pass through the model but the first; [`ControlFlow::Break`] ends all
    /// sequences as they are.
    fn step(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// What may follow a sequence, a beam, or the text, after each stage that is in use; before the
    /// token is chosen.
    fn stage(&mut self, sequence: usize, stage: Stage, left: Distribution<'_>) {
        let _ = (sequence, stage, left);
    }
    /// The best continuations of the beams in this step, best first.
    fn continuations(&mut self, continuations: &[Continuation]) {
        let _ = continuations;
    }
    /// The candidates of a step of contrastive search, most probable first, and the number of the
    /// one that was chosen.
    fn contrasts(&mut self, candidates: &[Contrast], chosen: usize) {
        let _ = (candidates, chosen);
    }
}

impl<F: FnMut(u32) -> ControlFlow<()>> Observer for F {
    fn token(&mut self, _sequence: usize, token: u32) -> ControlFlow<()> {
        self(token)
    }
}
