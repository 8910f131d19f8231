//! How much memory a session takes, and how it is cut into buffers.

use crate::branches::Branches;
use crate::config::Gpt2Config;
use crate::error::CapacityError;
use crate::kv_cache::{KvLayout, KvType};
use crate::memory::{Arena, Line};
use crate::nn::attention::{HeadScratch, QUERIES};
use crate::nn::linear::LhsBuffers;
use crate::overflow::{Overflow, Rules};
use crate::parallel::MAX_THREADS;
use crate::quant::tile::{GROUP, ROWS, groups};

/// What a session is to be able to do. Decides its memory, never its numbers, but for `kv`, and for
/// what the text has besides the context: `window`, `keep` and `tail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How keys and values are stored.
    pub kv: KvType,
    /// Positions whose keys and values are kept, 1 to `n_ctx`. A shorter window than `n_ctx` slides:
    /// attention sees the first `keep` positions and the last `window - keep`. Positions still end
    /// at `n_ctx`.
    pub window: usize,
    /// Tokens at the beginning of the text that a sliding window and [`SessionOptions::overflow`]
    /// leave where they are: below `window`, and below half of `n_ctx` if the context overflows.
    /// With one or more a sliding window loses little (Xiao et al. 2023, "attention sinks").
    pub keep: usize,
    /// What happens when all positions are used.
    pub overflow: Overflow,
    /// Tokens behind the kept ones when the context begins anew, 1 to `n_ctx - keep - 1`, with
    /// [`Overflow::Shadow`] to `(n_ctx - keep) / 2`, which is also what `None` means.
    pub tail: Option<usize>,
    /// Most tokens that go through the layers together in prefill.
    pub batch: usize,
    /// Most threads that a [`crate::parallel::Parallel`] given to the session has.
    pub threads: usize,
    /// Rows of logits computed together where more than the last are asked for.
    pub logit_rows: usize,
    /// Most sequences that share a beginning and go on side by side.
    pub branches: usize,
    /// Slots of the cache, besides those of the window, for what such sequences do not share.
    pub branch_slots: usize,
}

impl SessionOptions {
    /// Tokens of a batch where nothing else is said. On x86-64 products are so fast that reading the
    /// weights anew for each batch takes a part of the time.
    pub const DEFAULT_BATCH: usize = if cfg!(target_arch = "x86_64") { 256 } else { 128 };
    /// Largest `batch`.
    pub const MAX_BATCH: usize = 1024;
    /// Largest `branches`.
    pub const MAX_BRANCHES: usize = 64;

    /// Slots of the cache.
    pub(crate) fn slots(&self) -> usize {
        self.window + self.branch_slots
    }

    /// Most tokens that go through the layers together: a batch of a text, or one of each branch.
    pub(crate) fn rows(&self) -> usize {
        // One token is two rows if it is read into the shadow as well.
        let least = if self.overflow == Overflow::Shadow { 2 } else { 1 };
        self.batch.min(self.window).max(self.branches).max(least)
    }

    /// # Errors
    /// If `keep` or `tail` is out of range, or there are branches in a context that overflows.
    pub(crate) fn rules(&self, config: &Gpt2Config) -> Result<Rules, CapacityError> {
        let (overflow, n_ctx, keep) = (self.overflow, config.n_ctx as usize, self.keep);
        let stops = overflow == Overflow::Stop;
        let half = if stops { n_ctx } else { Rules::max_keep(n_ctx) };
        let max = half.min(self.window - 1);
        if keep > max {
            return Err(CapacityError::Keep { keep, max });
        }
        if stops {
            return Ok(Rules { overflow, n_ctx, keep, tail: 0 });
        }
        if self.branches > 1 {
            let (name, value) = ("branches", self.branches);
            return Err(CapacityError::Option { name, value, max: 1 });
        }
        let tail = self.tail.unwrap_or(Rules::default_tail(n_ctx, keep));
        let max = Rules::max_tail(overflow, n_ctx, keep);
        if !(1..=max).contains(&tail) {
            return Err(CapacityError::Option { name: "tail", value: tail, max });
        }
        Ok(Rules { overflow, n_ctx, keep, tail })
    }

