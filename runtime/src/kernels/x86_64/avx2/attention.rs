//! Attention over a q8 cache.

use core::arch::x86_64::*;

use super::{Avx2, broadcast, dot_signed, load};
use crate::kernels::Behind;
use crate::kernels::generic::Lanes;
use crate::kernels::x86_64::{Queries, ahead, prefetch};
use crate::math::Simd;

#[target_feature(enable = "avx2,fma")]
pub(super) fn scores_q8(
    queries: &[i8],
    scales: &[f32],
    keys: &[i8],
    key_scales: &[f32],
    behind: Behind<'_>,
    scores: &mut [f32],
) {
    let mut left = Queries { queries, scales, scores };
    while let Some(block) = left.take_block(&[4, 1]) {
        match block.scales.len() {
            4 => scores_of::<4>(block, keys, key_scales, behind),
            _ => scores_of::<1>(block, keys, key_scales, behind),
        }
    }
}

/// The scores of `N` queries.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn scores_of<const N: usize>(
    block: Queries<'_>,
    keys: &[i8],
    key_scales: &[f32],
    behind: Behind<'_>,
) {
    let Queries { queries, scales, scores } = block;
    let (hd, tiles) = (queries.len() / N, scores.len() / N / 16);
    let keys = &bytemuck::cast_slice::<i8, u8>(keys)[..tiles * 16 * hd];
    let rows = if N == 1 { ahead::Rows::new(keys, 16 * hd, behind.vectors) } else { None };
    if N == 1 && rows.is_none() {
        prefetch(bytemuck::cast_slice(&key_scales[..tiles * 16]));
    }
    let queries = queries.as_chunks::<4>().0;
    let scores = scores.as_chunks_mut::<16>().0;
    let keys = keys.as_chunks::<32>().0.as_chunks::<2>().0;
    let quads = hd / 4;
    for (tile, keys) in keys.chunks_exact(quads).enumerate() {
        let mut dots = [[_mm256_setzero_si256(); 2]; N];
        if rows.is_some() {
            prefetch(bytemuck::cast_slice(&key_scales[tile * 16..][..16]));
            prefetch(bytemuck::cast_slice(&behind.scales[tile * 16..][..16]));
        }
        for (i, key) in keys.iter().enumerate() {
            for half in 0..2 {
                let key = load(&key[half]);
                for n in 0..N {
                    let dot = dot_signed(key, broadcast(&queries[n * quads + i]));
                    dots[n][half] = _mm256_add_epi32(dots[n][half], dot);
                }
            }
            if let Some(rows) = &rows {
                rows.ask_line(tile, i);
            }
        }
        for n in 0..N {
            let dots = [_mm256_cvtepi32_ps(dots[n][0]), _mm256_cvtepi32_ps(dots[n][1])];
            Avx2(()).store(dots, &mut scores[n * tiles + tile]);
        }
    }
    // The scales come last: between the keys they would keep the hardware from fetching ahead.
    for (n, scores) in scores.chunks_exact_mut(tiles).enumerate() {
        for (score, key_scales) in scores.iter_mut().zip(key_scales.as_chunks::<16>().0) {
            let s = Avx2(()).mul(Avx2(()).load(key_scales), Avx2(()).splat(scales[n]));
            let score_scaled = Avx2(()).mul(Avx2(()).load(score), s);
            Avx2(()).store(score_scaled, score);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn values_q8(
    high: &[u8],
    low: &[u8],
    scale: f32,
    values: &[i8],
    behind: Behind<'_>,
    out: &mut [f32],
) {
    let quads = out.len() / 16;
    let values = &bytemuck::cast_slice::<i8, u8>(values)[..high.len() * out.len()];
    let rows = ahead::Rows::new(values, 64 * quads, behind.vectors);
    let values = values.as_chunks::<32>().0.as_chunks::<2>().0;
    let outs = out.as_chunks_mut::<16>().0;
    for d in 0..quads {
        let mut sums = [[_mm256_setzero_si256(); 2]; 2];
        let ones = _mm256_set1_epi16(1);
        let weights = high.as_chunks::<4>().0.iter().zip(low.as_chunks::<4>().0);
        for (t, ((h, l), row)) in weights.zip(values.chunks_exact(quads)).enumerate() {
            // The first time by, all lines of a row.
            if let Some(rows) = &rows
                && d == 0
            {
                (0..quads).for_each(|line| rows.ask_line(t, line));
            }
            for (part, weight) in [h, l].into_iter().enumerate() {
                let weight = _mm256_set1_epi32(i32::from_ne_bytes(*weight));
                for half in 0..2 {
                    let pairs = _mm256_maddubs_epi16(weight, load(&row[d][half]));
                    let dot = _mm256_madd_epi16(pairs, ones);
                    sums[part][half] = _mm256_add_epi32(sums[part][half], dot);
                }
            }
        }
        let high = [_mm256_cvtepi32_ps(sums[0][0]), _mm256_cvtepi32_ps(sums[0][1])];
        let low = [_mm256_cvtepi32_ps(sums[1][0]), _mm256_cvtepi32_ps(sums[1][1])];
        let sum = Avx2(()).fma(high, Avx2(()).splat(128.0), low);
        Avx2(()).store(Avx2(()).mul(sum, Avx2(()).splat(scale)), &mut outs[d]);
    }
}
