//! Matrix products over q8, q4 and q3.
#![allow(
    clippy::needless_range_loop,
    reason = "a token's number indexes registers, scales and rows alike, whichever a loop needs"
)]

use core::arch::x86_64::*;

use super::{Avx2, broadcast, dot_signed, load, load_scales};
use crate::format::Encoding;
use crate::kernels::generic::Lanes;
use crate::kernels::x86_64::ahead;
use crate::kernels::x86_64::panel::{self, PanelGroup, Piece, Sums, Tile};
use crate::kernels::x86_64::transpose_4x8;
use crate::kernels::{Columns, QuantLhs};
use crate::math::Simd;
use crate::quant::tile::{self, GROUP, Q3_GROUP_BYTES, Q4_GROUP_BYTES, Q8_GROUP_BYTES, ROWS};

/// How an encoding's groups are multiplied with one token.
trait Group {
    const ENCODING: Encoding;
    const BYTES: usize;
    /// Integer sums of a group, eight rows in each half.
    fn dot(weights: &[u8], q: &[[i8; 4]; 8], sum: i32) -> [__m256i; 2];
    fn block_scales(bytes: &[u8; ROWS]) -> [__m256; 2];
}

struct Q8;
struct Few<const BITS: u32>;
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
trait Nibbles {
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
    matmul::<Q8>(lhs, records, dst);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q4>(lhs, records, dst);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul_q3(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q3>(lhs, records, dst);
}

/// Four tokens at a time, and a single one by itself.
#[inline(always)]
fn matmul<G: Group + Tile<4>>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    let fours = if lhs.m % 4 == 1 { lhs.m - 1 } else { lhs.m };
    if fours > 0 {
        // SAFETY: (1) called from functions with these target features only.
        unsafe { several_tokens::<G>(lhs, fours, records, dst) };
    }
    if lhs.m > fours {
        with_scratch_for!(lhs.groups, one_token::<G>(lhs, fours, records, dst));
    }
}

/// The first tokens, by themselves: the panels lie on the stack.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn several_tokens<G: Tile<4>>(
    lhs: &QuantLhs<'_>,
    tokens: usize,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    panel::matmul::<4, 1, 8, 32, G>(lhs, tokens, records, dst);
}

