//! Attention over a q8 cache.

use core::arch::x86_64::*;

use super::{Avx512, broadcast, load};
use crate::kernels::generic::Lanes;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn scores_q8(
    query: &[i8],
    scale: f32,
    keys: &[i8],
    key_scales: &[f32],
    scores: &mut [f32],
) {
    let sum: i32 = query.iter().map(|&q| i32::from(q)).sum();
    let offset = _mm512_set1_epi32(sum << 7);
    let sign = _mm512_set1_epi8(-128);
    let query = query.as_chunks::<4>().0;
    let tiles = bytemuck::cast_slice::<i8, u8>(keys).chunks_exact(query.len() * 64);
    let scales = key_scales.as_chunks::<16>().0;
    for ((tile, s), out) in tiles.zip(scales).zip(scores.as_chunks_mut::<16>().0) {
        let mut dot = [_mm512_setzero_si512(); 2];
        for (i, (q, k)) in query.iter().zip(tile.as_chunks().0).enumerate() {
            let k = _mm512_xor_si512(load(k), sign);
            dot[i % 2] = _mm512_dpbusd_epi32(dot[i % 2], k, broadcast(q));
        }
        let dot = _mm512_sub_epi32(_mm512_add_epi32(dot[0], dot[1]), offset);
        let s = _mm512_mul_ps(Avx512(()).load(s), _mm512_set1_ps(scale));
        Avx512(()).store(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), s), out);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn values_q8(high: &[u8], low: &[u8], scale: f32, values: &[i8], out: &mut [f32]) {
    let quads = out.len() / 16;
    let values = bytemuck::cast_slice::<i8, u8>(values).as_chunks::<64>().0;
    let outs = out.as_chunks_mut::<16>().0;
    let mut first = 0;
    while first + 4 <= quads {
        let sums = weighted_sums::<4>(high, low, values, quads, first);
        for i in 0..4 {
            Avx512(()).store(join(sums[i], scale), &mut outs[first + i]);
        }
        first += 4;
    }
    while first < quads {
        let [sums] = weighted_sums::<1>(high, low, values, quads, first);
        Avx512(()).store(join(sums, scale), &mut outs[first]);
        first += 1;
    }
}

/// Sums of `N` times sixteen dimensions, with the high and the low half of the weights.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn weighted_sums<const N: usize>(
    high: &[u8],
    low: &[u8],
    values: &[[u8; 64]],
    quads: usize,
    first: usize,
) -> [[__m512i; 2]; N] {
    let mut sums = [[_mm512_setzero_si512(); 2]; N];
    let weights = high.as_chunks::<4>().0.iter().zip(low.as_chunks::<4>().0);
    for ((h, l), row) in weights.zip(values.chunks_exact(quads)) {
        let row: &[[u8; 64]; N] = row[first..].first_chunk().expect("a whole row");
        let h = _mm512_set1_epi32(i32::from_ne_bytes(*h));
        let l = _mm512_set1_epi32(i32::from_ne_bytes(*l));
        for i in 0..N {
            let v = load(&row[i]);
            sums[i][0] = _mm512_dpbusd_epi32(sums[i][0], h, v);
            sums[i][1] = _mm512_dpbusd_epi32(sums[i][1], l, v);
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
fn join([high, low]: [__m512i; 2], scale: f32) -> __m512 {
    let (high, low) = (_mm512_cvtepi32_ps(high), _mm512_cvtepi32_ps(low));
    let sum = _mm512_fmadd_ps(high, _mm512_set1_ps(128.0), low);
    _mm512_mul_ps(sum, _mm512_set1_ps(scale))
}
