//! Which beams go on and which texts are finished: the bookkeeping of a beam search.
//!
//! The rules are those of transformers (`generation/utils.py`, `_beam_search`), down to the
//! constant that stands for "no such beam", so that also rare cases end alike: more beams than
//! tokens, ends among the candidates, `early_stopping="never"`.

use super::candidate::{Candidate, largest};
use super::options::{BeamOptions, EarlyStopping};
use super::sequence::StopReason;
use super::stop::StopCriterion;
use crate::math::powf;
use crate::memory::{Arena, Line};

/// Added to a score that must not count.
const EXCLUDED: f32 = -1e9;

/// A beam with one more token.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Continuation {
    /// Log-probability of the new tokens.
    pub score: f32,
    /// The beam that goes on.
    pub beam: u32,
    /// Its next token.
    pub token: u32,
    /// Not 0 if the text ends with this token.
    pub ends: u32,
}

/// A finished text, or a place for one.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Finished {
    score: f32,
    /// Where its tokens lie, or the continuation that it comes from.
    row: u32,
    len: u32,
    /// Code of the reason it ended; [`NONE`] for a place.
    reason: u32,
}

const NONE: u32 = 0;
/// Set in [`Finished::reason`] while `row` is a continuation.
const NEW: u32 = 1 << 31;

/// Most tokens of the texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BeamLimits {
    /// Prompt and new tokens.
    pub(crate) text: usize,
    /// New tokens.
    pub(crate) new: usize,
}

/// A beam search between two steps of the model.
#[derive(Debug)]
pub(crate) struct BeamScorer<'m> {
    options: BeamOptions,
    eos_token_id: Option<u32>,
    limits: BeamLimits,
    /// Tokens of the prompt; of prompt and new text; most of the new text.
    prompt: usize,
    len: usize,
    max_new: usize,
    /// What the text has reached when it has that many.
    at_limit: StopReason,
    /// A longer text could still be better than the finished ones.
    improvable: bool,
    /// `[num_beams][limits.text]`: the beams' texts, and those of the next step.
    texts: &'m mut [u32],
    next_texts: &'m mut [u32],
    /// Log-probabilities of the beams' new tokens.
    scores: &'m mut [f32],
    /// The best continuations, `2 num_beams`, and room to merge as many.
    pool: &'m mut [Continuation],
    pooled: usize,
    top: &'m mut [Candidate],
    /// The best finished texts, best first, and room to merge.
    finished: &'m mut [Finished],
    /// `[num_beams][limits.new]`
    finished_tokens: &'m mut [u32],
    /// Of each beam, for the model: the beam it continues, and its last token.
    parents: &'m mut [u32],
    tokens: &'m mut [u32],
}

impl<'m> BeamScorer<'m> {
    /// Lines that [`BeamScorer::cut`] takes.
    pub(crate) fn lines(beams: usize, limits: BeamLimits) -> usize {
        2 * lines::<u32>(beams * limits.text)
            + lines::<f32>(beams)
            + lines::<Continuation>(4 * beams)
            + lines::<Candidate>(2 * beams)
            + lines::<Finished>(3 * beams)
            + lines::<u32>(beams * limits.new)
            + 2 * lines::<u32>(beams)
    }

    pub(crate) fn cut(
        options: BeamOptions,
        eos_token_id: Option<u32>,
        limits: BeamLimits,
        arena: &mut Arena<'m>,
    ) -> Self {
        let beams = options.num_beams;
        Self {
            options,
            eos_token_id,
            limits,
            prompt: 0,
            len: 0,
            max_new: 0,
            at_limit: StopReason::MaxNewTokens,
            improvable: true,
            texts: arena.take(beams * limits.text),
            next_texts: arena.take(beams * limits.text),
            scores: arena.take(beams),
            pool: arena.take(4 * beams),
            pooled: 0,
            top: arena.take(2 * beams),
            finished: arena.take(3 * beams),
            finished_tokens: arena.take(beams * limits.new),
            parents: arena.take(beams),
            tokens: arena.take(beams),
        }
    }

    /// Beams.
    pub(crate) fn num_beams(&self) -> usize {
        self.options.num_beams
    }