    /// The whole context, f32 cache, batches of [`SessionOptions::DEFAULT_BATCH`], one thread, one row
    /// of logits.
    pub fn new(config: &Gpt2Config) -> Self {
        let window = config.n_ctx as usize;
        Self {
            kv: KvType::F32,
            window,
            keep: 0,
            overflow: Overflow::Stop,
            tail: None,
            batch: window.min(Self::DEFAULT_BATCH),
            threads: 1,
            logit_rows: 1,
            branches: 1,
            branch_slots: 0,
        }
    }
}

/// Bytes that a session takes, known before anything is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Keys and values.
    pub kv_bytes: usize,
    /// The second cache of [`Overflow::Shadow`].
    pub shadow_bytes: usize,
    /// The tokens in the context, where it overflows.
    pub history_bytes: usize,
    /// Activations of a batch, and per thread.
    pub scratch_bytes: usize,
    /// Logits.
    pub logits_bytes: usize,
    /// Tables of the branches' slots.
    pub branch_bytes: usize,
}

impl Plan {
    /// What a session of this model with these options takes.
    ///
    /// # Errors
    /// If an option is out of range, or the sum does not fit the address space.
    pub fn new(config: &Gpt2Config, options: &SessionOptions) -> Result<Self, CapacityError> {
        Ok(Self::from_sizes(&Sizes::new(config, options)?))
    }

    fn from_sizes(sizes: &Sizes) -> Self {
        Self {
            kv_bytes: sizes.kv_lines * Line::BYTES,
            shadow_bytes: sizes.shadow_lines() * Line::BYTES,
            history_bytes: sizes.history_lines() * Line::BYTES,
            scratch_bytes: sizes.scratch_lines() * Line::BYTES,
            logits_bytes: sizes.logits_lines() * Line::BYTES,
            branch_bytes: sizes.branch_lines() * Line::BYTES,
        }
    }

    /// All of it.
    pub const fn total_bytes(&self) -> usize {
        self.kv_bytes
            + self.shadow_bytes
            + self.history_bytes
            + self.scratch_bytes
            + self.logits_bytes
            + self.branch_bytes
    }

    /// Lines of memory to hand to [`crate::session::Session::new`].
    pub const fn lines(&self) -> usize {
        self.total_bytes() / Line::BYTES
    }
}

/// Lengths of all buffers, in elements.
pub(crate) struct Sizes {
    kv_lines: usize,
    /// Caches: one, or a shadow besides.
    caches: usize,
    /// Tokens of the context, where it overflows.
    history: usize,
    batch: usize,
    threads: usize,
    n_embd: usize,
    /// `3 n_embd`, or `n_inner`: the first's use is over before the second's begins.
    wide: usize,
    /// `n_embd` rounded up to 16.
    narrow: usize,
    /// Rows of activations: a batch, or one per thread.
    lhs_rows: usize,
    /// Widest input of a matrix.
    lhs_cols: usize,
    logits: usize,
    hd: usize,
    slots: usize,
    /// Branches and positions of their tables; none with one branch.
    branches: usize,
    window: usize,
    /// Slots that branches may use.
    places: usize,
}

