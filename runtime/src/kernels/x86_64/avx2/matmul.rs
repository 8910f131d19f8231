//! Matrix products over q8, q4 and q3.
#![allow(
    clippy::needless_range_loop,
    reason = "a half's number indexes registers and weights alike"
)]

use core::arch::x86_64::*;

use super::many::offset::{self, OffsetQ8};
use super::many::{self, Unpack, many_tokens};
use super::tiles::{SIX, few_tokens, some_tokens};
use super::{Avx2, broadcast, dot_signed, load, load_scales};
use crate::format::Encoding;
use crate::kernels::generic::Lanes;
use crate::kernels::x86_64::ahead::{self, Ahead, Way};
use crate::kernels::x86_64::panel::Tile;
use crate::kernels::{Columns, QuantLhs};
use crate::math::Simd;
use crate::quant::tile::{
    self, GROUP, Q3_GROUP_BYTES, Q4_GROUP_BYTES, Q8_GROUP_BYTES, QuantRecord, ROWS,
};

/// How an encoding's groups are multiplied with one token.
pub(super) trait Group {
    const ENCODING: Encoding;
    const BYTES: usize;
    /// Integer sums of a group, eight rows in each half.
    fn dot(weights: &[u8], q: &[[i8; 4]; 8], sum: i32) -> [__m256i; 2];
    fn block_scales(bytes: &[u8; ROWS]) -> [__m256; 2];
}

pub(super) struct Q8;
pub(super) struct Few<const BITS: u32>;
type Q4 = Few<4>;
type Q3 = Few<3>;

impl Group for Q8 {
    const ENCODING: Encoding = Encoding::Q8;
    const BYTES: usize = Q8_GROUP_BYTES;
    #[inline(always)]
    fn dot(weights: &[u8], q: &[[i8; 4]; 8], _: i32) -> [__m256i; 2] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut dots = [_mm256_setzero_si256(); 2];
            for (w, q) in weights.as_chunks().0.as_chunks::<2>().0.iter().zip(q) {
                let q = broadcast(q);
                for half in 0..2 {
                    dots[half] = _mm256_add_epi32(dots[half], dot_signed(load(&w[half]), q));
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
            [
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(b))),
            ]
        }
    }
}

/// An encoding whose groups are four tiles of nibbles, in 64 bytes each.
pub(super) trait Nibbles {
    const ENCODING: Encoding;
    /// Tiles that are stored.
    const TILES: usize;
    /// The bits of a nibble that count.
    const MASK: i8;
    /// Half the number of values: what they are stored with more, as a power of two.
    const OFFSET_SHIFT: i32;
    /// The tile that is not stored, if there is one; it is made from the others.
    fn fourth(tiles: &[[[u8; 32]; 2]]) -> Option<[__m256i; 2]>;
}

impl Nibbles for Q4 {
    const ENCODING: Encoding = Encoding::Q4;
    const TILES: usize = Q4_GROUP_BYTES / 64;
    const MASK: i8 = 15;
    const OFFSET_SHIFT: i32 = 3;
    #[inline(always)]
    fn fourth(_: &[[[u8; 32]; 2]]) -> Option<[__m256i; 2]> {
        None
    }
}

impl Nibbles for Q3 {
    const ENCODING: Encoding = Encoding::Q3;
    const TILES: usize = Q3_GROUP_BYTES / 64;
    const MASK: i8 = 7;
    const OFFSET_SHIFT: i32 = 2;
    /// Its bits are the last ones of the others' nibbles.
    #[inline(always)]
    fn fourth(tiles: &[[[u8; 32]; 2]]) -> Option<[__m256i; 2]> {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let [a, b, c] = tiles else { unreachable!("three are stored") };
            Some([spare_bits(&a[0], &b[0], &c[0]), spare_bits(&a[1], &b[1], &c[1])])
        }
    }
}

