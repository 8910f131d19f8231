//! Attention over a q8 cache.

use core::arch::x86_64::*;

use super::{Avx512, broadcast, load};
use crate::kernels::Behind;
use crate::kernels::generic::Lanes;
use crate::kernels::x86_64::{Queries, ahead, prefetch};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn scores_q8(
    queries: &[i8],
    scales: &[f32],
    keys: &[i8],
    key_scales: &[f32],
    behind: Behind<'_>,
    scores: &mut [f32],
) {
    let mut left = Queries { queries, scales, scores };
    while let Some(block) = left.take_block(&[8, 4, 1]) {
        match block.scales.len() {
            8 => scores_of::<8>(block, keys, key_scales, behind),
            4 => scores_of::<4>(block, keys, key_scales, behind),
            _ => scores_of::<1>(block, keys, key_scales, behind),
        }
    }
}

/// The scores of `N` queries.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn scores_of<const N: usize>(
    block: Queries<'_>,
    keys: &[i8],
    key_scales: &[f32],
    behind: Behind<'_>,
) {
    let Queries { queries, scales, scores } = block;
    let (hd, tiles) = (queries.len() / N, scores.len() / N / 16);
    let mut offsets = [_mm512_setzero_si512(); N];
    for (offset, query) in offsets.iter_mut().zip(queries.chunks_exact(hd)) {
        let sum: i32 = query.iter().map(|&q| i32::from(q)).sum();
        *offset = _mm512_set1_epi32(-(sum << 7));
    }
    let sign = _mm512_set1_epi8(-128);
    let keys = &bytemuck::cast_slice::<i8, u8>(keys)[..tiles * 16 * hd];
    let rows = if N == 1 { ahead::Rows::new(keys, 16 * hd, behind.vectors) } else { None };
    if N == 1 && rows.is_none() {
        prefetch(bytemuck::cast_slice(&key_scales[..tiles * 16]));
    }
    let queries = queries.as_chunks::<4>().0;
    let scores = scores.as_chunks_mut::<16>().0;
    let keys = keys.as_chunks::<64>().0;
    let quads = hd / 4;
    for (tile, keys) in keys.chunks_exact(quads).enumerate() {
        let mut dots = offsets;
        if rows.is_some() {
            prefetch(bytemuck::cast_slice(&key_scales[tile * 16..][..16]));
            prefetch(bytemuck::cast_slice(&behind.scales[tile * 16..][..16]));
        }
        for (i, key) in keys.iter().enumerate() {
            let key = _mm512_xor_si512(load(key), sign);
            for n in 0..N {
                dots[n] = _mm512_dpbusd_epi32(dots[n], key, broadcast(&queries[n * quads + i]));
            }
            if let Some(rows) = &rows {
                rows.ask_line(tile, i);
            }
        }
        for n in 0..N {
            let mut score = _mm512_cvtepi32_ps(dots[n]);
            if N > 1 {
                let s = Avx512(()).load(&key_scales.as_chunks::<16>().0[tile]);
                score = _mm512_mul_ps(score, _mm512_mul_ps(s, _mm512_set1_ps(scales[n])));
            }
            Avx512(()).store(score, &mut scores[n * tiles + tile]);
        }
    }
    if N > 1 {
        return;
    }
    // The scales of keys that come from memory are read last: between the keys they would keep the
    // hardware from fetching ahead.
    for (n, scores) in scores.chunks_exact_mut(tiles).enumerate() {
        for (score, key_scales) in scores.iter_mut().zip(key_scales.as_chunks::<16>().0) {
            let s = _mm512_mul_ps(Avx512(()).load(key_scales), _mm512_set1_ps(scales[n]));
            let score_scaled = _mm512_mul_ps(Avx512(()).load(score), s);
            Avx512(()).store(score_scaled, score);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
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
    let values = values.as_chunks::<64>().0;
    let outs = out.as_chunks_mut::<16>().0;
    let mut first = 0;
    while first + 4 <= quads {
        let sums = weighted_sums::<4>(high, low, values, quads, first, &rows);
        for i in 0..4 {
            Avx512(()).store(join(sums[i], scale), &mut outs[first + i]);
        }
        first += 4;
    }
    while first < quads {
        let [sums] = weighted_sums::<1>(high, low, values, quads, first, &rows);
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
    rows: &Option<ahead::Rows>,
) -> [[__m512i; 2]; N] {
    let mut sums = [[_mm512_setzero_si512(); 2]; N];
    let weights = high.as_chunks::<4>().0.iter().zip(low.as_chunks::<4>().0);
    for (t, ((h, l), row)) in weights.zip(values.chunks_exact(quads)).enumerate() {
        let row: &[[u8; 64]; N] = row[first..].first_chunk().expect("a whole row");
        let h = _mm512_set1_epi32(i32::from_ne_bytes(*h));
        let l = _mm512_set1_epi32(i32::from_ne_bytes(*l));
        for i in 0..N {
            let v = load(&row[i]);
            sums[i][0] = _mm512_dpbusd_epi32(sums[i][0], h, v);
            sums[i][1] = _mm512_dpbusd_epi32(sums[i][1], l, v);
        }
        if let Some(rows) = rows {
            for i in 0..N {
                rows.ask_line(t, first + i);
            }
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
