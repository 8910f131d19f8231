//! One text being read and written, or several that share a beginning: the forward pass over a
//! cache.

mod branching;
mod context;
mod layers;
mod saving;

use crate::error::CapacityError;
use crate::format::Role;
use crate::kv_cache::KvLayout;
use crate::memory::Line;
use crate::model::Gpt2;
use crate::overflow::{Overflow, Progress, Rules};
use crate::parallel::Parallel;
use crate::workspace::{Buffers, SessionOptions, Sizes};

/// Looks at what happens inside; every method has a default that does nothing.
///
/// Rows are those of one batch: a prompt longer than the session's batch comes in several.
pub trait Tap {
    /// The residual stream, `[m][n_embd]`, of the tokens from position `first` on: before block 0
    /// (`layer` 0) and after each block (`layer` 1 to `n_layer`).
    fn hidden(&mut self, layer: usize, first: usize, rows: &[f32]) {
        let _ = (layer, first, rows);
    }
    /// Whether [`Tap::attention`] wants this layer; asking for it costs the scores once more.
    fn wants_attention(&mut self, layer: usize) -> bool {
        let _ = layer;
        false
    }
    /// Attention weights of one head for the token at `position`: one per visible slot, oldest
    /// first as long as the window has not slid.
    fn attention(&mut self, layer: usize, head: usize, position: usize, weights: &[f32]) {
        let _ = (layer, head, position, weights);
    }
}

/// For another call. (`as_deref_mut` would lend it for as long as it lives, so a loop could do so once.)
fn reborrow<'t>(tap: &'t mut Option<&mut dyn Tap>) -> Option<&'t mut dyn Tap> {
    match tap {
        Some(tap) => Some(&mut **tap),
        None => None,
    }
}

/// Of which tokens logits are wanted.
enum Wanted<'a> {
    Last,
    All(&'a mut dyn FnMut(usize, &[f32])),
}

/// Tokens that go through the layers together.
struct Batch<'a> {
    /// Consecutive ones of a text, or one of each branch.
    tokens: &'a [u32],
    /// How many of them, the last ones, are read into the shadow as well.
    shadow: usize,
    /// The slot of the first branch's token.
    branch_slot: Option<usize>,
    /// How many of them, the last ones, are completed in the last block; the others leave their keys
    /// and values there.
    outputs: usize,
}

/// A text: its cache, its position, and scratch memory. Allocates nothing.
pub struct Session<'m, 'w> {
    model: Gpt2<'w>,
    layout: KvLayout,
    window: usize,
    batch: usize,
    branches: usize,
    branch_slots: usize,
    threads: usize,
    rules: Rules,
    progress: Progress,
    buffers: Buffers<'m>,
}

impl core::fmt::Debug for Session<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Session")
            .field("progress", &self.progress)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

impl<'m, 'w> Session<'m, 'w> {
    /// A session in the caller's memory: [`crate::workspace::Plan::lines`] says how much it takes.
    ///
    /// # Errors
    /// If an option is out of range or the memory too small.
    pub fn new(
        model: Gpt2<'w>,
        options: &SessionOptions,
        memory: &'m mut [Line],
    ) -> Result<Self, CapacityError> {
        let sizes = Sizes::new(model.config(), options)?;
        let buffers = Buffers::cut(&sizes, memory)?;
        let layout = KvLayout::new(model.config(), options.kv, options.slots());
        let batch = options.batch.min(options.window);
        Ok(Self {
            model,
            layout,
            window: options.window,
            batch,
            branches: if options.branches > 1 { options.branches } else { 0 },
            branch_slots: options.branch_slots,
            threads: options.threads,
            rules: options.rules(model.config())?,
            progress: Progress::default(),
            buffers,
        })
    }

