//! Activations and the vectors of a cache in int8.

use super::{Lanes, padded};
use crate::kernels::scalar::group_scale;
use crate::math::ROUND_MAGIC;
use crate::quant::tile::GROUP;

#[inline(always)]
pub(in crate::kernels) fn quantize<S: Lanes>(
    s: S,
    x: &[f32],
    group: usize,
    q: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    let whole = if group == GROUP { x.as_chunks::<GROUP>().0 } else { &[] };
    let outs = &mut q.as_chunks_mut::<GROUP>().0[..whole.len()];
    let done = s.quantize_first(whole, outs, scales, sums);
    let outs = outs[done..].chunks_mut(GROUPS);
    let numbers = scales[done..].chunks_mut(GROUPS).zip(sums[done..].chunks_mut(GROUPS));
    for ((x, q), (scales, sums)) in whole[done..].chunks(GROUPS).zip(outs).zip(numbers) {
        quantize_groups(s, x, q, scales, sums);
    }
    for (g, x) in x.chunks(group).enumerate().skip(whole.len()) {
        let (chunks, rest) = x.as_chunks::<16>();
        let mut amax = s.splat(0.0);
        for chunk in chunks {
            amax = s.larger_magnitude(s.load(chunk), amax);
        }
        if !rest.is_empty() {
            amax = s.larger_magnitude(s.load(&padded(rest, 0.0)), amax);
        }
        let (scale, inverse) = group_scale(s.largest(amax));
        let q = q[g * group..(g + 1) * group].as_chunks_mut::<16>().0;
        // Integers of at most 127, so that their sum is exact as a float.
        let mut sum = s.splat(0.0);
        for (chunk, q) in chunks.iter().zip(&mut *q) {
            let rounded = rounded(s, s.load(chunk), inverse);
            s.store_low_bytes(rounded, q);
            sum = s.add(sum, s.sub(rounded, s.splat(ROUND_MAGIC)));
        }
        if !rest.is_empty() {
            // Padding lanes quantize to zero, whatever the scale.
            let rounded = rounded(s, s.load(&padded(rest, 0.0)), inverse);
            let mut last = [0; 16];
            s.store_low_bytes(rounded, &mut last);
            last[rest.len()..].fill(0);
            q[chunks.len()] = last;
            let mut lanes = s.array(s.sub(rounded, s.splat(ROUND_MAGIC)));
            lanes[rest.len()..].fill(0.0);
            sum = s.add(sum, s.load(&lanes));
        }
        let used = chunks.len() + usize::from(!rest.is_empty());
        q[used..].as_flattened_mut().fill(0);
        sums[g] = small_integer(s.sum(sum));
        scales[g] = scale;
    }
}

/// One group of some times 32 numbers: a head's vector. Returns its scale and sum.
#[inline(always)]
pub(in crate::kernels) fn quantize_one<S: Lanes>(
    s: S,
    x: &[[f32; GROUP]],
    q: &mut [i8],
) -> (f32, i32) {
    if let Some(scale_and_sum) = s.quantize_head(x, q) {
        return scale_and_sum;
    }
    let (amax, finite) = s.magnitude(x);
    let (scale, inverse) = group_scale(amax);
    let mut sum = 0;
    for (x, q) in x.iter().zip(q.as_chunks_mut().0) {
        sum += quantize_block(s, x, inverse, finite, q);
    }
    (scale, sum)
}

/// Groups that go through the steps of [`quantize_groups`] together.
const GROUPS: usize = 16;

/// Up to [`GROUPS`] whole groups, step by step: what a group goes through is one long chain of
/// dependent operations, and the CPU's schedulers hold too few of them to overlap many groups.
#[inline(always)]
fn quantize_groups<S: Lanes>(
    s: S,
    x: &[[f32; GROUP]],
    q: &mut [[i8; GROUP]],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    let (mut inverses, mut all_finite) = ([0.0; GROUPS], true);
    for (x, largest) in x.iter().zip(&mut inverses) {
        let finite;
        (*largest, finite) = s.magnitude(core::slice::from_ref(x));
        all_finite &= finite;
    }
    for (inverse, scale) in inverses.iter_mut().zip(scales) {
        (*scale, *inverse) = group_scale(*inverse);
    }
    let groups = x.iter().zip(q).zip(inverses.iter().zip(sums));
    if all_finite {
        for ((x, q), (&inverse, sum)) in groups {
            *sum = quantize_block(s, x, inverse, true, q);
        }
    } else {
        for ((x, q), (&inverse, sum)) in groups {
            *sum = quantize_block(s, x, inverse, false, q);
        }
    }
}

/// Thirty-two numbers, by what they are multiplied with; returns the sum.
#[inline(always)]
fn quantize_block<S: Lanes>(
    s: S,
    x: &[f32; GROUP],
    inverse: f32,
    finite: bool,
    q: &mut [i8; GROUP],
) -> i32 {
    let [a, b] = halves(x);
    let (a, b) = (s.load(a), s.load(b));
    let (a, b) = if finite {
        // No number times 127 / the largest rounds to more than 127.
        let magic = s.splat(ROUND_MAGIC);
        let inverse = s.splat(inverse);
        (s.add(s.mul(a, inverse), magic), s.add(s.mul(b, inverse), magic))
    } else {
        (rounded(s, a, inverse), rounded(s, b, inverse))
    };
    let q: &mut [[i8; 16]; 2] = q.as_chunks_mut().0.as_mut_array().expect("two halves");
    s.store_low_bytes(a, &mut q[0]);
    s.store_low_bytes(b, &mut q[1]);
    s.sum_of_rounded([a, b], q)
}

#[inline(always)]
pub(super) fn halves(x: &[f32; GROUP]) -> &[[f32; 16]; 2] {
    x.as_chunks().0.as_array().expect("two halves")
}

/// An integer of less than 22 bits that is held as a float.
#[inline(always)]
pub(super) fn small_integer(x: f32) -> i32 {
    (x + ROUND_MAGIC).to_bits() as i32 - ROUND_MAGIC.to_bits() as i32
}

/// `x · inverse` as an integer within ±127, in the low byte of the bits.
#[inline(always)]
fn rounded<S: Lanes>(s: S, x: S::F, inverse: f32) -> S::F {
    let scaled = s.mul(x, s.splat(inverse));
    s.add(s.clamp(scaled, -127.0, 127.0), s.splat(ROUND_MAGIC))
}
