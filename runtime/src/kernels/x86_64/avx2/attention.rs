//! Attention over a q8 cache.

use core::arch::x86_64::*;

use super::{Avx2, broadcast, dot_signed, load};
use crate::kernels::generic::Lanes;
use crate::math::Simd;

#[target_feature(enable = "avx2,fma")]
pub(super) fn scores_q8(
    query: &[i8],
    scale: f32,
    keys: &[i8],
    key_scales: &[f32],
    scores: &mut [f32],
) {
    let query = query.as_chunks::<4>().0;
    let tiles = bytemuck::cast_slice::<i8, u8>(keys).chunks_exact(query.len() * 64);
    let scales = key_scales.as_chunks::<16>().0;
    for ((tile, s), out) in tiles.zip(scales).zip(scores.as_chunks_mut::<16>().0) {
        let mut dots = [_mm256_setzero_si256(); 2];
        for (q, k) in query.iter().zip(tile.as_chunks().0.as_chunks::<2>().0) {
            let q = broadcast(q);
            for half in 0..2 {
                dots[half] = _mm256_add_epi32(dots[half], dot_signed(load(&k[half]), q));
            }
        }
        let s = Avx2(()).mul(Avx2(()).load(s), Avx2(()).splat(scale));
        Avx2(()).store(Avx2(()).mul(dots.map(|dot| _mm256_cvtepi32_ps(dot)), s), out);
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn values_q8(high: &[u8], low: &[u8], scale: f32, values: &[i8], out: &mut [f32]) {
    let quads = out.len() / 16;
    let values = bytemuck::cast_slice::<i8, u8>(values).as_chunks::<32>().0.as_chunks::<2>().0;
    let outs = out.as_chunks_mut::<16>().0;
    for d in 0..quads {
        let mut sums = [[_mm256_setzero_si256(); 2]; 2];
        let ones = _mm256_set1_epi16(1);
        let weights = high.as_chunks::<4>().0.iter().zip(low.as_chunks::<4>().0);
        for ((h, l), row) in weights.zip(values.chunks_exact(quads)) {
            for (part, weight) in [h, l].into_iter().enumerate() {
                let weight = _mm256_set1_epi32(i32::from_ne_bytes(*weight));
                for half in 0..2 {
                    let pairs = _mm256_maddubs_epi16(weight, load(&row[d][half]));
                    let dot = _mm256_madd_epi16(pairs, ones);
                    sums[part][half] = _mm256_add_epi32(sums[part][half], dot);
                }
            }
        }
        let [high, low] = sums.map(|sum| sum.map(|half| _mm256_cvtepi32_ps(half)));
        let sum = Avx2(()).fma(high, Avx2(()).splat(128.0), low);
        Avx2(()).store(Avx2(()).mul(sum, Avx2(()).splat(scale)), &mut outs[d]);
    }
}