/// A group of four tokens, transposed: columns 0 and 4, 1 and 5, 2 and 6, 3 and 7.
#[inline]
#[target_feature(enable = "avx2")]
fn columns(lhs: &QuantLhs<'_>, t: usize, group: usize) -> [__m256i; 4] {
    let mut rows = [_mm256_setzero_si256(); 4];
    for (row, q) in rows.iter_mut().zip(panel::rows(lhs, t, group)) {
        // SAFETY: (2) (3) a reference to 32 bytes, any alignment will do.
        *row = unsafe { _mm256_loadu_si256(q.as_ptr().cast()) };
    }
    transpose_4x8(rows)
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_tokens(column: __m128i, to: &mut [[i8; 4]; 4]) {
    // SAFETY: (2) (3) (4) an exclusive reference to sixteen bytes.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), column) }
}

impl<const BITS: u32> Tile<4> for Few<BITS>
where
    Self: Nibbles,
{
    const ENCODING: Encoding = <Self as Nibbles>::ENCODING;
    const GROUP_BYTES: usize = 64 * Self::TILES;
    /// `offsets` are pairs of 16-bit numbers, one for each half of a lane: the sums of the
    /// activations that this half is multiplied with, times −8 (−4 in q3). With them a sum of a whole group
    /// is that of signed weights and stays inside ±16256.
    type Group = PanelGroup<4>;
    const ZERO: PanelGroup<4> = PanelGroup::ZERO;

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut PanelGroup<4>) {
        panel::set_scales(lhs, t, group, &mut out.scales);
        // SAFETY: (1) called from functions with these target features only; (2) (3) (4) the
        // offsets are sixteen bytes, borrowed exclusively.
        unsafe {
            let ones = _mm256_set1_epi8(1);
            let mut sums = _mm256_setzero_si256();
            for (j, column) in columns(lhs, t, group).into_iter().enumerate() {
                store_tokens(_mm256_castsi256_si128(column), &mut out.q[j]);
                store_tokens(_mm256_extracti128_si256::<1>(column), &mut out.q[j + 4]);
                sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(ones, column));
            }
            let sums =
                _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let sums = _mm_sll_epi16(sums, _mm_cvtsi32_si128(Self::OFFSET_SHIFT));
            let offsets = _mm_sub_epi16(_mm_setzero_si128(), sums);
            _mm_storeu_si128(out.offsets.as_mut_ptr().cast(), offsets);
        }
    }

    #[inline(always)]
    fn add(panel: &[PanelGroup<4>], [piece]: [Piece<'_>; 1], mut sums: Sums<'_, '_, 1>) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let (mask, ones) = (_mm256_set1_epi8(Self::MASK), _mm256_set1_epi16(1));
            let parts = not_unrolled(Self::TILES);
            let mut acc = load_sums(&mut sums, &piece);
            let weights = piece.weights.chunks_exact(64 * Self::TILES);
            for (g, ((group, b), w)) in
                panel.iter().zip(piece.block_scales).zip(weights).enumerate()
            {
                piece.ask_next(g, 64 * Self::TILES);
                let mut dots = [[_mm256_setzero_si256(); 2]; 4];
                for i in 0..4 {
                    dots[i] = [_mm256_set1_epi32(group.offsets[i]); 2];
                }
                let w = w.as_chunks().0.as_chunks::<2>().0;
                let q = group.q.as_chunks::<2>().0;
                for (w, [q, _]) in w[..parts].iter().zip(q) {
                    let low = [load(&w[0]), load(&w[1])].map(|w| _mm256_and_si256(w, mask));
                    add_products(&mut dots, low, q);
                }
                for (w, [_, q]) in w[..parts].iter().zip(q) {
                    let high = [load(&w[0]), load(&w[1])]
                        .map(|w| _mm256_and_si256(_mm256_srli_epi16::<4>(w), mask));
                    add_products(&mut dots, high, q);
                }
                if let Some(w) = Self::fourth(w) {
                    let low = [_mm256_and_si256(w[0], mask), _mm256_and_si256(w[1], mask)];
                    add_products(&mut dots, low, &q[3][0]);
                    let high = [_mm256_srli_epi16::<4>(w[0]), _mm256_srli_epi16::<4>(w[1])];
                    let high = [_mm256_and_si256(high[0], mask), _mm256_and_si256(high[1], mask)];
                    add_products(&mut dots, high, &q[3][1]);
                }
                let b = Self::block_scales(b);
                for i in 0..4 {
                    let scale = _mm256_set1_ps(group.scales[i]);
                    for half in 0..2 {
                        let dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(dots[i][half], ones));
                        let scale = _mm256_mul_ps(b[half], scale);
                        acc[i][half] = _mm256_fmadd_ps(dot, scale, acc[i][half]);
                    }
                }
            }
            store_sums(acc, &mut sums, &piece);
        }
    }
}

/// A group of q8: activations widened to 16 bits, since products of bytes would not fit these.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct WideGroup {
    /// Of each four inputs and each token the first and the third, then the second and the fourth.
    q: [[[[i16; 2]; 4]; 2]; 8],
    scales: [f32; 4],
}

/// The even bytes as signed 16-bit numbers, and the odd ones.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(x: __m256i) -> [__m256i; 2] {
    [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)), _mm256_srai_epi16::<8>(x)]
}