    /// Begins a search after a prompt. `new` is how many tokens may follow it, at least 1, and
    /// `at_limit` what it means to have written them.
    pub(crate) fn begin(&mut self, prompt: &[u32], new: usize, at_limit: StopReason) {
        assert!(new >= 1 && new <= self.limits.new && prompt.len() + new <= self.limits.text);
        (self.prompt, self.len, self.max_new) = (prompt.len(), prompt.len(), new);
        (self.at_limit, self.improvable, self.pooled) = (at_limit, true, 0);
        for rows in [&mut *self.texts, &mut *self.next_texts] {
            for row in rows.chunks_exact_mut(self.limits.text) {
                row[..prompt.len()].copy_from_slice(prompt);
            }
        }
        // Beams are alike at first, so only one of them counts.
        self.scores.fill(EXCLUDED);
        self.scores[0] = 0.0;
        let place = Finished { score: EXCLUDED, row: 0, len: 0, reason: NONE };
        self.finished.fill(place);
        for (row, finished) in self.finished.iter_mut().enumerate() {
            finished.row = row as u32;
        }
    }

    /// The text of a beam.
    pub(crate) fn text(&self, beam: usize) -> &[u32] {
        &self.texts[beam * self.limits.text..][..self.len]
    }

    /// Tokens written so far.
    pub(crate) fn new_tokens(&self) -> usize {
        self.len - self.prompt
    }

    /// Takes the log-probabilities `[vocab_size]` of what may follow a beam; once for each beam
    /// before [`BeamScorer::advance`].
    pub(crate) fn offer(&mut self, beam: usize, log_probabilities: &[f32]) {
        let found = largest(log_probabilities, self.top);
        let best = self.top.len();
        let base = self.scores[beam];
        for candidate in &self.top[..found] {
            self.pool[self.pooled] = Continuation {
                score: base + candidate.value,
                beam: beam as u32,
                token: candidate.token,
                ends: 0,
            };
            self.pooled += 1;
        }
        self.pool[..self.pooled].sort_unstable_by(|a, b| {
            b.score.total_cmp(&a.score).then((a.beam, a.token).cmp(&(b.beam, b.token)))
        });
        self.pooled = self.pooled.min(best);
    }

    /// The best continuations of this step, best first.
    pub(crate) fn continuations(&self) -> &[Continuation] {
        &self.pool[..self.pooled]
    }

    /// Marks the continuations that end their text.
    pub(crate) fn find_ends(&mut self, stop: Option<&dyn StopCriterion>) {
        let at_limit = self.new_tokens() + 1 >= self.max_new;
        for continuation in &mut self.pool[..self.pooled] {
            let row = &mut self.texts[continuation.beam as usize * self.limits.text..];
            row[self.len] = continuation.token;
            let new = &row[self.prompt..=self.len];
            let ends = at_limit
                || Some(continuation.token) == self.eos_token_id
                || stop.is_some_and(|stop| stop.is_met(new));
            continuation.ends = u32::from(ends);
        }
    }

    /// Chooses the beams of the next step and updates the finished texts, after
    /// [`BeamScorer::find_ends`]. False when the search is over.
    pub(crate) fn advance(&mut self) -> bool {
        self.finish_texts();
        self.choose_beams();
        let all_end = self.pool[..self.pooled].iter().all(|continuation| continuation.ends != 0);
        self.pooled = 0;
        self.len += 1;
        self.improvable &= self.can_improve();
        let enough = self.options.early_stopping == EarlyStopping::True && self.all_finished();
        self.improvable && !enough && !all_end
    }

    fn length_divisor(&self, len: usize) -> f32 {
        powf(len as f64, f64::from(self.options.length_penalty)) as f32
    }

    fn all_finished(&self) -> bool {
        self.finished[..self.options.num_beams].iter().all(|finished| finished.reason != NONE)
    }

    /// The best `num_beams` continuations that do not end.
    fn choose_beams(&mut self) {
        let (beams, width) = (self.options.num_beams, self.limits.text);
        for continuation in &mut self.pool[..self.pooled] {
            if continuation.ends != 0 {
                continuation.score += EXCLUDED;
            }
        }
        // Stable without memory: those that end move behind the others one by one.
        let pool = &mut self.pool[..self.pooled];
        for i in 1..pool.len() {
            let mut at = i;
            while at > 0 && pool[at].score > pool[at - 1].score {
                pool.swap(at, at - 1);
                at -= 1;
            }
        }
        for (beam, continuation) in pool[..beams.min(pool.len())].iter().enumerate() {
            let parent = continuation.beam as usize;
            self.scores[beam] = continuation.score;
            (self.parents[beam], self.tokens[beam]) = (continuation.beam, continuation.token);
            let next = &mut self.next_texts[beam * width..][self.prompt..=self.len];
            let (last, before) = next.split_last_mut().expect("one new token at least");
            before.copy_from_slice(&self.texts[parent * width..][self.prompt..self.len]);
            *last = continuation.token;
        }
        core::mem::swap(&mut self.texts, &mut self.next_texts);
    }