/// Bits 3 and 7 of the bytes of three tiles, as bits 0 to 2 and 4 to 6 of one. By itself, not a closure,
/// which would not have these target features and make each operation a call.
#[inline]
#[target_feature(enable = "avx2")]
fn spare_bits(a: &[u8; 32], b: &[u8; 32], c: &[u8; 32]) -> __m256i {
    let a = _mm256_and_si256(_mm256_srli_epi16::<3>(load(a)), _mm256_set1_epi8(0x11));
    let b = _mm256_and_si256(_mm256_srli_epi16::<2>(load(b)), _mm256_set1_epi8(0x22));
    let c = _mm256_and_si256(_mm256_srli_epi16::<1>(load(c)), _mm256_set1_epi8(0x44));
    _mm256_or_si256(_mm256_or_si256(a, b), c)
}

/// Adds the products of one token with a tile in 16 bits, for eight rows in each half.
#[inline]
#[target_feature(enable = "avx2")]
fn add_nibbles<N: Nibbles>(
    dots: &mut [__m256i; 2],
    tile: [__m256i; 2],
    [q_low, q_high]: &[[i8; 4]; 2],
) {
    let mask = _mm256_set1_epi8(N::MASK);
    let (q_low, q_high) = (broadcast(q_low), broadcast(q_high));
    for half in 0..2 {
        let low = _mm256_maddubs_epi16(_mm256_and_si256(tile[half], mask), q_low);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(tile[half]), mask);
        let both = _mm256_add_epi16(low, _mm256_maddubs_epi16(high, q_high));
        dots[half] = _mm256_add_epi16(dots[half], both);
    }
}

impl<const BITS: u32> Group for Few<BITS>
where
    Self: Nibbles,
{
    const ENCODING: Encoding = <Self as Nibbles>::ENCODING;
    const BYTES: usize = 64 * Self::TILES;
    #[inline(always)]
    fn dot(weights: &[u8], q: &[[i8; 4]; 8], sum: i32) -> [__m256i; 2] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut dots = [_mm256_setzero_si256(); 2];
            let tiles = &weights.as_chunks().0.as_chunks::<2>().0[..Self::TILES];
            let q = q.as_chunks::<2>().0;
            for (w, q) in tiles.iter().zip(q) {
                add_nibbles::<Self>(&mut dots, [load(&w[0]), load(&w[1])], q);
            }
            if let Some(w) = Self::fourth(tiles) {
                add_nibbles::<Self>(&mut dots, w, &q[3]);
            }
            let offset = _mm256_set1_epi32(sum << Self::OFFSET_SHIFT);
            let ones = _mm256_set1_epi16(1);
            [
                _mm256_sub_epi32(_mm256_madd_epi16(dots[0], ones), offset),
                _mm256_sub_epi32(_mm256_madd_epi16(dots[1], ones), offset),
            ]
        }
    }
    #[inline(always)]
    fn block_scales(bytes: &[u8; ROWS]) -> [__m256; 2] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let b = load_scales(bytes);
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(b))),
            ]
        }
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul_q8(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    if lhs.m >= many::WORTH_IT && offset::is_better() {
        many_tokens::<OffsetQ8>(lhs, records, dst);
    } else {
        matmul::<Q8>(lhs, records, dst);
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q4>(lhs, records, dst);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul_q3(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q3>(lhs, records, dst);
}

/// A single token by itself, others four or six at a time, many with weights that are unpacked before.
#[inline(always)]
fn matmul<G: Group + Unpack + Tile<4> + Tile<SIX>>(
    lhs: &QuantLhs<'_>,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    // SAFETY: (1) called from functions with these target features only.
    unsafe {
        match lhs.m {
            0 => {}
            1 => match ahead::way() {
                Way::Never => with_scratch_for!(lhs.groups, one_token::<G>(lhs, records, dst)),
                Way::First => one_token_asking::<G, false>(lhs, records, dst),
                Way::Second => one_token_asking::<G, true>(lhs, records, dst),
            },
            2..=4 => few_tokens::<G>(lhs, records, dst),
            5..many::WORTH_IT => some_tokens::<G>(lhs, records, dst),
            _ => many_tokens::<G>(lhs, records, dst),
        }
    }
}

/// The product of one token.
///
/// `N` block scales are read ahead of the weights (see `with_scratch_for`).
#[inline(always)]
fn one_token<G: Group, const N: usize>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    let groups = lhs.groups;
    let (q, sums, scales) = (activations(lhs), &lhs.sums[..groups], &lhs.scales[..groups]);
    let mut scratch = [[0.0f32; ROWS]; N];

    let records = records.chunks_exact(tile::record_len(G::ENCODING, groups * GROUP));
    for (record, out) in records.zip(dst.row_mut(0).as_chunks_mut::<ROWS>().0) {
        let QuantRecord { row_scales, block_scales, weights } = QuantRecord::new(record, groups);
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut acc = [_mm256_setzero_ps(); 2];
            for (i, block_scales) in block_scales.chunks(N).enumerate() {
                let first = i * N;
                for ((scale, b), a) in scratch.iter_mut().zip(block_scales).zip(&scales[first..]) {
                    Avx2(()).store(group_scale::<G>(b, *a), scale);
                }
                let weights = weights[first * G::BYTES..].chunks_exact(G::BYTES);
                let groups = weights.zip(&q[first..]).zip(&sums[first..]);
                for (((w, q), &sum), scale) in groups.zip(&scratch[..block_scales.len()]) {
                    acc = add_group(acc, G::dot(w, q, sum), Avx2(()).load(scale));
                }
            }
            finish(acc, row_scales, out);
        }
    }
}

