//! Several texts that share a beginning, going on side by side.

use super::{Batch, Session};
use crate::branches::Branches;
use crate::error::CapacityError;
use crate::memory::Line;
use crate::parallel::Parallel;
use crate::quant::tile::ROWS;

/// # Branches
///
/// [`Session::split`] turns the text into branches that all go on from its end. Then each call of
/// [`Session::feed_branches`] feeds one token to each of them, as one batch, and
/// [`Session::reorder`] lets branches be continued twice or given up. What they have in common is
/// in the cache once. A branch's logits are, bit for bit, those of its text alone.
impl Session<'_, '_> {
    /// Splits the text into `count` branches.
    ///
    /// # Errors
    /// If the session was made for fewer branches, or the window has slid.
    ///
    /// # Panics
    /// If there are branches already.
    pub fn split(&mut self, count: usize) -> Result<(), CapacityError> {
        assert_eq!(self.buffers.branches.count(), 0, "the text is split already");
        if !(1..=self.branches).contains(&count) {
            let (name, max) = ("branches", self.branches);
            return Err(CapacityError::Option { name, value: count, max });
        }
        let (used, capacity) = (self.progress.position, self.window);
        if used > capacity {
            return Err(CapacityError::ContextFull { used, adding: 1, capacity });
        }
        self.buffers.branches.split(count, used);
        Ok(())
    }

    /// Branches there are; 0 while there is one text.
    pub fn branches(&self) -> usize {
        self.buffers.branches.count()
    }

    /// Positions that are left to branches: they end where the window would begin to slide.
    pub fn remaining_in_window(&self) -> usize {
        self.window.min(self.model.config().n_ctx as usize).saturating_sub(self.progress.position)
    }

    /// Feeds one token to each branch.
    ///
    /// # Errors
    /// If there is not one token for each branch, one is not in the vocabulary, the window is full,
    /// the branches see all slots of the cache, or `par` has more threads than the session was
    /// made for. Nothing is fed then.
    pub fn feed_branches(
        &mut self,
        tokens: &[u32],
        par: &dyn Parallel,
    ) -> Result<(), CapacityError> {
        let count = self.buffers.branches.count();
        if count == 0 || tokens.len() != count {
            let (name, value) = ("tokens", tokens.len());
            return Err(CapacityError::Option { name, value, max: count });
        }
        self.check(tokens, 1, par)?;
        if self.buffers.branches.wants_compacting() {
            self.compact();
        }
        if self.remaining_in_window() == 0 {
            let (used, capacity) = (self.progress.position, self.window);
            return Err(CapacityError::ContextFull { used, adding: 1, capacity });
        }
        let slots = self.window + self.branch_slots;
        let branches = &mut self.buffers.branches;
        let first = branches.extend().ok_or(CapacityError::SlotsFull { slots })?;
        let batch = Batch { tokens, shadow: 0, branch_slot: Some(first), outputs: count };
        self.layers(&batch, par, None);
        self.logits(0..count, par, &mut |_, _| {});
        (self.progress.position, self.progress.fed) =
            (self.progress.position + 1, self.progress.fed + 1);
        Ok(())
    }

    /// The logits `[vocab_size]` of a branch after [`Session::feed_branches`], to do with as one
    /// likes.
    ///
    /// # Panics
    /// If there is no such branch, or the session was made with fewer `logit_rows` than branches.
    pub fn branch_logits(&mut self, branch: usize) -> &mut [f32] {
        let vocab = self.model.config().vocab_size as usize;
        let stride = vocab.next_multiple_of(ROWS);
        assert!(branch < self.buffers.branches.count());
        &mut self.buffers.logits[branch * stride..][..vocab]
    }

    /// The residual stream `[n_embd]` of a branch's last token after the last block; see
    /// [`Session::final_norm`].
    ///
    /// # Panics
    /// If there is no such branch.
    pub fn branch_hidden(&self, branch: usize) -> &[f32] {
        let n_embd = self.model.config().n_embd as usize;
        assert!(branch < self.buffers.branches.count());
        &self.buffers.x[branch * n_embd..][..n_embd]
    }

    /// From now on branch `i` goes on where branch `parents[i]` is, and there are as many branches
    /// as `parents`. Only slot numbers are copied. Logits stay where they are.
    ///
    /// # Panics
    /// If there is no such branch, or there are more than the session was made for.
    pub fn reorder(&mut self, parents: &[u32]) {
        let count = self.buffers.branches.count();
        assert!((1..=self.branches).contains(&parents.len()));
        assert!(parents.iter().all(|&parent| (parent as usize) < count));
        self.buffers.branches.reorder(parents);
    }

    /// Makes one branch the session's text and gives up the others.
    ///
    /// # Panics
    /// If there is no such branch.
    pub fn keep(&mut self, branch: usize) {
        self.reorder(&[branch as u32]);
        self.compact();
        self.buffers.branches.clear();
    }

    /// Moves keys and values so that no slot is unseen.
    fn compact(&mut self) {
        let (layout, kv) = (&self.layout, &mut *self.buffers.caches[self.progress.live]);
        let branches: &mut Branches<'_> = &mut self.buffers.branches;
        let heads: usize = layout.head_lines();
        branches.compact(|from, to| {
            kv.chunks_exact_mut(heads).for_each(|head: &mut [Line]| layout.copy(head, from, to));
        });
    }
}
