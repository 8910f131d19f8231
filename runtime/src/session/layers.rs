//! A batch's way through the model: embeddings, blocks, logits.

use core::ops::Range;

use super::{Batch, Session, Tap, reborrow};
use crate::format::Role;
use crate::kernels::Columns;
use crate::nn::attention::{Attention, Qkv};
use crate::nn::embedding::embed;
use crate::parallel::{Parallel, Serial, scatter};
use crate::quant::tile::ROWS;

/// Fewest rows of embeddings that are worth a job: a q8 row of 768 numbers takes some three
/// microseconds, as long as it takes to wake a thread up.
const SHARED_ROWS: usize = 8;

impl Session<'_, '_> {
    /// The blocks, over one batch; leaves in `x`, `[m][n_embd]`, the residual stream of its last
    /// `outputs` tokens.
    ///
    /// The others leave their keys and values in the last block and go no further: what comes behind
    /// it is wanted of few tokens of a prompt, or none. Whoever looks wants all of them.
    pub(super) fn layers(
        &mut self,
        batch: &Batch<'_>,
        par: &dyn Parallel,
        mut tap: Option<&mut dyn Tap>,
    ) {
        let n_embd = self.model.config().n_embd as usize;
        let n_layer = self.model.config().n_layer as usize;
        let m = batch.tokens.len();
        assert!(tap.is_none() || batch.outputs == m);
        let position = self.progress.position;
        self.embed_batch(batch, par);
        if let Some(tap) = &mut tap {
            tap.hidden(0, position, &self.buffers.x[..m * n_embd]);
        }
        for layer in 0..n_layer {
            let all = 0..m + batch.shadow;
            let rows = if layer + 1 < n_layer { all.clone() } else { m - batch.outputs..m };
            self.project(layer, all, rows.clone(), par);
            self.attend(layer, batch, rows.clone(), par, reborrow(&mut tap));
            if !rows.is_empty() {
                self.add_product(Role::AttnCProjWeight, layer, rows.clone(), par);
                self.expand(layer, rows.clone(), par);
                self.add_product(Role::MlpCProjWeight, layer, rows, par);
            }
            if let Some(tap) = &mut tap {
                tap.hidden(layer + 1, position, &self.buffers.x[..m * n_embd]);
            }
        }
    }

    /// Position of the batch's first token that is read into the shadow.
    fn shadow_position_of(&self, batch: &Batch<'_>) -> usize {
        let m = batch.tokens.len();
        self.rules.shadow_position(self.progress.position + m - batch.shadow)
    }

    /// `x = wte[token] + wpe[position]`: a row of each token, then one of each that is read into the
    /// shadow.
    fn embed_batch(&mut self, batch: &Batch<'_>, par: &dyn Parallel) {
        let (m, n_embd) = (batch.tokens.len(), self.model.config().n_embd as usize);
        let (position, shadow_position) = (self.progress.position, self.shadow_position_of(batch));
        let file = self.model.file();
        let (wte, wpe) = (file.tensor(Role::Wte, 0), file.tensor(Role::Wpe, 0));
        let rows = m + batch.shadow;
        let par: &dyn Parallel = if rows < SHARED_ROWS { &Serial } else { par };
        let each = rows.div_ceil(par.threads());
        let x = self.buffers.x[..rows * n_embd].chunks_mut(each * n_embd);
        let scratch = self.buffers.narrow[..rows * n_embd].chunks_mut(each * n_embd);
        let parts = (0..rows).step_by(each).zip(x.zip(scratch));
        scatter(par, parts, |(first, (x, scratch))| {
            for (t, x) in (first..).zip(x.chunks_exact_mut(n_embd)) {
                let (t, position) = match t.checked_sub(m) {
                    None if batch.branch_slot.is_some() => (t, position),
                    None => (t, position + t),
                    Some(t) => (m - batch.shadow + t, shadow_position + t),
                };
                let token = batch.tokens[t] as usize;
                embed(&wte, &wpe, token, position, x, &mut scratch[..n_embd]);
            }
        });
    }

    /// `wide = c_attn(ln_1(x))`: keys and values of all rows, queries of some.
    fn project(&mut self, layer: usize, all: Range<usize>, rows: Range<usize>, par: &dyn Parallel) {
        let (model, b) = (&self.model, &mut self.buffers);
        let n_embd = model.config().n_embd as usize;
        let stride = padded(3 * n_embd);
        let norm = model.norm(Role::Ln1Weight, Role::Ln1Bias, layer);
        let weight = model.file().tensor(Role::CAttnWeight, layer);
        let bias = model.vector(Role::CAttnBias, layer);
        let mut parts = |rows: &Range<usize>, parts: Range<usize>| {
            let outputs = parts.start * n_embd..parts.end * n_embd;
            model.linear(weight, Some(norm)).outputs(outputs).run(
                par,
                &mut b.lhs,
                &b.x[span(rows, n_embd)],
                &mut b.wide[span(rows, stride)],
                None,
                |first, out, _| {
                    let (out, bias) = common(out, &bias[first..]);
                    model.kernels().add(out, bias);
                },
            );
        };
        if rows == all {
            parts(&all, 0..3);
            return;
        }
        // Where a query's last numbers share a record with a key's first ones, both make these: the
        // same bits, whatever is multiplied together.
        parts(&all, 1..3);
        if !rows.is_empty() {
            parts(&rows, 0..1);
        }
    }

