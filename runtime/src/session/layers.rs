//! A batch's way through the model: embeddings, blocks, logits.

use core::ops::Range;

use super::{Batch, Session, Tap};
use crate::format::Role;
use crate::kernels::{Columns, Kernels};
use crate::nn::attention::Attention;
use crate::nn::embedding::embed;
use crate::parallel::Parallel;
use crate::quant::tile::ROWS;

impl Session<'_, '_> {
    /// The blocks, over one batch; leaves the residual stream in `x`: a row of each token, then one
    /// of each that is read into the shadow.
    ///
    /// What comes behind the last block is wanted of few tokens of a prompt, or none. The others leave
    /// their keys and values there, and go no further.
    pub(super) fn layers(&mut self, batch: &Batch<'_>, par: &dyn Parallel, tap: &mut dyn Tap) {
        let n_embd = self.model.config().n_embd as usize;
        let n_layer = self.model.config().n_layer as usize;
        let m = batch.tokens.len();
        let position = self.progress.position;
        self.embed(batch);
        tap.hidden(0, position, &self.buffers.x[..m * n_embd]);
        for layer in 0..n_layer {
            let rows = if layer + 1 < n_layer { 0..m + batch.shadow } else { m - batch.outputs..m };
            self.attend(layer, batch, rows.clone(), par, tap);
            if !rows.is_empty() {
                self.mlp(layer, rows, par);
            }
            tap.hidden(layer + 1, position, &self.buffers.x[..m * n_embd]);
        }
    }

    /// Position of the batch's first token that is read into the shadow.
    fn shadow_position_of(&self, batch: &Batch<'_>) -> usize {
        let m = batch.tokens.len();
        self.rules.shadow_position(self.progress.position + m - batch.shadow)
    }

    /// `x = wte[token] + wpe[position]`
    fn embed(&mut self, batch: &Batch<'_>) {
        let (m, n_embd) = (batch.tokens.len(), self.model.config().n_embd as usize);
        let (position, shadow_position) = (self.progress.position, self.shadow_position_of(batch));
        let file = self.model.file();
        let (wte, wpe) = (file.tensor(Role::Wte, 0), file.tensor(Role::Wpe, 0));
        let x = &mut self.buffers.x[..(m + batch.shadow) * n_embd];
        let scratch = &mut self.buffers.narrow[..n_embd];
        for (t, x) in x.chunks_exact_mut(n_embd).enumerate() {
            let (token, position) = match t.checked_sub(m) {
                None if batch.branch_slot.is_some() => (t, position),
                None => (t, position + t),
                Some(t) => (m - batch.shadow + t, shadow_position + t),
            };
            embed(&wte, &wpe, batch.tokens[token] as usize, position, x, scratch);
        }
    }

    /// `x += c_proj(attention(ln_1(x)))` of some rows, after keys and values of all are stored.
    fn attend(
        &mut self,
        layer: usize,
        batch: &Batch<'_>,
        rows: Range<usize>,
        par: &dyn Parallel,
        tap: &mut dyn Tap,
    ) {
        let (position, shadow_position) = (self.progress.position, self.shadow_position_of(batch));
        let (model, config, b) = (&self.model, self.model.config(), &mut self.buffers);
        let (m, n_embd) = (batch.tokens.len(), config.n_embd as usize);
        let all = m + batch.shadow;

        // x -> query, key, value
        let stride = padded(3 * n_embd);
        let qkv = &mut b.wide[..all * stride]; // [all, 3 n_embd]
        let norm = model.norm(Role::Ln1Weight, Role::Ln1Bias, layer);
        let weight = model.file().tensor(Role::CAttnWeight, layer);
        let bias = model.vector(Role::CAttnBias, layer);
        let mut c_attn = |rows: &Range<usize>, parts: Range<usize>| {
            let outputs = parts.start * n_embd..parts.end * n_embd;
            model.linear(weight, Some(norm)).outputs(outputs).run(
                par,
                &mut b.lhs,
                &b.x[rows.start * n_embd..rows.end * n_embd],
                &mut qkv[rows.start * stride..rows.end * stride],
                None,
                |first, out, _| {
                    let (out, bias) = common(out, &bias[first..]);
                    model.kernels().add(out, bias);
                },
            );
        };
        if rows.len() == all {
            c_attn(&rows, 0..3);
        } else {
            c_attn(&(0..all), 1..3);
            if !rows.is_empty() {
                c_attn(&rows, 0..1);
            }
        }

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
        let lines = layer * lines..(layer + 1) * lines;
        let cache = &mut b.caches[self.progress.live][lines.clone()];
        let (qkv, shadow_qkv) = qkv.split_at(m * stride);
        let (here, in_shadow) = (rows.start..rows.end.min(m), 0..rows.end.saturating_sub(m));
        let found = &mut b.found[..rows.len() * n_embd]; // [rows, n_embd]
        let (found_here, found_in_shadow) = found.split_at_mut(here.len() * n_embd);
        attention.run(par, qkv, stride, here, cache, &mut b.heads, found_here);
        if tap.wants_attention(layer) {
            let each = |head, position, weights: &[f32]| {
                tap.attention(layer, head, position, weights);
            };
            attention.inspect(qkv, stride, cache, &mut b.heads[0], each);
        }
        if batch.shadow > 0 {
            let cache = &mut b.caches[1 - self.progress.live][lines];
            let (heads, found) = (&mut b.heads, found_in_shadow);
            attention_at(shadow_position)
                .run(par, shadow_qkv, stride, in_shadow, cache, heads, found);
        }
        if rows.is_empty() {
            return;
        }

        let x = &mut b.x[rows.start * n_embd..rows.end * n_embd];
        let bias = model.vector(Role::AttnCProjBias, layer);
        model.linear(model.file().tensor(Role::AttnCProjWeight, layer), None).run(
            par,
            &mut b.lhs,
            found,
            &mut b.narrow[..rows.len() * padded(n_embd)],
            Some(Columns::new(x, n_embd)),
            |first, out, x| add_residual(model.kernels(), x, out, &bias[first..]),
        );
    }

    /// `x += c_proj(act(c_fc(ln_2(x))))` of some rows.
    fn mlp(&mut self, layer: usize, rows: Range<usize>, par: &dyn Parallel) {
        let (model, config, b) = (&self.model, self.model.config(), &mut self.buffers);
        let (n_embd, n_inner) = (config.n_embd as usize, config.n_inner as usize);
        let x = &mut b.x[rows.start * n_embd..rows.end * n_embd]; // [rows, n_embd]
        let hidden = &mut b.wide[..rows.len() * padded(n_inner)]; // [rows, n_inner]

        let norm = model.norm(Role::Ln2Weight, Role::Ln2Bias, layer);
        let bias = model.vector(Role::CFcBias, layer);
        model.linear(model.file().tensor(Role::CFcWeight, layer), Some(norm)).run(
            par,
            &mut b.lhs,
            x,
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
        let bias = model.vector(Role::MlpCProjBias, layer);
        model.linear(model.file().tensor(Role::MlpCProjWeight, layer), None).run(
            par,
            &mut b.lhs,
            &hidden[..rows.len() * n_inner],
            &mut b.narrow[..rows.len() * padded(n_embd)],
            Some(Columns::new(x, n_embd)),
            |first, out, x| add_residual(model.kernels(), x, out, &bias[first..]),
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

/// A row's place: whole records of the matrix that makes it.
fn padded(n: usize) -> usize {
    n.next_multiple_of(ROWS)
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