impl Tile<4> for Q8 {
    const ENCODING: Encoding = Encoding::Q8;
    const GROUP_BYTES: usize = Q8_GROUP_BYTES;
    type Group = WideGroup;
    const ZERO: WideGroup = WideGroup { q: [[[[0; 2]; 4]; 2]; 8], scales: [0.0; 4] };

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut WideGroup) {
        panel::set_scales(lhs, t, group, &mut out.scales);
        // SAFETY: (1) called from functions with these target features only; (2) (3) (4) stores go
        // to sixteen bytes that are borrowed exclusively.
        unsafe {
            for (j, column) in columns(lhs, t, group).into_iter().enumerate() {
                for (part, wide) in widen(column).into_iter().enumerate() {
                    let low = out.q[j][part].as_mut_ptr();
                    _mm_storeu_si128(low.cast(), _mm256_castsi256_si128(wide));
                    let high = out.q[j + 4][part].as_mut_ptr();
                    _mm_storeu_si128(high.cast(), _mm256_extracti128_si256::<1>(wide));
                }
            }
        }
    }

    #[inline(always)]
    fn add(panel: &[WideGroup], [piece]: [Piece<'_>; 1], mut sums: Sums<'_, '_, 1>) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut acc = load_sums(&mut sums, &piece);
            let weights = piece.weights.as_chunks::<Q8_GROUP_BYTES>().0;
            for (g, ((group, b), w)) in
                panel.iter().zip(piece.block_scales).zip(weights).enumerate()
            {
                piece.ask_next(g, Q8_GROUP_BYTES);
                let mut dots = [[_mm256_setzero_si256(); 2]; 4];
                let w = w.as_chunks().0.as_chunks::<2>().0;
                for (w, [q_even, q_odd]) in w.iter().zip(&group.q) {
                    let even = [load(&w[0]), load(&w[1])].map(|w| _mm256_slli_epi16::<8>(w));
                    let even = even.map(|w| _mm256_srai_epi16::<8>(w));
                    add_wide_products(&mut dots, even, q_even);
                    in_order(&mut dots);
                    let odd = [load(&w[0]), load(&w[1])].map(|w| _mm256_srai_epi16::<8>(w));
                    add_wide_products(&mut dots, odd, q_odd);
                    in_order(&mut dots);
                }
                let b = Self::block_scales(b);
                for i in 0..4 {
                    let scale = _mm256_set1_ps(group.scales[i]);
                    for half in 0..2 {
                        let dot = _mm256_cvtepi32_ps(dots[i][half]);
                        let scale = _mm256_mul_ps(b[half], scale);
                        acc[i][half] = _mm256_fmadd_ps(dot, scale, acc[i][half]);
                    }
                }
            }
            store_sums(acc, &mut sums, &piece);
        }
    }
}

/// Adds to each token's sums in 16 bits what four inputs give, for eight rows in each half.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products(dots: &mut [[__m256i; 2]; 4], weights: [__m256i; 2], q: &[[i8; 4]; 4]) {
    for i in 0..4 {
        let q = broadcast(&q[i]);
        for half in 0..2 {
            let product = _mm256_maddubs_epi16(weights[half], q);
            dots[i][half] = _mm256_add_epi16(dots[i][half], product);
        }
    }
}

/// Adds to each token's sums what two inputs give, for eight rows in each half.
#[inline]
#[target_feature(enable = "avx2")]
fn add_wide_products(dots: &mut [[__m256i; 2]; 4], weights: [__m256i; 2], q: &[[i16; 2]; 4]) {
    for i in 0..4 {
        let q = broadcast_pair(&q[i]);
        for half in 0..2 {
            let product = _mm256_madd_epi16(weights[half], q);
            dots[i][half] = _mm256_add_epi32(dots[i][half], product);
        }
    }
}