/// The product of one token with weights that are asked for, so that it does not matter to the
/// hardware in which order they are read.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn one_token_asking<G: Group, const SECOND: bool>(
    lhs: &QuantLhs<'_>,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    let groups = lhs.groups;
    let (q, sums, scales) = (activations(lhs), &lhs.sums[..groups], &lhs.scales[..groups]);

    let records = records.chunks_exact(tile::record_len(G::ENCODING, groups * GROUP));
    for (record, out) in records.zip(dst.row_mut(0).as_chunks_mut::<ROWS>().0) {
        let mut ahead = Ahead::<SECOND>::of(record);
        let QuantRecord { row_scales, block_scales, weights } = QuantRecord::new(record, groups);
        let weights = weights.chunks_exact(G::BYTES);
        let mut acc = [_mm256_setzero_ps(); 2];
        for ((((w, b), q), &sum), a) in weights.zip(block_scales).zip(q).zip(sums).zip(scales) {
            ahead.ask_group(G::BYTES);
            acc = add_group(acc, G::dot(w, q, sum), group_scale::<G>(b, *a));
        }
        finish(acc, row_scales, out);
    }
}

/// The first token's, by groups and columns of four.
#[inline(always)]
fn activations<'a>(lhs: &QuantLhs<'a>) -> &'a [[[i8; 4]; 8]] {
    lhs.q[..lhs.groups * GROUP].as_chunks().0.as_chunks().0
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn group_scale<G: Group>(b: &[u8; ROWS], a: f32) -> [__m256; 2] {
    Avx2(()).mul(G::block_scales(b), Avx2(()).splat(a))
}

/// Adds a group's dot products to the sums of a record.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_group(acc: [__m256; 2], dot: [__m256i; 2], scale: [__m256; 2]) -> [__m256; 2] {
    let dot = [_mm256_cvtepi32_ps(dot[0]), _mm256_cvtepi32_ps(dot[1])];
    Avx2(()).fma(dot, scale, acc)
}

/// Multiplies the sums of a record with the scales of its rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn finish(acc: [__m256; 2], row_scales: &[u8; tile::ROW_SCALES_BYTES], out: &mut [f32; ROWS]) {
    let s = row_scales.as_chunks().0;
    let s = [_mm256_castsi256_ps(load(&s[0])), _mm256_castsi256_ps(load(&s[1]))];
    Avx2(()).store(Avx2(()).mul(acc, s), out);
}
