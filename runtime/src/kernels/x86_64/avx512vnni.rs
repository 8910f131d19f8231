//! AVX-512 with VNNI: sixteen output rows in one register, four inputs of each in one lane.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes. The nibbles of q4 are unsigned as they are;
//! q8 weights become unsigned by flipping the sign bit, which adds 128. What that adds to a sum is
//! taken off again with the sum of the activations, exactly.

use core::arch::x86_64::*;

use super::SCALES_AT_ONCE;
use crate::format::Encoding;
use crate::isa::Isa;
use crate::kernels::generic::{self, Lanes};
use crate::kernels::{Columns, FloatLhs, QuantLhs, Table};
use crate::math::Simd;
use crate::quant::tile::{self, GROUP, Q4_GROUP_BYTES, Q8_GROUP_BYTES, ROWS};

/// Proof that the CPU has the instructions: made only in functions that require them.
#[derive(Clone, Copy)]
struct Avx512(());

kernel_table!(
    Isa::Avx512Vnni,
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
    Avx512(()),
    tokens = 12
);

/// A method whose instructions the token promises.
macro_rules! op {
    ($($call:tt)*) => {
        // SAFETY: (1) the token is made only in functions with these target features.
        unsafe { $($call)* }
    };
}

impl Simd for Avx512 {
    type F = __m512;
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        op!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        op!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        op!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x))
    }
    #[inline(always)]
    fn ldexp_magic(self, a: __m512, magic: __m512) -> __m512 {
        op!(_mm512_castsi512_ps(_mm512_add_epi32(
            _mm512_castps_si512(a),
            _mm512_slli_epi32::<23>(_mm512_castps_si512(magic))
        )))
    }
}

impl Lanes for Avx512 {
    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512 {
        // SAFETY: (1) by the token; (2) (3) a reference to sixteen f32, any alignment will do.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, x: __m512, to: &mut [f32; 16]) {
        // SAFETY: (1) by the token; (2) (3) (4) an exclusive reference to sixteen f32.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; 16]) -> __m512 {
        // SAFETY: (1) by the token; (2) (3) a reference to sixteen u16, any alignment will do.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store_low_bytes(self, x: __m512, to: &mut [i8; 16]) {
        // SAFETY: (1) by the token; (2) (3) (4) an exclusive reference to sixteen bytes.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_castps_si512(x));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(from: &[u8; 64]) -> __m512i {
    // SAFETY: (2) (3) a reference to 64 bytes, any alignment will do.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_ps(from: &[u8; 64]) -> __m512 {
    _mm512_castsi512_ps(load(from))
}

/// Four activations in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(four: &[i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_ne_bytes(four.map(|x| x as u8)))
}

/// Sixteen bytes of block scales.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_scales(from: &[u8; ROWS]) -> __m128i {
    // SAFETY: (2) (3) a reference to 16 bytes, any alignment will do.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// How an encoding's groups are multiplied.
trait Group {
    const ENCODING: Encoding;
    const BYTES: usize;
    /// Bits by which the sum of the activations is shifted before it is taken off.
    const OFFSET_SHIFT: u32;
    /// Integer sums of a group for `M` tokens, the offset still in them.
    fn dot<const M: usize>(weights: &[u8], q: [&[[i8; 4]; 8]; M]) -> [__m512i; M];
    fn block_scales(bytes: &[u8; ROWS]) -> __m512;
}

struct Q8;
struct Q4;

impl Group for Q8 {
    const ENCODING: Encoding = Encoding::Q8;
    const BYTES: usize = Q8_GROUP_BYTES;
    const OFFSET_SHIFT: u32 = 7;
    #[inline(always)]
    fn dot<const M: usize>(weights: &[u8], q: [&[[i8; 4]; 8]; M]) -> [__m512i; M] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let sign = _mm512_set1_epi8(-128);
            let mut sums = [_mm512_setzero_si512(); M];
            for (j, w) in weights.as_chunks().0.iter().enumerate() {
                let w = _mm512_xor_si512(load(w), sign);
                for i in 0..M {
                    sums[i] = _mm512_dpbusd_epi32(sums[i], w, broadcast(&q[i][j]));
                }
            }
            sums
        }
    }
    #[inline(always)]
    fn block_scales(bytes: &[u8; ROWS]) -> __m512 {
        // SAFETY: (1) called from functions with these target features only.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_scales(bytes))) }
    }
}

impl Group for Q4 {
    const ENCODING: Encoding = Encoding::Q4;
    const BYTES: usize = Q4_GROUP_BYTES;
    const OFFSET_SHIFT: u32 = 3;
    #[inline(always)]
    fn dot<const M: usize>(weights: &[u8], q: [&[[i8; 4]; 8]; M]) -> [__m512i; M] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mask = _mm512_set1_epi8(15);
            let mut sums = [_mm512_setzero_si512(); M];
            for (j, w) in weights.as_chunks().0.iter().enumerate() {
                let w = load(w);
                let low = _mm512_and_si512(w, mask);
                let high = _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask);
                for i in 0..M {
                    sums[i] = _mm512_dpbusd_epi32(sums[i], low, broadcast(&q[i][2 * j]));
                    sums[i] = _mm512_dpbusd_epi32(sums[i], high, broadcast(&q[i][2 * j + 1]));
                }
            }
            sums
        }
    }
    #[inline(always)]
    fn block_scales(bytes: &[u8; ROWS]) -> __m512 {
        // SAFETY: (1) called from functions with these target features only.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_scales(bytes))) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn matmul_q8(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q8>(lhs, records, dst);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q4>(lhs, records, dst);
}

