//! AVX2 with FMA and F16C: sixteen output rows in two registers, four inputs of each in one lane.
//!
//! `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs in 16 bits. The nibbles of q4
//! are unsigned as they are, and a whole group of 32 fits 16 bits: 8 · 2 · 15 · 127 = 30480. q8
//! weights give their sign to the activations first: 2 · 127 · 127 fits, so nothing saturates.

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
struct Avx2(());

kernel_table!(Isa::Avx2, "avx2,fma,f16c", Avx2(()), tokens = 5);

/// A method whose instructions the token promises, on both halves.
macro_rules! both {
    ($f:ident($($x:ident),*)) => {
        // SAFETY: (1) the token is made only in functions with these target features.
        unsafe { [$f($($x[0]),*), $f($($x[1]),*)] }
    };
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    #[inline(always)]
    fn splat(self, x: f32) -> [__m256; 2] {
        // SAFETY: (1) the token is made only in functions with these target features.
        [unsafe { _mm256_set1_ps(x) }; 2]
    }
    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: [__m256; 2]) -> [__m256; 2] {
        let sign = self.splat(-0.0);
        both!(_mm256_andnot_ps(sign, a))
    }
    #[inline(always)]
    fn select_lt(
        self,
        a: [__m256; 2],
        b: [__m256; 2],
        x: [__m256; 2],
        y: [__m256; 2],
    ) -> [__m256; 2] {
        // SAFETY: (1) the token is made only in functions with these target features.
        let mask = [0, 1].map(|i| unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(a[i], b[i]) });
        both!(_mm256_blendv_ps(y, x, mask))
    }
    #[inline(always)]
    fn ldexp_magic(self, a: [__m256; 2], magic: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: (1) the token is made only in functions with these target features.
        [0, 1].map(|i| unsafe {
            let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(magic[i]));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a[i]), n))
        })
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [__m256; 2] {
        // SAFETY: (1) by the token; (2) (3) a reference to sixteen f32, any alignment will do.
        unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from[8..].as_ptr())] }
    }
    #[inline(always)]
    fn store(self, x: [__m256; 2], to: &mut [f32; 16]) {
        // SAFETY: (1) by the token; (2) (3) (4) an exclusive reference to sixteen f32.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), x[1]);
        }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; 16]) -> [__m256; 2] {
        // SAFETY: (1) by the token; (2) (3) a reference to sixteen u16, any alignment will do.
        unsafe {
            let half = |i: usize| _mm256_cvtph_ps(_mm_loadu_si128(from[i..].as_ptr().cast()));
            [half(0), half(8)]
        }
    }
    #[inline(always)]
    fn store_low_bytes(self, x: [__m256; 2], to: &mut [i8; 16]) {
        let mut bits = [0.0; 16];
        self.store(x, &mut bits);
        *to = bits.map(|x| x.to_bits() as i8);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(from: &[u8; 32]) -> __m256i {
    // SAFETY: (2) (3) a reference to 32 bytes, any alignment will do.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Four activations in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(four: &[i8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_ne_bytes(four.map(|x| x as u8)))
}

/// Sixteen bytes of block scales.
#[inline]
#[target_feature(enable = "avx2")]
fn load_scales(from: &[u8; ROWS]) -> __m128i {
    // SAFETY: (2) (3) a reference to 16 bytes, any alignment will do.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Products of signed bytes, four to a lane.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_signed(w: __m256i, a: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// How an encoding's groups are multiplied.
trait Group {
    const ENCODING: Encoding;
    const BYTES: usize;
    /// Integer sums of a group for `M` tokens, eight rows in each half.
    fn dot<const M: usize>(
        weights: &[u8],
        q: [&[[i8; 4]; 8]; M],
        sums: [i32; M],
    ) -> [[__m256i; 2]; M];
    fn block_scales(bytes: &[u8; ROWS]) -> [__m256; 2];
}

struct Q8;
struct Q4;

impl Group for Q8 {
    const ENCODING: Encoding = Encoding::Q8;
    const BYTES: usize = Q8_GROUP_BYTES;
    #[inline(always)]
    fn dot<const M: usize>(
        weights: &[u8],
        q: [&[[i8; 4]; 8]; M],
        _: [i32; M],
    ) -> [[__m256i; 2]; M] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut dots = [[_mm256_setzero_si256(); 2]; M];
            for (j, w) in weights.as_chunks().0.as_chunks::<2>().0.iter().enumerate() {
                for half in 0..2 {
                    let w = load(&w[half]);
                    for i in 0..M {
                        let dot = dot_signed(w, broadcast(&q[i][j]));
                        dots[i][half] = _mm256_add_epi32(dots[i][half], dot);
                    }
                }
            }
            dots
        }
    }
    #[inline(always)]
    fn block_scales(bytes: &[u8; ROWS]) -> [__m256; 2] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let b = load_scales(bytes);
            [b, _mm_srli_si128::<8>(b)].map(|b| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)))
        }
    }
}