/// Does nothing, but the compiler does not know it and has all sums ready here: it would move
/// products of a later step up and add them in another order, for which there are not enough
/// registers.
#[inline]
#[target_feature(enable = "avx2")]
fn in_order(dots: &mut [[__m256i; 2]; 4]) {
    if cfg!(miri) {
        return;
    }
    let [[a, b], [c, d], [e, f], [g, h]] = dots;
    // SAFETY: (1) called from functions with these target features only; the text is a comment.
    unsafe {
        core::arch::asm!(
            "/* {} {} {} {} {} {} {} {} */",
            inout(ymm_reg) * a,
            inout(ymm_reg) * b,
            inout(ymm_reg) * c,
            inout(ymm_reg) * d,
            inout(ymm_reg) * e,
            inout(ymm_reg) * f,
            inout(ymm_reg) * g,
            inout(ymm_reg) * h,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// `n`, but the compiler does not know it: it would unroll the loop over the parts of a group and
/// unpack all weights first, for which there are not enough registers.
#[inline(always)]
fn not_unrolled(n: usize) -> usize {
    core::hint::black_box(n)
}

/// Two activations in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast_pair(pair: &[i16; 2]) -> __m256i {
    _mm256_set1_epi32(i32::from(pair[0]) & 0xffff | i32::from(pair[1]) << 16)
}

/// What earlier pieces gave to each token, eight rows in each half.
#[inline]
#[target_feature(enable = "avx2")]
fn load_sums(sums: &mut Sums<'_, '_, 1>, piece: &Piece<'_>) -> [[__m256; 2]; 4] {
    let mut acc = [[_mm256_setzero_ps(); 2]; 4];
    if piece.resume {
        for i in 0..4 {
            if let Some(sums) = sums.row(i, 0) {
                for half in 0..2 {
                    // SAFETY: (2) (3) eight f32 from 0 or 8 on are part of sixteen.
                    acc[i][half] = unsafe { _mm256_loadu_ps(sums[8 * half..].as_ptr()) };
                }
            }
        }
    }
    acc
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_sums(acc: [[__m256; 2]; 4], sums: &mut Sums<'_, '_, 1>, piece: &Piece<'_>) {
    for i in 0..4 {
        let Some(sums) = sums.row(i, 0) else { continue };
        for half in 0..2 {
            let mut acc = acc[i][half];
            // SAFETY: (2) (3) eight f32 from 0 or 8 on are part of sixteen; (4) the sums are
            // borrowed exclusively.
            unsafe {
                if let Some(row_scales) = piece.row_scales {
                    acc = _mm256_mul_ps(acc, _mm256_loadu_ps(row_scales[8 * half..].as_ptr()));
                }
                _mm256_storeu_ps(sums[8 * half..].as_mut_ptr(), acc);
            }
        }
    }
}

/// The product of one token.
///
/// `N` block scales are read ahead of the weights (see `with_scratch_for`).
#[inline(always)]
fn one_token<G: Group, const N: usize>(
    lhs: &QuantLhs<'_>,
    t: usize,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    let groups = lhs.groups;
    let range = t * groups..(t + 1) * groups;
    let q = lhs.q[range.start * GROUP..range.end * GROUP].as_chunks().0.as_chunks::<8>().0;
    let (scales, sums) = (&lhs.scales[range.clone()], &lhs.sums[range]);
    let outs = dst.row_mut(t).as_chunks_mut::<ROWS>().0;
    let mut scratch = [[0.0f32; ROWS]; N];
    let ask_ahead = ahead::is_needed();

    let records = records.chunks_exact(tile::record_len(G::ENCODING, groups * GROUP));
    for (record, out) in records.zip(outs) {
        let (head, weights) = record.split_at(tile::weights_offset(groups));
        if ask_ahead {
            ahead::ask(head);
        }
        let (row_scales, block_scales) = head.split_at(tile::ROW_SCALES_BYTES);
        let block_scales = &block_scales.as_chunks::<ROWS>().0[..groups];
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut acc = [_mm256_setzero_ps(); 2];
            for (i, block_scales) in block_scales.chunks(N).enumerate() {
                let first = i * N;
                for ((scale, b), a) in scratch.iter_mut().zip(block_scales).zip(&scales[first..]) {
                    let product = Avx2(()).mul(G::block_scales(b), Avx2(()).splat(*a));
                    Avx2(()).store(product, scale);
                }
                let weights = weights[first * G::BYTES..].chunks_exact(G::BYTES);
                let groups = weights.zip(&q[first..]).zip(&sums[first..]);
                for (((w, q), &sum), scale) in groups.zip(&scratch[..block_scales.len()]) {
                    if ask_ahead {
                        ahead::ask(w);
                    }
                    let dot = G::dot(w, q, sum);
                    let dot = [_mm256_cvtepi32_ps(dot[0]), _mm256_cvtepi32_ps(dot[1])];
                    acc = Avx2(()).fma(dot, Avx2(()).load(scale), acc);
                }
            }
            let s = row_scales.as_chunks().0;
            let s = [_mm256_castsi256_ps(load(&s[0])), _mm256_castsi256_ps(load(&s[1]))];
            Avx2(()).store(Avx2(()).mul(acc, s), out);
        }
    }
}
