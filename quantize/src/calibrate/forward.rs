//! GPT-2's layers over many windows of text at once, in f32.

use std::ops::Range;

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::kernels::{HeadCache, Kernels};
use pocketgpt_runtime::quant::tile::ROWS;
use rayon::prelude::*;

use super::dense::Linear;

/// Rows that a thread normalizes at a time.
const NORM_ROWS: usize = 64;
/// Slots of the kernels' cache layout.
const SLOTS: usize = 64;

/// LayerNorm's parameters.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// A transformer block in f32.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) ln_1: Norm,
    pub(crate) c_attn: Linear,
    pub(crate) attn_c_proj: Linear,
    pub(crate) ln_2: Norm,
    pub(crate) c_fc: Linear,
    pub(crate) mlp_c_proj: Linear,
}

impl Block {
    /// One of the four matrices, in the order of the file.
    pub(crate) fn matrix(&mut self, place: usize) -> &mut Linear {
        match place {
            0 => &mut self.c_attn,
            1 => &mut self.attn_c_proj,
            2 => &mut self.c_fc,
            _ => &mut self.mlp_c_proj,
        }
    }
}

/// What computing takes besides weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    pub(crate) kernels: Kernels,
    pub(crate) config: Gpt2Config,
}

impl Network {
    pub(crate) fn width(&self) -> usize {
        self.config.n_embd as usize
    }

    /// `wte[token] + wpe[position]` for the windows of a text.
    pub(crate) fn embed(
        &self,
        wte: &Linear,
        wpe: &[f32],
        tokens: &[u32],
        windows: &[Range<usize>],
    ) -> Vec<f32> {
        let n = self.width();
        let mut x = vec![0.0; tokens.len() * n];
        for window in windows {
            let rows = x[window.start * n..window.end * n].par_chunks_exact_mut(n).enumerate();
            rows.for_each(|(position, row)| {
                wte.row(tokens[window.start + position] as usize, row);
                for (x, p) in row.iter_mut().zip(&wpe[position * n..]) {
                    *x += *p;
                }
            });
        }
        x
    }

    pub(crate) fn norm(&self, norm: &Norm, x: &[f32]) -> Vec<f32> {
        let (n, eps) = (self.width(), self.config.layer_norm_epsilon);
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(NORM_ROWS * n).zip(x.par_chunks(NORM_ROWS * n)).for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                self.kernels.layer_norm(x, &norm.weight, &norm.bias, eps, out);
            }
        });
        out
    }

    /// The MLP's pointwise function.
    pub(crate) fn activate(&self, mut x: Vec<f32>) -> Vec<f32> {
        x.par_chunks_mut(1 << 14).for_each(|x| self.kernels.activate(self.config.activation, x));
        x
    }

    /// What the MLP's last matrix gets.
    pub(crate) fn hidden(&self, ln_2: &Norm, c_fc: &Linear, x: &[f32]) -> Vec<f32> {
        self.activate(c_fc.apply(&self.kernels, &self.norm(ln_2, x)))
    }

    /// Attention over windows of these lengths that follow each other: `[tokens][3 n]` to `[tokens][n]`.
    pub(crate) fn attention(&self, layer: usize, qkv: &[f32], lengths: &[usize]) -> Vec<f32> {
        let (n, heads) = (self.width(), self.config.n_head as usize);
        let dim = n / heads;
        let starts: Vec<(usize, usize)> = lengths
            .iter()
            .scan(0, |start, len| {
                *start += len;
                Some((*start - len, *len))
            })
            .collect();
        let jobs: Vec<_> =
            starts.iter().flat_map(|w| (0..heads).map(move |head| (*w, head))).collect();
        let found: Vec<Vec<f32>> = jobs
            .par_iter()
            .map(|((start, len), head)| {
                self.head(layer, &qkv[start * 3 * n..(start + len) * 3 * n], *head, dim)
            })
            .collect();
        let mut out = vec![0.0; qkv.len() / 3];
        for (((start, _), head), found) in jobs.iter().zip(&found) {
            for (t, sum) in found.chunks_exact(dim).enumerate() {
                out[(start + t) * n + head * dim..][..dim].copy_from_slice(sum);
            }
        }
        out
    }

    /// One head of one window, `[tokens][head_dim]`.
    fn head(&self, layer: usize, qkv: &[f32], head: usize, dim: usize) -> Vec<f32> {
        let n = self.width();
        let tokens = qkv.len() / (3 * n);
        let (hd, slots) = (dim.next_multiple_of(16), tokens.next_multiple_of(SLOTS));
        let (mut keys, mut values) = (vec![0.0; slots * hd], vec![0.0; slots * hd]);
        let part = |t: usize, part: usize| &qkv[t * 3 * n + part * n + head * dim..][..dim];
        for t in 0..tokens {
            for (i, key) in part(t, 1).iter().enumerate() {
                keys[(t / ROWS * hd + i) * ROWS + t % ROWS] = *key;
            }
            values[t * hd..][..dim].copy_from_slice(part(t, 2));
        }
        let cache = HeadCache::F32 { keys: &keys, values: &values };
        let scale = self.config.attention_scale(layer);
        let mut out = vec![0.0; tokens * dim];
        let (mut query, mut sum, mut scores) = (vec![0.0; hd], vec![0.0; hd], vec![0.0; slots]);
        for t in 0..tokens {
            query[..dim].copy_from_slice(part(t, 0));
            let scores = &mut scores[..(t + 1).next_multiple_of(ROWS)];
            self.kernels.scores(&query, &cache, scale, scores);
            let total = self.kernels.softmax_unnormalized(&mut scores[..=t]);
            self.kernels.values(&scores[..=t], &cache, 1.0 / total, &mut sum);
            out[t * dim..][..dim].copy_from_slice(&sum[..dim]);
        }
        out
    }

    /// What a block makes of the residual stream of windows of these lengths.
    pub(crate) fn block(&self, layer: usize, block: &Block, x: &mut [f32], lengths: &[usize]) {
        self.block_with(layer, block, x, lengths, &mut |_, _| ());
    }

    /// The same; `tap` sees the inputs of the four matrices, in the order of the file.
    pub(crate) fn block_with(
        &self,
        layer: usize,
        block: &Block,
        x: &mut [f32],
        lengths: &[usize],
        tap: &mut dyn FnMut(usize, &[f32]),
    ) {
        let kernels = &self.kernels;
        let normed = self.norm(&block.ln_1, x);
        tap(0, &normed);
        let attention = self.attention(layer, &block.c_attn.apply(kernels, &normed), lengths);
        tap(1, &attention);
        add(x, &block.attn_c_proj.apply(kernels, &attention));
        let normed = self.norm(&block.ln_2, x);
        tap(2, &normed);
        let hidden = self.activate(block.c_fc.apply(kernels, &normed));
        tap(3, &hidden);
        add(x, &block.mlp_c_proj.apply(kernels, &hidden));
    }
}

/// `x += y`
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    x.par_chunks_mut(1 << 14).zip(y.par_chunks(1 << 14)).for_each(|(x, y)| {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += *y);
    });
}

/// `x −= y`
pub(crate) fn subtract(x: &mut [f32], y: &[f32]) {
    x.par_chunks_mut(1 << 14).zip(y.par_chunks(1 << 14)).for_each(|(x, y)| {
        x.iter_mut().zip(y).for_each(|(x, y)| *x -= *y);
    });
}
