//! Kernels of sixteen f32 lanes, written once and compiled for each instruction set.
//!
//! Every function is `inline(always)`: it must be inlined into a function that has the target
//! features of `S`, or its operations would become calls. For the same reason there are no closures
//! here and no functions passed as values.

mod quantize;

use super::{Columns, FloatLhs, VALUE_WEIGHT_MAX};
use crate::math::{self, ROUND_MAGIC, Simd, max_tree, sum_tree};
use crate::quant::tile::{GROUP, ROWS};

use quantize::{halves, small_integer};
pub(super) use quantize::{quantize, quantize_one};

/// Sixteen lanes, in one register or several.
pub(super) trait Lanes: Simd {
    fn load(self, from: &[f32; 16]) -> Self::F;
    fn store(self, x: Self::F, to: &mut [f32; 16]);
    /// Sixteen f16.
    fn load_f16(self, from: &[u16; 16]) -> Self::F;
    /// The low byte of each lane's bits.
    fn store_low_bytes(self, x: Self::F, to: &mut [i8; 16]);
    /// The lanes in memory.
    #[inline(always)]
    fn array(self, x: Self::F) -> [f32; 16] {
        let mut out = [0.0; 16];
        self.store(x, &mut out);
        out
    }
    /// `max(x, max)`, where `max` is no NaN. Which zero it gives, if both are zeros, is open.
    #[inline(always)]
    fn larger(self, x: Self::F, max: Self::F) -> Self::F {
        self.max(x, max)
    }
    /// Largest magnitude in some groups of 32, as [`Lanes::larger_magnitude`] finds it, and whether
    /// all their numbers are known to be finite.
    #[inline(always)]
    fn magnitude(self, x: &[[f32; GROUP]]) -> (f32, bool) {
        let mut amax = self.splat(0.0);
        for x in x {
            let [a, b] = halves(x);
            amax = self.larger_magnitude(self.load(a), amax);
            amax = self.larger_magnitude(self.load(b), amax);
        }
        (self.largest(amax), false)
    }
    /// `max(|x|, amax)`, where `amax` is no NaN.
    #[inline(always)]
    fn larger_magnitude(self, x: Self::F, amax: Self::F) -> Self::F {
        self.max(self.abs(x), amax)
    }
    /// Quantizes some groups from the front on, if the set has a shorter way; returns how many. It
    /// stops, having written nothing of them, at groups that are not finite.
    #[inline(always)]
    fn quantize_first(
        self,
        _x: &[[f32; GROUP]],
        _q: &mut [[i8; GROUP]],
        _scales: &mut [f32],
        _sums: &mut [i32],
    ) -> usize {
        0
    }
    /// [`quantize_one`], if the set has a shorter way for numbers of these lengths and they are
    /// finite; else nothing is written.
    #[inline(always)]
    fn quantize_head(self, _x: &[[f32; GROUP]], _q: &mut [i8]) -> Option<(f32, i32)> {
        None
    }
    /// Sum of the low bytes of lanes that hold ±127 plus [`ROUND_MAGIC`]; `q` are these bytes.
    #[inline(always)]
    fn sum_of_rounded(self, [a, b]: [Self::F; 2], _q: &[[i8; 16]; 2]) -> i32 {
        let magic = self.splat(ROUND_MAGIC);
        // Integers of at most 127, so that their sum is exact as a float.
        small_integer(self.sum(self.add(self.sub(a, magic), self.sub(b, magic))))
    }
    /// [`sum_tree`]
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        sum_tree(self.array(x))
    }
    /// [`max_tree`] of lanes that are no NaN. Which zero it gives, if they are zeros, is open.
    #[inline(always)]
    fn largest(self, x: Self::F) -> f32 {
        max_tree(self.array(x))
    }
    /// Bits 7 to 13 of each lane, and bits 0 to 6.
    #[inline(always)]
    fn store_halves(self, x: Self::F, high: &mut [u8; 16], low: &mut [u8; 16]) {
        let lanes = self.array(x);
        for i in 0..16 {
            let bits = lanes[i].to_bits();
            (high[i], low[i]) = ((bits >> 7) as u8 & 127, bits as u8 & 127);
        }
    }
}

/// A number as it is stored in a cache or a weight file.
pub(super) trait Stored: Copy {
    fn load<S: Lanes>(s: S, from: &[Self; 16]) -> S::F;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<S: Lanes>(s: S, from: &[f32; 16]) -> S::F {
        s.load(from)
    }
}

impl Stored for u16 {
    #[inline(always)]
    fn load<S: Lanes>(s: S, from: &[u16; 16]) -> S::F {
        s.load_f16(from)
    }
}