    /// Keys and values of all rows into the caches; `found` is what the queries of some find there,
    /// `[rows, n_embd]`.
    fn attend(
        &mut self,
        layer: usize,
        batch: &Batch<'_>,
        rows: Range<usize>,
        par: &dyn Parallel,
        tap: Option<&mut dyn Tap>,
    ) {
        let (position, shadow_position) = (self.progress.position, self.shadow_position_of(batch));
        let (model, config, b) = (&self.model, self.model.config(), &mut self.buffers);
        let (m, n_embd) = (batch.tokens.len(), config.n_embd as usize);
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
        let stride = padded(3 * n_embd);
        let qkv = |rows| Qkv { rows: &b.wide[span(&rows, stride)], stride };
        let (here, in_shadow) = (rows.start..rows.end.min(m), 0..rows.end.saturating_sub(m));
        let (found, found_in_shadow) =
            b.found[..rows.len() * n_embd].split_at_mut(here.len() * n_embd);

        let lines = span(&(layer..layer + 1), self.layout.layer_lines());
        let cache = &mut b.caches[self.progress.live][lines.clone()];
        let attention = attention_at(position);
        attention.run(par, qkv(0..m), here, cache, &mut b.heads, found);
        if let Some(tap) = tap
            && tap.wants_attention(layer)
        {
            let each = |head, position, weights: &[f32]| {
                tap.attention(layer, head, position, weights);
            };
            attention.inspect(qkv(0..m), cache, &mut b.heads[0], each);
        }
        if batch.shadow > 0 {
            let (qkv, heads) = (qkv(m..m + batch.shadow), &mut b.heads);
            let cache = &mut b.caches[1 - self.progress.live][lines];
            attention_at(shadow_position).run(par, qkv, in_shadow, cache, heads, found_in_shadow);
        }
    }

    /// `wide = act(c_fc(ln_2(x)))` of some rows, `[rows, n_inner]`.
    fn expand(&mut self, layer: usize, rows: Range<usize>, par: &dyn Parallel) {
        let (model, config, b) = (&self.model, self.model.config(), &mut self.buffers);
        let (n_embd, n_inner) = (config.n_embd as usize, config.n_inner as usize);
        let hidden = &mut b.wide[..rows.len() * padded(n_inner)];
        let norm = model.norm(Role::Ln2Weight, Role::Ln2Bias, layer);
        let bias = model.vector(Role::CFcBias, layer);
        model.linear(model.file().tensor(Role::CFcWeight, layer), Some(norm)).run(
            par,
            &mut b.lhs,
            &b.x[span(&rows, n_embd)],
            hidden,
            None,
            |first, out, _| {
                let (out, bias) = common(out, &bias[first..]);
                model.kernels().activate_biased(config.activation, out, bias);
            },
        );
        if padded(n_inner) != n_inner {
            close_gaps(hidden, padded(n_inner), n_inner);
        }
    }

    /// Of some rows `x += c_proj(found)`, or for the MLP's `x += c_proj(wide)`.
    fn add_product(&mut self, weight: Role, layer: usize, rows: Range<usize>, par: &dyn Parallel) {
        let (model, b) = (&self.model, &mut self.buffers);
        let n_embd = model.config().n_embd as usize;
        let (bias, input) = match weight {
            Role::AttnCProjWeight => (Role::AttnCProjBias, &*b.found),
            Role::MlpCProjWeight => (Role::MlpCProjBias, &*b.wide),
            _ => unreachable!("no product of a block: {weight:?}"),
        };
        let (weight, bias) = (model.file().tensor(weight, layer), model.vector(bias, layer));
        let x = &mut b.x[span(&rows, n_embd)];
        model.linear(weight, None).run(
            par,
            &mut b.lhs,
            &input[..rows.len() * weight.entry.cols as usize],
            &mut b.narrow[..rows.len() * padded(n_embd)],
            Some(Columns::new(x, n_embd)),
            |first, out, x| {
                let (out, bias) = common(out, &bias[first..]);
                let (x, out) = common(x.expect("the residual stream was given"), out);
                model.kernels().add_residual(x, out, bias);
            },
        );
    }

    /// Logits of some rows of the batch at hand.
    pub(super) fn logits(
        &mut self,
        rows: Range<usize>,
        par: &dyn Parallel,
        each: &mut dyn FnMut(usize, &[f32]),
    ) {
        let (model, config, b) = (&self.model, self.model.config(), &mut self.buffers);
        let n_embd = config.n_embd as usize;
        let vocab = config.vocab_size as usize;
        let stride = padded(vocab);
        let norm = model.norm(Role::LnFWeight, Role::LnFBias, 0);
        let head = model.linear(model.file().head(), Some(norm));
        let at_once = b.logits.len() / stride;
        let mut first = rows.start;
        while first < rows.end {
            let m = at_once.min(rows.end - first);
            let x = &b.x[span(&(first..first + m), n_embd)];
            let logits = &mut b.logits[..m * stride];
            head.run(par, &mut b.lhs, x, logits, None, |_, _, _| {});
            for (i, row) in logits.chunks_exact(stride).enumerate() {
                each(first + i, &row[..vocab]);
            }
            first += m;
        }
    }
}

/// A row's place: whole records of the matrix that makes it.
fn padded(n: usize) -> usize {
    n.next_multiple_of(ROWS)
}

/// Where some rows of a matrix are.
fn span(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
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
