//! Where a text is in its context, and how it goes on when all positions are used.

use core::ops::Range;

use super::{Batch, Session};
use crate::nn::parting::Parting;
use crate::overflow::{Overflow, Progress};
use crate::parallel::Parallel;

/// # Past the last position
///
/// [`SessionOptions::overflow`](crate::workspace::SessionOptions::overflow) says what happens when
/// all `n_ctx` positions are used. With [`Overflow::Refill`] and [`Overflow::Shadow`] the context
/// begins anew, and holds the first `keep` and the last `tail` tokens of the text. Its logits are, bit
/// for bit, those of a session that was fed with these and what has followed since.
impl Session<'_, '_> {
    /// Tokens of the text fed so far.
    pub fn fed(&self) -> usize {
        self.progress.fed
    }

    /// The position of the next token: tokens that are in the context. As many as [`Session::fed`]
    /// until all positions are used for the first time.
    pub fn position(&self) -> usize {
        self.progress.position
    }

    /// Position of the shadow's next token, 0 where there is no shadow.
    pub fn shadow_position(&self) -> usize {
        self.rules.shadow_positions(self.progress.position)
    }

    /// What happens when all positions are used.
    pub fn overflow(&self) -> Overflow {
        self.rules.overflow
    }

    /// Tokens that may still be fed: positions that are left, or `usize::MAX` where the context
    /// begins anew.
    pub fn remaining(&self) -> usize {
        match self.rules.overflow {
            Overflow::Stop => self.rules.n_ctx - self.progress.position,
            _ => usize::MAX,
        }
    }

    /// Tokens that may be fed behind the next one and be taken back with [`Session::truncate`].
    pub(crate) fn room_for_drafts(&self) -> usize {
        let n_ctx = self.rules.n_ctx;
        let position = match self.progress.position {
            full if full == n_ctx && self.remaining() > 0 => self.rules.restart(),
            position => position,
        };
        n_ctx.min(self.window).saturating_sub(position).saturating_sub(1)
    }

    /// Whether [`Session::truncate`] can go back to the first `fed` tokens of the text.
    pub fn can_truncate(&self, fed: usize) -> bool {
        let Progress { fed: all, position, .. } = self.progress;
        let dropped = self.progress.dropped();
        let begun_at = if dropped == 0 { 0 } else { dropped + self.rules.restart() };
        let slid = position > self.window;
        fed == all || fed <= self.rules.keep.min(all) || fed < all && fed >= begun_at && !slid
    }

    /// Forgets all but the first `fed` tokens of the text, and all branches.
    ///
    /// # Panics
    /// If there are fewer, or [`Session::can_truncate`] is false: the window has slid over some, or
    /// the context has begun anew behind them. All, and any that are kept, can be forgotten.
    /// If there are branches that differ before that position.
    pub fn truncate(&mut self, fed: usize) {
        assert!(self.can_truncate(fed), "these tokens are not in the context any more");
        if self.buffers.branches.count() > 0 {
            assert!(fed <= self.buffers.branches.shared(), "branches differ there");
            self.buffers.branches.clear();
        }
        let dropped = if fed <= self.rules.keep { 0 } else { self.progress.dropped() };
        (self.progress.fed, self.progress.position) = (fed, fed - dropped);
    }