/// The last numbers of a slice, fewer than sixteen, and `fill` behind them.
#[inline(always)]
fn padded(rest: &[f32], fill: f32) -> [f32; 16] {
    let mut out = [fill; 16];
    out[..rest.len()].copy_from_slice(rest);
    out
}

/// `x += out + bias`
#[inline(always)]
pub(super) fn add_residual<S: Lanes>(s: S, x: &mut [f32], out: &[f32], bias: &[f32]) {
    let (chunks, rest) = x.as_chunks_mut::<16>();
    let (outs, out_rest) = out.as_chunks::<16>();
    let (biases, bias_rest) = bias.as_chunks::<16>();
    for ((x, out), bias) in chunks.iter_mut().zip(outs).zip(biases) {
        s.store(s.add(s.load(x), s.add(s.load(out), s.load(bias))), x);
    }
    for ((x, out), bias) in rest.iter_mut().zip(out_rest).zip(bias_rest) {
        *x += out + bias;
    }
}

#[inline(always)]
pub(super) fn layer_norm<S: Lanes>(
    s: S,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let n = x.len() as f32;
    let (chunks, rest) = x.as_chunks::<16>();
    let mut sum = s.splat(0.0);
    for chunk in chunks {
        sum = s.add(sum, s.load(chunk));
    }
    let mut lanes = s.array(sum);
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += x;
    }
    let mean = sum_tree(lanes) / n;
    let mut squares = s.splat(0.0);
    for chunk in chunks {
        let d = s.sub(s.load(chunk), s.splat(mean));
        squares = s.fma(d, d, squares);
    }
    let mut lanes = s.array(squares);
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = math::fma(x - mean, x - mean, *lane);
    }
    let inverse = 1.0 / math::sqrt(sum_tree(lanes) / n + eps);

    let (mean, inverse) = (s.splat(mean), s.splat(inverse));
    let (weights, weight_rest) = weight.as_chunks::<16>();
    let (biases, bias_rest) = bias.as_chunks::<16>();
    let (outs, out_rest) = out.as_chunks_mut::<16>();
    for (((x, w), b), out) in chunks.iter().zip(weights).zip(biases).zip(outs) {
        s.store(normalized(s, [x, w, b], mean, inverse), out);
    }
    if !rest.is_empty() {
        let last = [&padded(rest, 0.0), &padded(weight_rest, 0.0), &padded(bias_rest, 0.0)];
        let last = normalized(s, last, mean, inverse);
        out_rest.copy_from_slice(&s.array(last)[..rest.len()]);
    }
}

/// `(x − mean) · inverse · weight + bias`, of `[x, weight, bias]`.
#[inline(always)]
fn normalized<S: Lanes>(s: S, [x, w, b]: [&[f32; 16]; 3], mean: S::F, inverse: S::F) -> S::F {
    s.fma(s.mul(s.sub(s.load(x), mean), inverse), s.load(w), s.load(b))
}

/// A function of one number; a type, because functions passed as values are not inlined.
pub(super) trait Pointwise {
    fn at<S: Simd>(s: S, x: S::F) -> S::F;
}

macro_rules! pointwise_functions {
    ($($name:ident = $f:path;)*) => {$(
        pub(super) struct $name;
        impl Pointwise for $name {
            #[inline(always)]
            fn at<S: Simd>(s: S, x: S::F) -> S::F {
                $f(s, x)
            }
        }
    )*};
}

pointwise_functions! {
    GeluNew = math::gelu_new;
    Gelu = math::gelu;
    Relu = math::relu;
    Silu = math::silu;
    Identity = identity;
}

#[inline(always)]
fn identity<S: Simd>(_: S, x: S::F) -> S::F {
    x
}