impl Group for Q4 {
    const ENCODING: Encoding = Encoding::Q4;
    const BYTES: usize = Q4_GROUP_BYTES;
    #[inline(always)]
    fn dot<const M: usize>(
        weights: &[u8],
        q: [&[[i8; 4]; 8]; M],
        sums: [i32; M],
    ) -> [[__m256i; 2]; M] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mask = _mm256_set1_epi8(15);
            let mut dots = [[_mm256_setzero_si256(); 2]; M];
            for (j, w) in weights.as_chunks().0.as_chunks::<2>().0.iter().enumerate() {
                for half in 0..2 {
                    let w = load(&w[half]);
                    let low = _mm256_and_si256(w, mask);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(w), mask);
                    for i in 0..M {
                        let low = _mm256_maddubs_epi16(low, broadcast(&q[i][2 * j]));
                        let high = _mm256_maddubs_epi16(high, broadcast(&q[i][2 * j + 1]));
                        let both = _mm256_add_epi16(low, high);
                        dots[i][half] = _mm256_add_epi16(dots[i][half], both);
                    }
                }
            }
            let ones = _mm256_set1_epi16(1);
            core::array::from_fn(|i| {
                let offset = _mm256_set1_epi32(sums[i] << 3);
                dots[i].map(|dot| _mm256_sub_epi32(_mm256_madd_epi16(dot, ones), offset))
            })
        }
    }
    #[inline(always)]
    fn block_scales(bytes: &[u8; ROWS]) -> [__m256; 2] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let b = load_scales(bytes);
            [b, _mm_srli_si128::<8>(b)].map(|b| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)))
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn matmul_q8(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q8>(lhs, records, dst);
}

#[target_feature(enable = "avx2,fma")]
fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q4>(lhs, records, dst);
}

#[inline(always)]
fn matmul<G: Group>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    let record_len = tile::record_len(G::ENCODING, lhs.groups * GROUP);
    let mut scratch = [[0.0; ROWS]; SCALES_AT_ONCE];
    for (block, record) in records.chunks_exact(record_len).enumerate() {
        let mut t = 0;
        while lhs.m - t >= 4 {
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
        let mut acc = [_mm256_setzero_ps(); 2];
        for (i, block_scales) in block_scales.chunks(SCALES_AT_ONCE).enumerate() {
            let first = i * SCALES_AT_ONCE;
            for ((both, b), a) in scratch.iter_mut().zip(block_scales).zip(&scales[first..]) {
                let scale = Avx2(()).mul(G::block_scales(b), Avx2(()).splat(*a));
                Avx2(()).store(scale, both);
            }
            let weights = weights[first * G::BYTES..].chunks_exact(G::BYTES);
            let groups = weights.zip(&q[first..]).zip(&sums[first..]);
            for (((w, q), &sum), scale) in groups.zip(&scratch[..block_scales.len()]) {
                let [dot] = G::dot::<1>(w, [q], [sum]);
                let dot = dot.map(|half| _mm256_cvtepi32_ps(half));
                acc = Avx2(()).fma(dot, Avx2(()).load(scale), acc);
            }
        }
        let row_scales = row_scales.as_chunks().0;
        let s = [load(&row_scales[0]), load(&row_scales[1])].map(|s| _mm256_castsi256_ps(s));
        let out = &mut dst.row_mut(t).as_chunks_mut::<16>().0[block];
        Avx2(()).store(Avx2(()).mul(acc, s), out);
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
        let mut acc = [[_mm256_setzero_ps(); 2]; M];
        for (g, (w, b)) in weights.chunks_exact(G::BYTES).zip(block_scales).enumerate() {
            let q: [_; M] = core::array::from_fn(|i| &q[i][g]);
            let dots = G::dot::<M>(w, q, core::array::from_fn(|i| sums[i][g]));
            let b = G::block_scales(b);
            for i in 0..M {
                let a = _mm256_set1_ps(scales[i][g]);
                for half in 0..2 {
                    let dot = _mm256_cvtepi32_ps(dots[i][half]);
                    let scale = _mm256_mul_ps(b[half], a);
                    acc[i][half] = _mm256_fmadd_ps(dot, scale, acc[i][half]);
                }
            }
        }
        let row_scales = row_scales.as_chunks().0;
        for (i, acc) in acc.iter().enumerate() {
            let out = &mut dst.row_mut(t + i).as_chunks_mut::<16>().0[block];
            for half in 0..2 {
                let s = _mm256_castsi256_ps(load(&row_scales[half]));
                _mm256_storeu_ps(out[8 * half..].as_mut_ptr(), _mm256_mul_ps(acc[half], s));
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn scores_q8(query: &[i8], scale: f32, keys: &[i8], key_scales: &[f32], scores: &mut [f32]) {
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
fn values_q8(high: &[u8], low: &[u8], scale: f32, values: &[i8], out: &mut [f32]) {
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
