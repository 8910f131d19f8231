//! Causal self-attention over the cache, split between threads by heads.

use core::ops::Range;

use crate::branches::Branches;
use crate::kernels::{Columns, Kernels};
use crate::kv_cache::{KvLayout, KvType};
use crate::memory::Line;
use crate::parallel::{Parallel, scatter, share};
use crate::quant::tile::ROWS;

/// Most queries whose scores are computed together: each key is then loaded once for all.
pub(crate) const QUERIES: usize = 8;

/// What a thread needs.
pub(crate) struct HeadScratch<'m> {
    /// `[hd]`: a query, padded with zeros.
    pub(crate) query: &'m mut [f32],
    /// `[hd]`: the weighted sum of values.
    pub(crate) sum: &'m mut [f32],
    /// `[queries][hd]`
    pub(crate) quantized: &'m mut [i8],
    /// `[queries][slots]`: scores, then weights.
    pub(crate) scores: &'m mut [f32],
    /// `[slots]`: high halves of integer weights.
    pub(crate) high: &'m mut [u8],
    /// `[slots]`: low halves.
    pub(crate) low: &'m mut [u8],
}

/// What `c_attn` made of some tokens: the query, key and value of each head, `[m][stride]`, where
/// the stride is `3 n_embd` rounded up to 16.
#[derive(Clone, Copy)]
pub(crate) struct Qkv<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) stride: usize,
}

impl<'a> Qkv<'a> {
    fn tokens(&self) -> usize {
        self.rows.len() / self.stride
    }

    fn row(&self, t: usize) -> &'a [f32] {
        &self.rows[t * self.stride..(t + 1) * self.stride]
    }

    /// Of some of the tokens, at most `n` at a time.
    fn chunks(self, tokens: Range<usize>, n: usize) -> impl Iterator<Item = Self> {
        let some = &self.rows[tokens.start * self.stride..tokens.end * self.stride];
        some.chunks(n * self.stride).map(move |rows| Self { rows, ..self })
    }
}

/// Some queries of one head.
struct Queries<'a> {
    /// Of at most [`QUERIES`] tokens.
    qkv: Qkv<'a>,
    head: usize,
    /// Number in the batch of the first one's token.
    first: usize,
}

/// One layer's attention.
pub(crate) struct Attention<'a> {
    pub(crate) kernels: &'a Kernels,
    pub(crate) layout: &'a KvLayout,
    /// What scores are multiplied with.
    pub(crate) scale: f32,
    pub(crate) head_dim: usize,
    pub(crate) heads: usize,
    /// Position of the batch's first token.
    pub(crate) position: usize,
    /// Positions that have a slot.
    pub(crate) window: usize,
    /// First positions, whose slots a sliding window leaves alone; below `window`.
    pub(crate) keep: usize,
    /// Where the batch's rows are one token of each branch, all at `position`: the branches, and
    /// the slot of the first row's token.
    pub(crate) branches: Option<(&'a Branches<'a>, usize)>,
}