#[inline(always)]
fn matmul<G: Group>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    let record_len = tile::record_len(G::ENCODING, lhs.groups * GROUP);
    let mut scratch = [[0.0; ROWS]; SCALES_AT_ONCE];
    for (block, record) in records.chunks_exact(record_len).enumerate() {
        let mut t = 0;
        while lhs.m - t >= 8 {
            rows_16::<G, 8>(lhs, t, record, block, dst);
            t += 8;
        }
        if lhs.m - t >= 4 {
            rows_16::<G, 4>(lhs, t, record, block, dst);
            t += 4;
        }
        while t < lhs.m {
            one_token::<G>(lhs, t, record, block, &mut scratch, dst);
            t += 1;
        }
    }
}

/// Sixteen output rows of token `t`.
///
/// Block scales are read ahead of the weights: two streams in turns would keep the hardware's
/// prefetcher from running ahead of either (see [`SCALES_AT_ONCE`]).
#[inline(always)]
fn one_token<G: Group>(
    lhs: &QuantLhs<'_>,
    t: usize,
    record: &[u8],
    block: usize,
    scratch: &mut [[f32; ROWS]; SCALES_AT_ONCE],
    dst: &mut Columns<'_>,
) {
    let groups = lhs.groups;
    let (head, weights) = record.split_at(tile::weights_offset(groups));
    let (row_scales, block_scales) = head.split_at(tile::ROW_SCALES_BYTES);
    let block_scales = &block_scales.as_chunks::<ROWS>().0[..groups];
    let range = t * groups..(t + 1) * groups;
    let q = lhs.q[range.start * GROUP..range.end * GROUP].as_chunks().0.as_chunks::<8>().0;
    let (scales, sums) = (&lhs.scales[range.clone()], &lhs.sums[range]);
    // SAFETY: (1) called from functions with these target features only.
    unsafe {
        let mut acc = _mm512_setzero_ps();
        for (i, block_scales) in block_scales.chunks(SCALES_AT_ONCE).enumerate() {
            let first = i * SCALES_AT_ONCE;
            for ((both, b), a) in scratch.iter_mut().zip(block_scales).zip(&scales[first..]) {
                let scale = _mm512_mul_ps(G::block_scales(b), _mm512_set1_ps(*a));
                _mm512_storeu_ps(both.as_mut_ptr(), scale);
            }
            let weights = weights[first * G::BYTES..].chunks_exact(G::BYTES);
            let groups = weights.zip(&q[first..]).zip(&sums[first..]);
            for (((w, q), sum), scale) in groups.zip(&scratch[..block_scales.len()]) {
                let [dot] = G::dot::<1>(w, [q]);
                let offset = _mm512_set1_epi32(sum << G::OFFSET_SHIFT);
                let dot = _mm512_cvtepi32_ps(_mm512_sub_epi32(dot, offset));
                acc = _mm512_fmadd_ps(dot, _mm512_loadu_ps(scale.as_ptr()), acc);
            }
        }
        let row_scales = load_ps(row_scales.first_chunk().expect("sixteen f32"));
        let out = &mut dst.row_mut(t).as_chunks_mut::<16>().0[block];
        _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(acc, row_scales));
    }
}

/// Sixteen output rows of `M` tokens from token `t` on.
#[inline(always)]
fn rows_16<G: Group, const M: usize>(
    lhs: &QuantLhs<'_>,
    t: usize,
    record: &[u8],
    block: usize,
    dst: &mut Columns<'_>,
) {
    let groups = lhs.groups;
    let (head, weights) = record.split_at(tile::weights_offset(groups));
    let (row_scales, block_scales) = head.split_at(tile::ROW_SCALES_BYTES);
    let block_scales = &block_scales.as_chunks::<ROWS>().0[..groups];
    let q: [&[[[i8; 4]; 8]]; M] = core::array::from_fn(|i| {
        let row = &lhs.q[(t + i) * groups * GROUP..][..groups * GROUP];
        row.as_chunks().0.as_chunks().0
    });
    let scales: [&[f32]; M] = core::array::from_fn(|i| &lhs.scales[(t + i) * groups..][..groups]);
    let sums: [&[i32]; M] = core::array::from_fn(|i| &lhs.sums[(t + i) * groups..][..groups]);
    // SAFETY: (1) called from functions with these target features only.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); M];
        for (g, (w, b)) in weights.chunks_exact(G::BYTES).zip(block_scales).enumerate() {
            let dots = G::dot::<M>(w, core::array::from_fn(|i| &q[i][g]));
            let b = G::block_scales(b);
            for i in 0..M {
                let offset = _mm512_set1_epi32(sums[i][g] << G::OFFSET_SHIFT);
                let dot = _mm512_cvtepi32_ps(_mm512_sub_epi32(dots[i], offset));
                let scale = _mm512_mul_ps(b, _mm512_set1_ps(scales[i][g]));
                acc[i] = _mm512_fmadd_ps(dot, scale, acc[i]);
            }
        }
        let row_scales = load_ps(row_scales.first_chunk().expect("sixteen f32"));
        for (i, &acc) in acc.iter().enumerate() {
            let out = &mut dst.row_mut(t + i).as_chunks_mut::<16>().0[block];
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(acc, row_scales));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn scores_q8(query: &[i8], scale: f32, keys: &[i8], key_scales: &[f32], scores: &mut [f32]) {
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
fn values_q8(high: &[u8], low: &[u8], scale: f32, values: &[i8], out: &mut [f32]) {
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