impl Sizes {
    pub(crate) fn new(
        config: &Gpt2Config,
        options: &SessionOptions,
    ) -> Result<Self, CapacityError> {
        let n_ctx = config.n_ctx as usize;
        for (name, value, max) in [
            ("window", options.window, n_ctx),
            ("batch", options.batch, SessionOptions::MAX_BATCH),
            ("threads", options.threads, MAX_THREADS),
            ("logit_rows", options.logit_rows, SessionOptions::MAX_BATCH),
            ("branches", options.branches, SessionOptions::MAX_BRANCHES),
        ] {
            if !(1..=max).contains(&value) {
                return Err(CapacityError::Option { name, value, max });
            }
        }
        let most_slots = SessionOptions::MAX_BRANCHES * n_ctx;
        if options.branch_slots > most_slots {
            let (name, value) = ("branch_slots", options.branch_slots);
            return Err(CapacityError::Option { name, value, max: most_slots });
        }
        options.rules(config)?;
        let layout = KvLayout::new(config, options.kv, options.slots());
        let batch = options.rows();
        let (n_embd, n_inner) = (config.n_embd as usize, config.n_inner as usize);
        let sizes = Self {
            kv_lines: layout.lines().ok_or(CapacityError::TooLarge)?,
            caches: if options.overflow == Overflow::Shadow { 2 } else { 1 },
            history: if options.overflow == Overflow::Stop { 0 } else { n_ctx },
            batch,
            threads: options.threads,
            n_embd,
            wide: (3 * n_embd).max(n_inner).next_multiple_of(ROWS),
            narrow: n_embd.next_multiple_of(ROWS),
            lhs_rows: batch.max(options.threads),
            lhs_cols: n_embd.max(n_inner),
            logits: options.logit_rows.min(batch)
                * (config.vocab_size as usize).next_multiple_of(ROWS),
            hd: layout.padded_head_dim(),
            slots: layout.padded_slots(),
            branches: if options.branches > 1 { options.branches } else { 0 },
            window: options.window,
            places: if options.branches > 1 { options.slots() } else { 0 },
        };
        // Each length fits 32 bits, their sum in bytes may not.
        if sizes.total_lines() > isize::MAX as u64 / Line::BYTES as u64 {
            return Err(CapacityError::TooLarge);
        }
        Ok(sizes)
    }

    fn total_lines(&self) -> u64 {
        let others =
            [self.history_lines(), self.scratch_lines(), self.logits_lines(), self.branch_lines()];
        self.caches as u64 * self.kv_lines as u64 + others.map(|n| n as u64).iter().sum::<u64>()
    }

    fn shadow_lines(&self) -> usize {
        (self.caches - 1) * self.kv_lines
    }

    fn history_lines(&self) -> usize {
        Line::count_for(4 * self.history)
    }

    fn logits_lines(&self) -> usize {
        self.logits.div_ceil(Line::BYTES / 4)
    }

    /// Queries whose scores are kept together.
    fn queries(&self) -> usize {
        QUERIES.min(self.batch)
    }

    /// In the order of [`Buffers::cut`].
    fn branch_lines(&self) -> usize {
        2 * Line::count_for(4 * self.branches * self.window) + Line::count_for(4 * self.places)
    }

    fn lhs_groups(&self) -> usize {
        self.lhs_rows * groups(self.lhs_cols)
    }

    /// In the order of [`Buffers::cut`].
    fn scratch_lines(&self) -> usize {
        let floats = |n: usize| Line::count_for(4 * n);
        let per_thread = 2 * floats(self.hd)
            + Line::count_for(self.queries() * self.hd)
            + floats(self.queries() * self.slots)
            + 2 * Line::count_for(self.slots);
        2 * floats(self.batch * self.n_embd)
            + floats(self.batch * self.wide)
            + floats(self.batch * self.narrow)
            + floats(self.lhs_rows * self.lhs_cols)
            + Line::count_for(self.lhs_groups() * GROUP)
            + 2 * floats(self.lhs_groups())
            + self.threads * per_thread
    }
}