impl Attention<'_> {
    /// Slots among which row `t` of the batch finds what its token sees: those of its own position
    /// and the ones before it, or those of all branches.
    fn visible(&self, t: usize) -> usize {
        match self.branches {
            None => (self.position + t + 1).min(self.window),
            Some((branches, _)) => branches.used(),
        }
    }

    /// How many of them get a weight: whole vectors, of which those behind the visible ones get
    /// zero, which adds exactly nothing. Branches find their own slots among all.
    fn weighed(&self, t: usize) -> usize {
        let visible = self.visible(t);
        if self.branches.is_none() { visible.next_multiple_of(ROWS) } else { visible }
    }

    /// Slot of a position: behind the kept ones slots are used in turn.
    fn slot(&self, position: usize) -> usize {
        match position.checked_sub(self.keep) {
            Some(behind) => self.keep + behind % (self.window - self.keep),
            None => position,
        }
    }

    /// Query, key or value (`part` 0, 1, 2) of a head in one row of `c_attn`'s output.
    fn part<'q>(&self, row: &'q [f32], part: usize, head: usize) -> &'q [f32] {
        &row[(part * self.heads + head) * self.head_dim..][..self.head_dim]
    }

    /// Asks for parts of some rows. They are far from each other, so that hardware does not fetch one after the other.
    fn ask_for(&self, qkv: Qkv<'_>, rows: Range<usize>, head: usize, parts: &[usize]) {
        for row in rows.map(|t| qkv.row(t)) {
            for &part in parts {
                self.kernels.prefetch(self.part(row, part, head));
            }
        }
    }

    /// Stores the batch's keys and values in the cache, and writes what the queries of some of its
    /// rows find to `out`; the others need not have one.
    ///
    /// `cache` is the layer's lines, `out` is `[rows][n_embd]`.
    pub(crate) fn run(
        &self,
        par: &dyn Parallel,
        qkv: Qkv<'_>,
        rows: Range<usize>,
        cache: &mut [Line],
        scratch: &mut [HeadScratch<'_>],
        out: &mut [f32],
    ) {
        let threads = par.threads();
        let head_lines = self.layout.head_lines();
        let mut cache = Some(cache);
        let mut columns = Some(Columns::new(out, self.heads * self.head_dim));
        let parts = scratch[..threads].iter_mut().enumerate().map(|(thread, scratch)| {
            let heads = share(self.heads, threads, thread);
            let (mine, rest) =
                cache.take().expect("put back below").split_at_mut(heads.len() * head_lines);
            cache = Some(rest);
            let (out, rest) =
                columns.take().expect("put back below").split_at(heads.len() * self.head_dim);
            columns = Some(rest);
            (heads, mine, scratch, out)
        });
        scatter(par, parts, |(heads, cache, scratch, mut out)| {
            for (i, head) in heads.enumerate() {
                let (cache, next) = cache[i * head_lines..].split_at_mut(head_lines);
                let next = next.get(..head_lines);
                self.store(qkv, head, cache, scratch);
                for (block, some) in qkv.chunks(rows.clone(), QUERIES).enumerate() {
                    let first = rows.start + block * QUERIES;
                    let behind = (first + QUERIES).min(rows.end);
                    self.ask_for(qkv, behind..rows.end.min(behind + QUERIES), head, &[0]);
                    let queries = Queries { qkv: some, head, first };
                    self.attend(&queries, cache, next, scratch, |t, sum| {
                        out.row_mut(t - rows.start)[i * self.head_dim..][..self.head_dim]
                            .copy_from_slice(sum);
                    });
                }
            }
        });
    }

    fn store(&self, qkv: Qkv<'_>, head: usize, cache: &mut [Line], scratch: &mut HeadScratch<'_>) {
        let slot = |t: usize| match self.branches {
            None => self.slot(self.position + t),
            Some((_, first)) => first + t,
        };
        let four = 4 * self.layout.padded_head_dim();
        let by_fours = self.layout.kv() == KvType::Q8 && scratch.quantized.len() >= four;
        let (m, mut t) = (qkv.tokens(), 0);
        let row = |t| qkv.row(t);
        while t < m {
            let first = slot(t);
            // A ring may begin anew among the four.
            if by_fours && t + 4 <= m && first.is_multiple_of(4) && slot(t + 3) == first + 3 {
                let rows = [row(t), row(t + 1), row(t + 2), row(t + 3)];
                let vectors = [1, 2].map(|part| rows.map(|row| self.part(row, part, head)));
                self.ask_for(qkv, t + 4..m.min(t + 8), head, &[1, 2]);
                self.layout.store_four(self.kernels, cache, first, vectors, scratch.quantized);
                t += 4;
            } else {
                let vectors = (self.part(row(t), 1, head), self.part(row(t), 2, head));
                self.layout.store(self.kernels, cache, first, vectors, scratch.quantized);
                t += 1;
            }
        }
    }

    /// Softmax of the queries' scores, not yet divided by their sums, which are returned beside
    /// the distance between one query's weights and the next one's in `scratch.scores`.
    fn weigh(
        &self,
        queries: &Queries<'_>,
        cache: &[Line],
        scratch: &mut HeadScratch<'_>,
    ) -> (usize, [f32; QUERIES]) {
        let cache = self.layout.view(cache);
        let n = queries.qkv.tokens();
        let slots = self.visible(queries.first + n - 1).next_multiple_of(ROWS);
        let scores = &mut scratch.scores[..n * slots];
        let rows = queries.qkv.rows.chunks_exact(queries.qkv.stride);
        let hd = self.layout.padded_head_dim();
        if self.layout.kv() == KvType::Q8 {
            let mut scales = [0.0; QUERIES];
            let quantized = &mut scratch.quantized[..n * hd];
            for ((row, q), scale) in rows.zip(quantized.chunks_exact_mut(hd)).zip(&mut scales) {
                let query = self.part(row, 0, queries.head);
                self.kernels.quantize(query, hd, q, core::slice::from_mut(scale), &mut [0]);
                *scale *= self.scale;
            }
            self.kernels.scores_q8(quantized, &cache, &scales[..n], scores);
        } else {
            for (row, scores) in rows.zip(scores.chunks_exact_mut(slots)) {
                let query = self.part(row, 0, queries.head);
                scratch.query[..query.len()].copy_from_slice(query);
                scratch.query[query.len()..].fill(0.0);
                self.kernels.scores(scratch.query, &cache, self.scale, scores);
            }
        }
        if n == 1 {
            self.kernels.prefetch_values(&cache, slots);
        }
        let mut sums = [0.0; QUERIES];
        self.soften(queries.first, scores, slots, &mut sums[..n]);
        (slots, sums)
    }

    /// Softmax of the scores, `[rows][slots]`, of the rows from `first` on, not yet divided by the
    /// sums, which go to `sums`.
    fn soften(&self, first: usize, scores: &mut [f32], slots: usize, sums: &mut [f32]) {
        let rows = scores.chunks_exact_mut(slots).zip(first..);
        let mut seen = [0; QUERIES];
        let seen = &mut seen[..sums.len()];
        for ((scores, t), seen) in rows.zip(&mut *seen) {
            *seen = match self.branches {
                None => {
                    let weighed = self.weighed(t);
                    scores[self.visible(t)..weighed].fill(f32::NEG_INFINITY);
                    weighed
                }
                // The order of a sum is that of positions, as it is for a text that is alone.
                Some((branches, _)) => gather(scores, branches.shared(), branches.own(t)),
            };
        }
        self.kernels.softmax_rows(scores, seen, sums);
        if let Some((branches, _)) = self.branches {
            for (scores, t) in scores.chunks_exact_mut(slots).zip(first..) {
                scatter_back(&mut scores[..branches.used()], branches.shared(), branches.own(t));
            }
        }
    }

    /// Calls `each(token of the batch, weighted sum of values)`. `next` is what the next head's cache
    /// is, if there is one.
    fn attend(
        &self,
        queries: &Queries<'_>,
        cache: &[Line],
        next: Option<&[Line]>,
        scratch: &mut HeadScratch<'_>,
        mut each: impl FnMut(usize, &[f32]),
    ) {
        let (slots, sums) = self.weigh(queries, cache, scratch);
        let cache = self.layout.view(cache);
        let n = queries.qkv.tokens();
        let next = next.filter(|_| n == 1).map(|next| self.layout.view(next));
        for (i, sum) in sums[..n].iter().enumerate() {
            let t = queries.first + i;
            let row = &scratch.scores[i * slots..];
            let normalize = 1.0 / sum;
            if self.layout.kv() == KvType::Q8 {
                let weights = &row[..self.weighed(t)];
                let halves = (&mut *scratch.high, &mut *scratch.low);
                self.kernels.values_q8(
                    weights,
                    &cache,
                    normalize,
                    halves,
                    next.as_ref(),
                    scratch.sum,
                );
            } else {
                let weights = &row[..self.visible(t)];
                self.kernels.values(weights, &cache, normalize, scratch.sum);
            }
            each(t, &scratch.sum[..self.head_dim]);
        }
    }

    /// The attention weights of each head and token of the batch, after [`Attention::run`]:
    /// `each(head, position, weights of the visible slots)`.
    pub(crate) fn inspect(
        &self,
        qkv: Qkv<'_>,
        cache: &[Line],
        scratch: &mut HeadScratch<'_>,
        mut each: impl FnMut(usize, usize, &[f32]),
    ) {
        for (head, cache) in cache.chunks_exact(self.layout.head_lines()).enumerate() {
            for (t, qkv) in qkv.chunks(0..qkv.tokens(), 1).enumerate() {
                let queries = Queries { qkv, head, first: t };
                let (_, sums) = self.weigh(&queries, cache, scratch);
                let normalize = 1.0 / sums[0];
                let weights = &mut scratch.scores[..self.visible(t)];
                weights.iter_mut().for_each(|w| *w *= normalize);
                each(head, self.position + t, weights);
            }
        }
    }
}

/// Moves the scores of a branch's slots together, in the order of its positions: the first
/// `shared` are there already, `own` are the slots of the others. Returns how many there are.
fn gather(scores: &mut [f32], shared: usize, own: &[u32]) -> usize {
    // A slot is never before its position, so nothing is overwritten that is still needed.
    for (position, &slot) in own.iter().enumerate() {
        scores[shared + position] = scores[slot as usize];
    }
    shared + own.len()
}

/// The reverse: weights go back to their slots, and those of slots that the branch does not see
/// are zero, which adds exactly nothing to a sum.
fn scatter_back(weights: &mut [f32], shared: usize, own: &[u32]) {
    let mut end = weights.len();
    for (position, &slot) in own.iter().enumerate().rev() {
        let slot = slot as usize;
        let weight = weights[shared + position];
        weights[slot + 1..end].fill(0.0);
        weights[slot] = weight;
        end = slot;
    }
    weights[shared..end].fill(0.0);
}