    /// The tokens that go through the layers next, at least one: there is a position for it. No
    /// outputs are wanted yet.
    pub(super) fn next_batch<'t>(&self, tokens: &'t [u32]) -> Batch<'t> {
        let position = self.progress.position;
        // A batch must not overwrite slots that its own first tokens still see.
        let free = self.window.saturating_sub(position).max(1);
        let mut m = tokens.len().min(self.batch).min(free).min(self.rules.n_ctx - position);
        if m == self.batch && m < tokens.len() {
            m = Parting::of(self.model.kernels().isa()).where_others_follow(m);
        }
        if self.rules.overflow != Overflow::Shadow {
            return Batch { tokens: &tokens[..m], shadow: 0, branch_slot: None, outputs: 0 };
        }
        // Those before the shadow's first one are read once, the others twice.
        let once = self.rules.shadow_start().saturating_sub(position);
        let shadow_free = self.window.saturating_sub(self.shadow_position()).max(1);
        let rows = self.batch.max(2);
        m = m.min(rows.midpoint(once)).min(once + shadow_free);
        if position < self.rules.keep {
            // The shadow has the kept ones before it has others: see `record`.
            m = m.min(once);
        }
        let shadow = m.saturating_sub(once);
        Batch { tokens: &tokens[..m], shadow, branch_slot: None, outputs: 0 }
    }

    /// Moves on behind tokens that went through the layers.
    pub(super) fn record(&mut self, tokens: &[u32]) {
        let first = self.progress.position;
        let end = first + tokens.len();
        self.progress.position = end;
        if self.rules.overflow == Overflow::Stop {
            return;
        }
        self.buffers.history[first..end].copy_from_slice(tokens);
        if self.rules.overflow == Overflow::Shadow && first < self.rules.keep {
            self.share_kept(first..end.min(self.rules.keep));
        }
    }

    /// Copies kept keys and values into the other cache, where they stay as well.
    fn share_kept(&mut self, positions: Range<usize>) {
        let [one, other] = &mut self.buffers.caches;
        let (live, shadow) = if self.progress.live == 0 { (one, other) } else { (other, one) };
        let head_lines = self.layout.head_lines();
        let heads = live.chunks_exact(head_lines).zip(shadow.chunks_exact_mut(head_lines));
        for (live, shadow) in heads {
            // A kept position has the slot of its number.
            positions.clone().for_each(|slot| self.layout.copy_across(live, shadow, slot));
        }
    }

    /// Makes sure that there is a position for another token.
    pub(super) fn make_room(&mut self, par: &dyn Parallel) {
        let Progress { position, live, .. } = self.progress;
        if position < self.rules.n_ctx {
            return;
        }
        if self.rules.overflow == Overflow::Shadow {
            let (start, keep) = (self.rules.shadow_start(), self.rules.keep);
            self.buffers.history.copy_within(start.., keep);
            self.progress.live = 1 - live;
            self.progress.position = self.rules.restart();
        } else {
            self.restart(position, &[], par);
        }
    }

    /// Of tokens that all positions will not do for, reads what the last context on the way begins
    /// with, and returns those behind it; no token in between has to be computed. The policy is not
    /// [`Overflow::Stop`], or they fit.
    pub(super) fn skip<'t>(&mut self, tokens: &'t [u32], par: &dyn Parallel) -> &'t [u32] {
        let position = self.progress.position;
        let Some(_) = self.rules.behind_last_restart(position, tokens.len()) else {
            return tokens;
        };
        let (kept, tokens) = tokens.split_at(self.rules.keep.saturating_sub(position));
        self.read(kept, par);
        self.progress.fed += kept.len();

        let position = self.progress.position;
        let Some(restarts) = self.rules.behind_last_restart(position, tokens.len()) else {
            unreachable!("what is kept fits")
        };
        // The shadow may be on its way there.
        let shadow_has_begun =
            self.rules.overflow == Overflow::Shadow && position >= self.rules.shadow_start();
        if restarts.count == 1 && shadow_has_begun {
            return tokens;
        }
        let (before, behind) = tokens.split_at(tokens.len() - restarts.tokens);
        self.restart(position + before.len(), before, par);
        self.progress.fed += before.len();
        behind
    }

    /// Begins a context anew: what is kept of this one, then the `tail` tokens before `end`, a
    /// position of this context if `ahead` followed.
    fn restart(&mut self, end: usize, ahead: &[u32], par: &dyn Parallel) {
        let (keep, tail) = (self.rules.keep, self.rules.tail);
        let position = self.progress.position;
        let history = core::mem::take(&mut self.buffers.history);
        for i in 0..tail {
            // Always behind `keep + i`: what is overwritten was read already.
            let from = end - tail + i;
            history[keep + i] =
                if from < position { history[from] } else { ahead[from - position] };
        }
        self.progress.position = keep;
        let mut rest = &history[keep..keep + tail];
        while !rest.is_empty() {
            let batch = self.next_batch(rest);
            self.layers(&batch, par, None);
            self.progress.position += batch.tokens.len();
            rest = &rest[batch.tokens.len()..];
        }
        self.buffers.history = history;
    }

    /// Reads tokens of which no logits are wanted.
    fn read(&mut self, mut tokens: &[u32], par: &dyn Parallel) {
        while !tokens.is_empty() {
            let batch = self.next_batch(tokens);
            self.layers(&batch, par, None);
            self.record(batch.tokens);
            tokens = &tokens[batch.tokens.len()..];
        }
    }
}