    /// The model.
    pub fn model(&self) -> &Gpt2<'w> {
        &self.model
    }

    /// Feeds tokens and returns the logits `[vocab_size]` that follow the last one.
    ///
    /// Feeding them together or one by one gives the same bits. Where the context begins anew on the
    /// way, only what the last one holds is computed.
    ///
    /// # Errors
    /// If no token is given, one is not in the vocabulary, no position is left and
    /// [`Overflow::Stop`] is the policy, or `par` has more threads than the session was made for.
    /// Nothing is fed then.
    ///
    /// # Panics
    /// If there are branches: see [`Session::feed_branches`].
    pub fn feed(&mut self, tokens: &[u32], par: &dyn Parallel) -> Result<&[f32], CapacityError> {
        assert_eq!(self.buffers.branches.count(), 0, "the text is split into branches");
        self.check(tokens, tokens.len(), par)?;
        let rest = self.skip(tokens, par);
        self.forward(rest, par, None, Wanted::Last)?;
        Ok(self.last_logits())
    }

    /// [`Session::feed`], showing what happens inside.
    ///
    /// Here the last block goes over all tokens; [`Session::feed`] completes it for the last one
    /// only, and stores the others' keys and values.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn feed_tapped(
        &mut self,
        tokens: &[u32],
        par: &dyn Parallel,
        tap: &mut dyn Tap,
    ) -> Result<&[f32], CapacityError> {
        self.forward(tokens, par, Some(tap), Wanted::Last)?;
        Ok(self.last_logits())
    }

    /// Feeds tokens and calls `each(i, logits)` for every one of them, in order.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn feed_all(
        &mut self,
        tokens: &[u32],
        par: &dyn Parallel,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), CapacityError> {
        self.forward(tokens, par, None, Wanted::All(each))
    }

    fn last_logits(&self) -> &[f32] {
        &self.buffers.logits[..self.model.config().vocab_size as usize]
    }

    /// What is behind `ln_f` for rows of the residual stream: `rows` and `out` are `[m][n_embd]`.
    ///
    /// # Panics
    /// If the lengths differ or are no whole rows.
    pub fn final_norm(model: &Gpt2<'_>, rows: &[f32], out: &mut [f32]) {
        let n = model.config().n_embd as usize;
        assert!(rows.len() == out.len() && rows.len().is_multiple_of(n));
        let norm = model.norm(Role::LnFWeight, Role::LnFBias, 0);
        for (x, out) in rows.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
            model.kernels().layer_norm(x, norm.weight, norm.bias, norm.eps, out);
        }
    }

    /// # Errors
    /// If the tokens cannot be fed, `adding` of them behind each other.
    fn check(
        &self,
        tokens: &[u32],
        adding: usize,
        par: &dyn Parallel,
    ) -> Result<(), CapacityError> {
        let config = self.model.config();
        if !(1..=self.threads).contains(&par.threads()) {
            let (value, max) = (par.threads(), self.threads);
            return Err(CapacityError::Option { name: "threads", value, max });
        }
        let vocab_size = config.vocab_size;
        if let Some(&id) = tokens.iter().find(|&&id| id >= vocab_size) {
            return Err(CapacityError::TokenId { id, vocab_size });
        }
        let (used, capacity) = (self.progress.position, config.n_ctx as usize);
        let stops = self.rules.overflow == Overflow::Stop;
        if adding == 0 || stops && adding > capacity - used {
            return Err(CapacityError::ContextFull { used, adding, capacity });
        }
        Ok(())
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        par: &dyn Parallel,
        mut tap: Option<&mut dyn Tap>,
        mut wanted: Wanted<'_>,
    ) -> Result<(), CapacityError> {
        assert_eq!(self.buffers.branches.count(), 0, "the text is split into branches");
        self.check(tokens, tokens.len(), par)?;
        let mut done = 0;
        while done < tokens.len() {
            self.make_room(par);
            let mut batch = self.next_batch(&tokens[done..]);
            let m = batch.tokens.len();
            let logits = match &wanted {
                Wanted::All(_) => 0..m,
                Wanted::Last if done + m == tokens.len() => m - 1..m,
                Wanted::Last => m..m,
            };
            batch.outputs = if tap.is_some() { m } else { logits.len() };
            self.layers(&batch, par, reborrow(&mut tap));
            self.logits(logits, par, &mut |i, row| {
                if let Wanted::All(each) = &mut wanted {
                    each(done + i, row);
                }
            });
            self.record(batch.tokens);
            self.progress.fed += m;
            done += m;
        }
        Ok(())
    }
}
