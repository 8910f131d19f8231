//! One text being read and written, or several that share a beginning: the forward pass over a
//! cache.

mod branching;
mod context;
mod saving;

use crate::error::CapacityError;
use crate::format::Role;
use crate::kernels::{Columns, Kernels};
use crate::kv_cache::KvLayout;
use crate::memory::Line;
use crate::model::Gpt2;
use crate::nn::attention::Attention;
use crate::nn::embedding::embed;
use crate::overflow::{Overflow, Progress, Rules};
use crate::parallel::Parallel;
use crate::quant::tile::ROWS;
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

/// Looks at nothing.
struct NoTap;
impl Tap for NoTap {}

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
        self.feed_tapped(rest, par, &mut NoTap)
    }

    /// [`Session::feed`], showing what happens inside.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn feed_tapped(
        &mut self,
        tokens: &[u32],
        par: &dyn Parallel,
        tap: &mut dyn Tap,
    ) -> Result<&[f32], CapacityError> {
        self.forward(tokens, par, tap, Wanted::Last)?;
        Ok(&self.buffers.logits[..self.model.config().vocab_size as usize])
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
        self.forward(tokens, par, &mut NoTap, Wanted::All(each))
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
        tap: &mut dyn Tap,
        mut wanted: Wanted<'_>,
    ) -> Result<(), CapacityError> {
        assert_eq!(self.buffers.branches.count(), 0, "the text is split into branches");
        self.check(tokens, tokens.len(), par)?;
        let mut done = 0;
        while done < tokens.len() {
            self.make_room(par);
            let batch = self.next_batch(&tokens[done..]);
            let m = batch.tokens.len();
            self.layers(&batch, par, tap);
            match &mut wanted {
                Wanted::All(each) => self.logits(0..m, par, &mut |i, row| each(done + i, row)),
                Wanted::Last if done + m == tokens.len() => {
                    self.logits(m - 1..m, par, &mut |_, _| {});
                }
                Wanted::Last => {}
            }
            self.record(batch.tokens);
            self.progress.fed += m;
            done += m;
        }
        Ok(())
    }

    /// The blocks, over one batch; leaves the residual stream in `x`: a row of each token, then one
    /// of each that is read into the shadow.
    fn layers(&mut self, batch: &Batch<'_>, par: &dyn Parallel, tap: &mut dyn Tap) {
        let (model, config, b) = (&self.model, self.model.config(), &mut self.buffers);
        let (m, n_embd) = (batch.tokens.len(), config.n_embd as usize);
        let rows = m + batch.shadow;
        let position = self.progress.position;
        let shadow_position = self.rules.shadow_position(position + m - batch.shadow);
        let x = &mut b.x[..rows * n_embd]; // [rows, n_embd]
        let found = &mut b.found[..rows * n_embd]; // [rows, n_embd]
        let padded = |n: usize| n.next_multiple_of(ROWS);
        let narrow = &mut b.narrow[..rows * padded(n_embd)]; // [rows, n_embd]

        let (wte, wpe) = (model.file().tensor(Role::Wte, 0), model.file().tensor(Role::Wpe, 0));
        for (t, x) in x.chunks_exact_mut(n_embd).enumerate() {
            let (token, position) = match t.checked_sub(m) {
                None if batch.branch_slot.is_some() => (t, position),
                None => (t, position + t),
                Some(t) => (m - batch.shadow + t, shadow_position + t),
            };
            let scratch = &mut narrow[..n_embd];
            embed(&wte, &wpe, batch.tokens[token] as usize, position, x, scratch);
        }
        tap.hidden(0, position, &x[..m * n_embd]);

        for layer in 0..config.n_layer as usize {
            let weight = |role| model.file().tensor(role, layer);
            let bias = |role| model.vector(role, layer);

            // x -> query, key, value
            let stride = padded(3 * n_embd);
            let qkv = &mut b.wide[..rows * stride]; // [rows, 3 n_embd]
            let norm = model.norm(Role::Ln1Weight, Role::Ln1Bias, layer);
            let c_attn_bias = bias(Role::CAttnBias);
            model.linear(weight(Role::CAttnWeight), Some(norm)).run(
                par,
                &mut b.lhs,
                x,
                qkv,
                None,
                |first, out, _| {
                    let (out, bias) = common(out, &c_attn_bias[first..]);
                    model.kernels().add(out, bias);
                },
            );

            let attention_at = |position| Attention {
                kernels: model.kernels(),
                layout: &self.layout,
                scale: config.attention_scale(layer),
                head_dim: config.head_dim(),
                heads: config.n_head as usize,
                position,
                window: self.window,
                keep: self.rules.keep,
                branches: batch.branch_slot.map(|first| (&b.branches, first)),
            };
            let attention = attention_at(position);
            let lines = self.layout.layer_lines();
            let layer_lines = layer * lines..(layer + 1) * lines;
            let cache = &mut b.caches[self.progress.live][layer_lines.clone()];
            let (qkv, shadow_qkv) = qkv.split_at(m * stride);
            let (found_here, found_in_shadow) = found.split_at_mut(m * n_embd);
            attention.run(par, qkv, stride, cache, &mut b.heads, found_here);
            if tap.wants_attention(layer) {
                let each = |head, position, weights: &[f32]| {
                    tap.attention(layer, head, position, weights);
                };
                attention.inspect(qkv, stride, cache, &mut b.heads[0], each);
            }
            if batch.shadow > 0 {
                let cache = &mut b.caches[1 - self.progress.live][layer_lines];
                attention_at(shadow_position).run(
                    par,
                    shadow_qkv,
                    stride,
                    cache,
                    &mut b.heads,
                    found_in_shadow,
                );
            }

            // x += c_proj(what attention found)
            let c_proj_bias = bias(Role::AttnCProjBias);
            model.linear(weight(Role::AttnCProjWeight), None).run(
                par,
                &mut b.lhs,
                found,
                narrow,
                Some(Columns::new(x, n_embd)),
                |first, out, x| add_residual(model.kernels(), x, out, &c_proj_bias[first..]),
            );

            // x += mlp(x)
            let n_inner = config.n_inner as usize;
            let hidden = &mut b.wide[..rows * padded(n_inner)]; // [rows, n_inner]
            let norm = model.norm(Role::Ln2Weight, Role::Ln2Bias, layer);
            let c_fc_bias = bias(Role::CFcBias);
            model.linear(weight(Role::CFcWeight), Some(norm)).run(
                par,
                &mut b.lhs,
                x,
                hidden,
                None,
                |first, out, _| {
                    let (out, bias) = common(out, &c_fc_bias[first..]);
                    model.kernels().activate_biased(config.activation, out, bias);
                },
            );
            if padded(n_inner) != n_inner {
                close_gaps(hidden, padded(n_inner), n_inner);
            }
            let c_proj_bias = bias(Role::MlpCProjBias);
            model.linear(weight(Role::MlpCProjWeight), None).run(
                par,
                &mut b.lhs,
                &hidden[..rows * n_inner],
                narrow,
                Some(Columns::new(x, n_embd)),
                |first, out, x| add_residual(model.kernels(), x, out, &c_proj_bias[first..]),
            );
            tap.hidden(layer + 1, position, &x[..m * n_embd]);
        }
    }

    /// Logits of some rows of the batch at hand.
    fn logits(
        &mut self,
        rows: core::ops::Range<usize>,
        par: &dyn Parallel,
        each: &mut dyn FnMut(usize, &[f32]),
    ) {
        let (model, config, b) = (&self.model, self.model.config(), &mut self.buffers);
        let n_embd = config.n_embd as usize;
        let vocab = config.vocab_size as usize;
        let stride = vocab.next_multiple_of(ROWS);
        let norm = model.norm(Role::LnFWeight, Role::LnFBias, 0);
        let head = model.linear(model.file().head(), Some(norm));
        let at_once = b.logits.len() / stride;
        let mut first = rows.start;
        while first < rows.end {
            let m = at_once.min(rows.end - first);
            let x = &b.x[first * n_embd..(first + m) * n_embd];
            let logits = &mut b.logits[..m * stride];
            head.run(par, &mut b.lhs, x, logits, None, |_, _, _| {});
            for (i, row) in logits.chunks_exact(stride).enumerate() {
                each(first + i, &row[..vocab]);
            }
            first += m;
        }
    }
}

/// `x += out + bias`
fn add_residual(kernels: &Kernels, x: Option<&mut [f32]>, out: &mut [f32], bias: &[f32]) {
    let (out, bias) = common(out, bias);
    let (x, out) = common(x.expect("the residual stream was given"), out);
    kernels.add_residual(x, out, bias);
}

/// What both have: columns behind that are padding.
fn common<'a, 'b>(a: &'a mut [f32], b: &'b [f32]) -> (&'a mut [f32], &'b [f32]) {
    let n = a.len().min(b.len());
    (&mut a[..n], &b[..n])
}

/// Moves rows of `stride` numbers together so that `used` of each are left.
fn close_gaps(rows: &mut [f32], stride: usize, used: usize) {
    for row in 1..rows.len() / stride {
        rows.copy_within(row * stride..row * stride + used, row * used);
    }
}