/// `x = f(x + bias)`, or `f(x)` where there is no bias.
#[inline(always)]
pub(super) fn pointwise<S: Lanes, P: Pointwise>(s: S, _: P, x: &mut [f32], bias: &[f32]) {
    let (chunks, rest) = x.as_chunks_mut::<16>();
    if !bias.is_empty() {
        let (biases, bias_rest) = bias.as_chunks::<16>();
        for (chunk, bias) in chunks.iter_mut().zip(biases) {
            s.store(P::at(s, s.add(s.load(chunk), s.load(bias))), chunk);
        }
        if !rest.is_empty() {
            let last = s.add(s.load(&padded(rest, 0.0)), s.load(&padded(bias_rest, 0.0)));
            rest.copy_from_slice(&s.array(P::at(s, last))[..rest.len()]);
        }
        return;
    }
    for chunk in chunks {
        s.store(P::at(s, s.load(chunk)), chunk);
    }
    if !rest.is_empty() {
        let last = s.array(P::at(s, s.load(&padded(rest, 0.0))));
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Rows that go through the steps of [`softmax`] together: with one after the other the CPU waits
/// for the last numbers of each step.
const SOFTMAX_ROWS: usize = 8;

#[inline(always)]
pub(super) fn softmax<S: Lanes>(s: S, x: &mut [f32], lens: &[usize], sums: &mut [f32]) {
    let stride = x.len() / lens.len();
    let rows = lens.chunks(SOFTMAX_ROWS).zip(sums.chunks_mut(SOFTMAX_ROWS));
    for ((lens, sums), x) in rows.zip(x.chunks_mut(SOFTMAX_ROWS * stride)) {
        for ((sum, &len), x) in sums.iter_mut().zip(lens).zip(x.chunks(stride)) {
            *sum = largest(s, &x[..len]);
        }
        for ((sum, &len), x) in sums.iter_mut().zip(lens).zip(x.chunks_mut(stride)) {
            *sum = exp_of_differences(s, &mut x[..len], *sum);
        }
    }
}

/// The largest number, at least the smallest finite one: minus infinity less it is minus infinity
/// still, also where nothing else is there.
#[inline(always)]
fn largest<S: Lanes>(s: S, x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<16>();
    let (pairs, last) = chunks.as_chunks::<2>();
    let (mut max, mut other) = (s.splat(f32::MIN), s.splat(f32::MIN));
    for [a, b] in pairs {
        max = s.larger(s.load(a), max);
        other = s.larger(s.load(b), other);
    }
    max = s.larger(other, max);
    for chunk in last {
        max = s.larger(s.load(chunk), max);
    }
    if !rest.is_empty() {
        max = s.larger(s.load(&padded(rest, f32::NEG_INFINITY)), max);
    }
    s.largest(max)
}

/// `x = exp(x − max)`; returns the sum.
#[inline(always)]
fn exp_of_differences<S: Lanes>(s: S, x: &mut [f32], max: f32) -> f32 {
    let (chunks, rest) = x.as_chunks_mut::<16>();
    let max = s.splat(max);
    let mut sum = s.splat(0.0);
    for chunk in chunks {
        let e = math::exp_of_small(s, s.sub(s.load(chunk), max));
        s.store(e, chunk);
        sum = s.add(sum, e);
    }
    let mut lanes = s.array(sum);
    if !rest.is_empty() {
        let last =
            s.array(math::exp_of_small(s, s.sub(s.load(&padded(rest, f32::NEG_INFINITY)), max)));
        rest.copy_from_slice(&last[..rest.len()]);
        for (lane, &e) in lanes.iter_mut().zip(&*rest) {
            *lane += e;
        }
    }
    sum_tree(lanes)
}

/// Sixteen keys in lanes; two tiles at a time, since each is one long chain of additions.
#[inline(always)]
pub(super) fn scores_float<S: Lanes, T: Stored>(
    s: S,
    query: &[f32],
    keys: &[T],
    scale: f32,
    scores: &mut [f32],
) {
    let tile = query.len() * ROWS;
    for (pair, scores) in keys.chunks(2 * tile).zip(scores.chunks_mut(2 * ROWS)) {
        let (first, second) = pair.split_at(tile);
        let (scores, second_scores) = scores.as_chunks_mut::<16>().0.split_at_mut(1);
        if second_scores.is_empty() || second.is_empty() {
            let mut acc = s.splat(0.0);
            for (&q, k) in query.iter().zip(first.as_chunks().0) {
                acc = s.fma(s.splat(q), T::load(s, k), acc);
            }
            s.store(s.mul(acc, s.splat(scale)), &mut scores[0]);
            continue;
        }
        let (mut a, mut b) = (s.splat(0.0), s.splat(0.0));
        let tiles = first.as_chunks().0.iter().zip(second.as_chunks().0);
        for (&q, (k_a, k_b)) in query.iter().zip(tiles) {
            a = s.fma(s.splat(q), T::load(s, k_a), a);
            b = s.fma(s.splat(q), T::load(s, k_b), b);
        }
        s.store(s.mul(a, s.splat(scale)), &mut scores[0]);
        s.store(s.mul(b, s.splat(scale)), &mut second_scores[0]);
    }
}

/// Sixteen dimensions in lanes, up to four times sixteen at once.
#[inline(always)]
pub(super) fn values_float<S: Lanes, T: Stored>(
    s: S,
    weights: &[f32],
    scale: f32,
    values: &[T],
    out: &mut [f32],
) {
    let row = out.len() / 16;
    let rows = values.as_chunks::<16>().0;
    let outs = out.as_chunks_mut::<16>().0;
    let mut first = 0;
    while first + 4 <= row {
        let mut acc = [s.splat(0.0); 4];
        for (&w, value) in weights.iter().zip(rows.chunks_exact(row)) {
            let value: &[[T; 16]; 4] = value[first..].first_chunk().expect("four chunks");
            for i in 0..4 {
                acc[i] = s.fma(s.splat(w), T::load(s, &value[i]), acc[i]);
            }
        }
        for i in 0..4 {
            s.store(s.mul(acc[i], s.splat(scale)), &mut outs[first + i]);
        }
        first += 4;
    }
    for d in first..row {
        let mut acc = s.splat(0.0);
        for (&w, value) in weights.iter().zip(rows.chunks_exact(row)) {
            acc = s.fma(s.splat(w), T::load(s, &value[d]), acc);
        }
        s.store(s.mul(acc, s.splat(scale)), &mut outs[d]);
    }
}

#[inline(always)]
pub(super) fn weigh_values<S: Lanes>(
    s: S,
    weights: &[f32],
    value_scales: &[f32],
    high: &mut [u8],
    low: &mut [u8],
) -> f32 {
    let (chunks, rest) = weights.as_chunks::<16>();
    let (scales, scales_rest) = value_scales[..weights.len()].as_chunks::<16>();
    let mut max = s.splat(0.0);
    for (w, v) in chunks.iter().zip(scales) {
        max = s.larger(s.mul(s.load(w), s.load(v)), max);
    }
    let mut last = [[0.0; 16]; 2];
    if !rest.is_empty() {
        last = [padded(rest, 0.0), padded(scales_rest, 0.0)];
        max = s.larger(s.mul(s.load(&last[0]), s.load(&last[1])), max);
    }
    let max = s.largest(max);
    let (unit, inverse) = if max < super::scalar::TINY {
        (0.0, 0.0)
    } else {
        (max * (1.0 / VALUE_WEIGHT_MAX), VALUE_WEIGHT_MAX / max)
    };
    let mut halves = high.as_chunks_mut().0.iter_mut().zip(low.as_chunks_mut().0);
    for ((w, v), (high, low)) in chunks.iter().zip(scales).zip(&mut halves) {
        split_weight(s, [w, v], inverse, high, low);
    }
    if let (false, Some((high, low))) = (rest.is_empty(), halves.next()) {
        split_weight(s, [&last[0], &last[1]], inverse, high, low);
    }
    unit
}

/// `weight · scale · inverse` as an integer of 14 bits, in two halves.
#[inline(always)]
fn split_weight<S: Lanes>(
    s: S,
    [weight, scale]: [&[f32; 16]; 2],
    inverse: f32,
    high: &mut [u8; 16],
    low: &mut [u8; 16],
) {
    let scaled = s.mul(s.mul(s.load(weight), s.load(scale)), s.splat(inverse));
    // Which zero it is does not matter: something is added.
    let clamped = s.clamp(scaled, 0.0, VALUE_WEIGHT_MAX);
    s.store_halves(s.add(clamped, s.splat(ROUND_MAGIC)), high, low);
}

/// f32 or f16 weights: sixteen rows in lanes, `TOKENS` chains side by side.
#[inline(always)]
pub(super) fn matmul_float<S: Lanes, T: Stored, const TOKENS: usize>(
    s: S,
    lhs: &FloatLhs<'_>,
    record_len: usize,
    records: &[T],
    dst: &mut Columns<'_>,
) {
    for (block, record) in records.chunks_exact(record_len).enumerate() {
        let weights = &record.as_chunks::<16>().0[..lhs.cols];
        let mut t = 0;
        while t + TOKENS <= lhs.m {
            let x: [&[f32]; TOKENS] =
                core::array::from_fn(|i| &lhs.x[(t + i) * lhs.cols..][..lhs.cols]);
            let mut acc = [s.splat(0.0); TOKENS];
            for (k, w) in weights.iter().enumerate() {
                let w = T::load(s, w);
                for i in 0..TOKENS {
                    acc[i] = s.fma(s.splat(x[i][k]), w, acc[i]);
                }
            }
            for (i, &acc) in acc.iter().enumerate() {
                store_block(s, acc, dst.row_mut(t + i), block);
            }
            t += TOKENS;
        }
        for t in t..lhs.m {
            let x = &lhs.x[t * lhs.cols..][..lhs.cols];
            let mut acc = s.splat(0.0);
            for (&x, w) in x.iter().zip(weights) {
                acc = s.fma(s.splat(x), T::load(s, w), acc);
            }
            store_block(s, acc, dst.row_mut(t), block);
        }
    }
}

#[inline(always)]
fn store_block<S: Lanes>(s: S, x: S::F, row: &mut [f32], block: usize) {
    s.store(x, &mut row.as_chunks_mut().0[block]);
}