/// A session's memory, cut into buffers. `m` is the number of rows of the batch at hand.
pub(crate) struct Buffers<'m> {
    /// The caches, layer after layer; the second is empty where there is no shadow.
    pub(crate) caches: [&'m mut [Line]; 2],
    /// Tokens of the context `[n_ctx]`, empty where it does not overflow.
    pub(crate) history: &'m mut [u32],
    /// Residual stream `[m][n_embd]`.
    pub(crate) x: &'m mut [f32],
    /// What attention found `[m][n_embd]`.
    pub(crate) found: &'m mut [f32],
    /// Output of `c_attn` or `c_fc`, `[m][rows rounded up to 16]`.
    pub(crate) wide: &'m mut [f32],
    /// Output of a `c_proj`, `[m][n_embd rounded up to 16]`.
    pub(crate) narrow: &'m mut [f32],
    pub(crate) lhs: LhsBuffers<'m>,
    pub(crate) heads: [HeadScratch<'m>; MAX_THREADS],
    /// `[logit_rows][vocab_size rounded up to 16]`
    pub(crate) logits: &'m mut [f32],
    pub(crate) branches: Branches<'m>,
}

impl<'m> Buffers<'m> {
    /// # Errors
    /// If there is less memory than the plan says.
    pub(crate) fn cut(sizes: &Sizes, memory: &'m mut [Line]) -> Result<Self, CapacityError> {
        let needed = Plan::from_sizes(sizes).lines();
        if memory.len() < needed {
            return Err(CapacityError::Workspace {
                needed: needed * Line::BYTES,
                given: memory.len() * Line::BYTES,
            });
        }
        let mut arena = Arena::new(memory);
        Ok(Self {
            caches: [arena.take(sizes.kv_lines), arena.take(sizes.shadow_lines())],
            history: arena.take(sizes.history),
            logits: arena.take(sizes.logits),
            branches: Branches::new(
                sizes.window,
                arena.take(sizes.branches * sizes.window),
                arena.take(sizes.branches * sizes.window),
                arena.take(sizes.places),
            ),
            x: arena.take(sizes.batch * sizes.n_embd),
            found: arena.take(sizes.batch * sizes.n_embd),
            wide: arena.take(sizes.batch * sizes.wide),
            narrow: arena.take(sizes.batch * sizes.narrow),
            lhs: LhsBuffers {
                cols: sizes.lhs_cols,
                float: arena.take(sizes.lhs_rows * sizes.lhs_cols),
                q: arena.take(sizes.lhs_groups() * GROUP),
                scales: arena.take(sizes.lhs_groups()),
                sums: arena.take(sizes.lhs_groups()),
            },
            heads: core::array::from_fn(|thread| {
                let used = thread < sizes.threads;
                let (hd, slots) = if used { (sizes.hd, sizes.slots) } else { (0, 0) };
                HeadScratch {
                    query: arena.take(hd),
                    sum: arena.take(hd),
                    quantized: arena.take(sizes.queries() * hd),
                    scores: arena.take(sizes.queries() * slots),
                    high: arena.take(slots),
                    low: arena.take(slots),
                }
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Activation;

    /// The largest of everything that opens takes more than 32 bits can count, and a machine that
    /// has no more must say so instead of wrapping.
    #[test]
    fn largest_session_is_planned_or_refused() {
        let config = Gpt2Config {
            vocab_size: Gpt2Config::MAX_VOCAB,
            n_ctx: Gpt2Config::MAX_CTX,
            n_embd: Gpt2Config::MAX_EMBD,
            n_layer: Gpt2Config::MAX_LAYER,
            n_head: Gpt2Config::MAX_EMBD / 128,
            n_inner: Gpt2Config::MAX_INNER,
            activation: Activation::Gelu,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tied_head: true,
            layer_norm_epsilon: 1e-5,
            bos_token_id: None,
            eos_token_id: None,
        };
        config.validate().unwrap();
        let batch = SessionOptions::MAX_BATCH;
        let options = SessionOptions { batch, logit_rows: batch, ..SessionOptions::new(&config) };
        for kv in [KvType::F32, KvType::F16, KvType::Q8] {
            let fits = |plan: Result<Plan, CapacityError>| match plan {
                Ok(_) => usize::BITS == 64,
                Err(error) => usize::BITS == 32 && error == CapacityError::TooLarge,
            };
            let plan = Plan::new(&config, &SessionOptions { kv, ..options });
            assert!(fits(plan), "{plan:?}");
            // The cache alone fits here, the logits of 1024 rows do not.
            let one = Gpt2Config { n_layer: 1, n_ctx: 1024, ..config };
            let plan = Plan::new(&one, &SessionOptions { kv, window: 1024, ..options });
            assert!(fits(plan), "{plan:?}");
        }
    }
}