    /// Merges the continuations that end into the finished texts.
    fn finish_texts(&mut self) {
        let beams = self.options.num_beams;
        let divisor = self.length_divisor(self.new_tokens() + 1);
        let enough = self.options.early_stopping == EarlyStopping::True && self.all_finished();
        let closed = enough || !self.improvable;
        let mut merged = beams;
        // Those behind the best `num_beams` are there so that as many can go on, no more.
        for (i, continuation) in self.pool[..self.pooled.min(beams)].iter().enumerate() {
            if continuation.ends == 0 || closed {
                continue;
            }
            let reason = if Some(continuation.token) == self.eos_token_id {
                StopReason::EndOfText
            } else if self.new_tokens() + 1 >= self.max_new {
                self.at_limit
            } else {
                StopReason::StopText
            };
            let score = continuation.score / divisor;
            let reason = reason as u32 | NEW;
            self.finished[merged] = Finished { score, row: i as u32, len: 0, reason };
            merged += 1;
        }
        self.keep_best(merged);
    }

    /// Of the first `merged` finished texts the best stay; new ones take the rows of those that go.
    fn keep_best(&mut self, merged: usize) {
        let beams = self.options.num_beams;
        // Insertion keeps the order of equals.
        for i in beams..merged {
            let mut at = i;
            while at > 0 && self.finished[at].score > self.finished[at - 1].score {
                self.finished.swap(at, at - 1);
                at -= 1;
            }
        }
        let mut used = 0u64;
        for finished in &self.finished[..beams] {
            if finished.reason & NEW == 0 {
                used |= 1 << finished.row;
            }
        }
        for i in 0..beams {
            if self.finished[i].reason & NEW == 0 {
                continue;
            }
            let continuation = self.pool[self.finished[i].row as usize];
            let row = used.trailing_ones();
            used |= 1 << row;
            let ends_with_eos = Some(continuation.token) == self.eos_token_id;
            let text = &self.texts[continuation.beam as usize * self.limits.text..];
            let before = &text[self.prompt..self.len];
            let out = &mut self.finished_tokens[row as usize * self.limits.new..];
            out[..before.len()].copy_from_slice(before);
            let mut len = before.len();
            if !ends_with_eos {
                out[len] = continuation.token;
                len += 1;
            }
            let finished = &mut self.finished[i];
            (finished.row, finished.len) = (row, len as u32);
            finished.reason &= !NEW;
        }
    }

    /// Whether a beam could still beat the worst finished text.
    fn can_improve(&self) -> bool {
        let penalty = self.options.length_penalty;
        let len = match self.options.early_stopping {
            EarlyStopping::Never if penalty > 0.0 => self.max_new,
            _ => self.new_tokens(),
        };
        let best = self.scores[0] / self.length_divisor(len);
        // Finished texts are in order, and a place is worse than any of them.
        let worst = match self.finished[self.options.num_beams - 1] {
            Finished { reason: NONE, .. } => EXCLUDED,
            Finished { score, .. } => score,
        };
        best > worst
    }

    /// Ends the search where it is: the beams become finished texts.
    pub(crate) fn stop(&mut self, reason: StopReason) {
        let beams = self.options.num_beams;
        if self.new_tokens() == 0 {
            return;
        }
        // As if each beam's last token were a continuation that ends.
        self.len -= 1;
        for beam in 0..beams {
            let (score, token) = (self.scores[beam], self.tokens[beam]);
            self.pool[beam] = Continuation { score, beam: beam as u32, token, ends: 1 };
        }
        let divisor = self.length_divisor(self.new_tokens() + 1);
        let mut merged = beams;
        for beam in 0..beams {
            // Those that never counted are copies of others.
            if self.scores[beam] > EXCLUDED / 2.0 {
                let (score, reason) = (self.scores[beam] / divisor, reason as u32 | NEW);
                self.finished[merged] = Finished { score, row: beam as u32, len: 0, reason };
                merged += 1;
            }
        }
        self.keep_best(merged);
        self.len += 1;
    }

    /// For each beam the beam of the step before that it continues.
    pub(crate) fn parents(&self) -> &[u32] {
        self.parents
    }

    /// The beams' last tokens.
    pub(crate) fn tokens(&self) -> &[u32] {
        self.tokens
    }

    /// The `i`-th best finished text: its new tokens, its score, and why it ended.
    pub(crate) fn finished(&self, i: usize) -> Option<(&[u32], f32, StopReason)> {
        let finished = self.finished[..self.options.num_beams].get(i)?;
        let reason = StopReason::from_code(finished.reason)?;
        let row = &self.finished_tokens[finished.row as usize * self.limits.new..];
        Some((&row[..finished.len as usize], finished.score, reason))
    }
}

/// Lines of an array.
fn lines<T>(len: usize) -> usize {
    Line::count_for(len * size_of::<T>())
}
