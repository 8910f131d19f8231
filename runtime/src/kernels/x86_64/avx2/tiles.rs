//! Matrix products of several tokens, packed into panels.
#![allow(
    clippy::needless_range_loop,
    reason = "a token's number indexes registers, scales and rows alike, whichever a loop needs"
)]

use core::arch::x86_64::*;

use super::matmul::{Few, Group, Nibbles, Q8};
use super::{broadcast, load};
use crate::format::Encoding;
use crate::kernels::x86_64::panel::{self, PanelGroup, Piece, Sums, Tile};
use crate::kernels::x86_64::transpose_8x8;
use crate::kernels::{Columns, QuantLhs};
use crate::quant::tile::Q8_GROUP_BYTES;

/// Tokens that use weights which are unpacked once: their sums take twelve of the sixteen registers.
pub(super) const SIX: usize = 6;

/// By itself, as what follows, since its panel lies on the stack.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
pub(super) fn few_tokens<G: Tile<4>>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    panel::matmul::<4, 1, 1, 32, G>(lhs, records, dst);
}

/// Fewer than `many::WORTH_IT`.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
pub(super) fn some_tokens<G: Tile<SIX>>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    panel::matmul::<SIX, 1, 6, 32, G>(lhs, records, dst);
}

/// A group of `M` tokens, those behind the last being zero.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn rows<const M: usize>(lhs: &QuantLhs<'_>, t: usize, group: usize) -> [__m256i; 8] {
    let mut rows = [_mm256_setzero_si256(); 8];
    for (row, q) in rows[..M].iter_mut().zip(panel::rows(lhs, t, group)) {
        // SAFETY: (2) (3) a reference to 32 bytes, any alignment will do.
        *row = unsafe { _mm256_loadu_si256(q.as_ptr().cast()) };
    }
    rows
}

/// The first `M` of eight 32-bit numbers, four or six.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_tokens<T: bytemuck::NoUninit + bytemuck::AnyBitPattern, const M: usize>(
    column: __m256i,
    to: &mut [T; M],
) {
    const { assert!(size_of::<T>() == 4 && (M == 4 || M == 6)) };
    let to: &mut [u8] = bytemuck::cast_slice_mut(to);
    let (four, two) = to.split_at_mut(16);
    // SAFETY: (2) (3) (4) exclusive references to sixteen bytes and, if there are any, to eight.
    unsafe {
        _mm_storeu_si128(four.as_mut_ptr().cast(), _mm256_castsi256_si128(column));
        if M == 6 {
            _mm_storel_epi64(two.as_mut_ptr().cast(), _mm256_extracti128_si256::<1>(column));
        }
    }
}

impl<const BITS: u32, const M: usize> Tile<M> for Few<BITS>
where
    Self: Nibbles,
{
    const ENCODING: Encoding = <Self as Nibbles>::ENCODING;
    const GROUP_BYTES: usize = 64 * Self::TILES;
    /// `offsets` are pairs of 16-bit numbers, one for each half of a lane: the sums of the
    /// activations that this half is multiplied with, times −8 (−4 in q3). With them a sum of a whole group
    /// is that of signed weights and stays inside ±16256.
    type Group = PanelGroup<M>;
    const ZERO: PanelGroup<M> = PanelGroup::ZERO;
    type Scratch = ();
    const SCRATCH: () = ();

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut PanelGroup<M>) {
        panel::set_scales(lhs, t, group, &mut out.scales);
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let ones = _mm256_set1_epi8(1);
            let mut sums = _mm256_setzero_si256();
            let columns = transpose_8x8(rows::<M>(lhs, t, group));
            for (column, q) in columns.into_iter().zip(&mut out.q) {
                store_tokens(column, q);
                sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(ones, column));
            }
            let sums = _mm256_sll_epi16(sums, _mm_cvtsi32_si128(Self::OFFSET_SHIFT));
            store_tokens(_mm256_sub_epi16(_mm256_setzero_si256(), sums), &mut out.offsets);
        }
    }

    #[inline(always)]
    fn add<const N: usize>(
        panel: &[PanelGroup<M>],
        [piece]: [Piece<'_>; 1],
        sums: Sums<'_, '_, 1>,
        (): &mut (),
    ) {
        add_few::<Self, M, N>(panel, piece, sums);
    }
}

/// Adds the products of the first `N` of a panel's `M` tokens.
#[inline(always)]
fn add_few<T: Nibbles + Group, const M: usize, const N: usize>(
    panel: &[PanelGroup<M>],
    piece: Piece<'_>,
    mut sums: Sums<'_, '_, 1>,
) {
    // SAFETY: (1) called from functions with these target features only.
    unsafe {
        let mask = _mm256_set1_epi8(T::MASK);
        let parts = not_unrolled(T::TILES);
        let mut acc = load_sums::<N>(&mut sums, &piece);
        let weights = piece.weights.chunks_exact(64 * T::TILES);
        for (g, ((group, b), w)) in panel.iter().zip(piece.block_scales).zip(weights).enumerate() {
            piece.ask_next(g, 64 * T::TILES);
            let mut dots = begin::<N>(&group.offsets);
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
            if let Some(w) = T::fourth(w) {
                let low = [_mm256_and_si256(w[0], mask), _mm256_and_si256(w[1], mask)];
                add_products(&mut dots, low, &q[3][0]);
                let high = [_mm256_srli_epi16::<4>(w[0]), _mm256_srli_epi16::<4>(w[1])];
                let high = [_mm256_and_si256(high[0], mask), _mm256_and_si256(high[1], mask)];
                add_products(&mut dots, high, &q[3][1]);
            }
            add_scaled(&mut acc, widened(dots), <T as Group>::block_scales(b), &group.scales);
        }
        store_sums(acc, &mut sums, &piece);
    }
}

/// The first and the third of each four bytes in 16 bits, then the others.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn even_and_odd(x: __m256i) -> [__m256i; 2] {
    [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)), _mm256_srai_epi16::<8>(x)]
}

/// A group of q8: activations in 16 bits, since products of bytes would not fit these.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct WideGroup<const M: usize> {
    /// Of four inputs of each token, what the pairs of bytes are multiplied with and what their upper
    /// bytes are (see [`WideGroup::of_pairs`]).
    q: [[[[i16; 2]; M]; 2]; 8],
    scales: [f32; M],
    /// What sums begin at.
    offsets: [i32; M],
}

impl<const M: usize> WideGroup<M> {
    /// Weights are taken as they lie, two in 16 bits: with the sign bit of the lower one flipped they
    /// are `pair = 256·w1 + w0 + 128`, and
    ///
    /// `w0·q0 + w1·q1 = pair·q0 + w1·(q1 − 256·q0) − 128·q0`
    ///
    /// takes one shift, for `w1`, where widening both takes three. Of `q` within ±127 the second factor
    /// fits 16 bits. Returns `q0` and `q1 − 256·q0` of each pair.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn of_pairs(q: __m256i) -> [__m256i; 2] {
        let [first, second] = even_and_odd(q);
        [first, _mm256_sub_epi16(second, _mm256_slli_epi16::<8>(q))]
    }
}

impl<const M: usize> Tile<M> for Q8 {
    const ENCODING: Encoding = Encoding::Q8;
    const GROUP_BYTES: usize = Q8_GROUP_BYTES;
    type Group = WideGroup<M>;
    const ZERO: WideGroup<M> =
        WideGroup { q: [[[[0; 2]; M]; 2]; 8], scales: [0.0; M], offsets: [0; M] };
    type Scratch = ();
    const SCRATCH: () = ();

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut WideGroup<M>) {
        panel::set_scales(lhs, t, group, &mut out.scales);
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let minus_128 = _mm256_set1_epi16(-128);
            let mut offsets = _mm256_setzero_si256();
            let columns = transpose_8x8(rows::<M>(lhs, t, group));
            for (column, [of_pairs, of_upper]) in columns.into_iter().zip(&mut out.q) {
                let [first, rest] = WideGroup::<M>::of_pairs(column);
                store_tokens(first, of_pairs);
                store_tokens(rest, of_upper);
                offsets = _mm256_add_epi32(offsets, _mm256_madd_epi16(first, minus_128));
            }
            store_tokens(offsets, &mut out.offsets);
        }
    }

    #[inline(always)]
    fn add<const N: usize>(
        panel: &[WideGroup<M>],
        [piece]: [Piece<'_>; 1],
        sums: Sums<'_, '_, 1>,
        (): &mut (),
    ) {
        add_q8::<M, N>(panel, piece, sums);
    }
}

/// Adds the products of the first `N` of a panel's `M` tokens.
#[inline(always)]
fn add_q8<const M: usize, const N: usize>(
    panel: &[WideGroup<M>],
    piece: Piece<'_>,
    mut sums: Sums<'_, '_, 1>,
) {
    // SAFETY: (1) called from functions with these target features only.
    unsafe {
        let sign_of_lower = _mm256_set1_epi16(0x80);
        let mut acc = load_sums::<N>(&mut sums, &piece);
        let weights = piece.weights.as_chunks::<Q8_GROUP_BYTES>().0;
        for (g, ((group, b), w)) in panel.iter().zip(piece.block_scales).zip(weights).enumerate() {
            piece.ask_next(g, Q8_GROUP_BYTES);
            let mut dots = begin::<N>(&group.offsets);
            let w = w.as_chunks().0.as_chunks::<2>().0;
            for (w, [of_pairs, of_upper]) in w.iter().zip(&group.q) {
                let pairs = [load(&w[0]), load(&w[1])].map(|w| _mm256_xor_si256(w, sign_of_lower));
                add_wide_products(&mut dots, pairs, of_pairs);
                in_order(&mut dots);
                let upper = [load(&w[0]), load(&w[1])].map(|w| _mm256_srai_epi16::<8>(w));
                add_wide_products(&mut dots, upper, of_upper);
                in_order(&mut dots);
            }
            add_scaled(&mut acc, dots, Q8::block_scales(b), &group.scales);
        }
        store_sums(acc, &mut sums, &piece);
    }
}

/// What each token's sums begin at, for eight rows in each half.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn begin<const N: usize>(offsets: &[i32]) -> [[__m256i; 2]; N] {
    let mut dots = [[_mm256_setzero_si256(); 2]; N];
    for i in 0..N {
        dots[i] = [_mm256_set1_epi32(offsets[i]); 2];
    }
    dots
}

/// Adds the products of a group, with its block scales and each token's scale.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_scaled<const N: usize>(
    acc: &mut [[__m256; 2]; N],
    dots: [[__m256i; 2]; N],
    block_scales: [__m256; 2],
    scales: &[f32],
) {
    for i in 0..N {
        let scale = _mm256_set1_ps(scales[i]);
        for half in 0..2 {
            let dot = _mm256_cvtepi32_ps(dots[i][half]);
            let scale = _mm256_mul_ps(block_scales[half], scale);
            acc[i][half] = _mm256_fmadd_ps(dot, scale, acc[i][half]);
        }
    }
}

/// Adds to each token's sums in 16 bits what four inputs give, for eight rows in each half.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_products<const N: usize>(
    dots: &mut [[__m256i; 2]; N],
    weights: [__m256i; 2],
    q: &[[i8; 4]],
) {
    for i in 0..N {
        let q = broadcast(&q[i]);
        for half in 0..2 {
            let product = _mm256_maddubs_epi16(weights[half], q);
            dots[i][half] = _mm256_add_epi16(dots[i][half], product);
        }
    }
}

/// Pairs of sums in 16 bits as one in 32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn widened<const N: usize>(mut dots: [[__m256i; 2]; N]) -> [[__m256i; 2]; N] {
    let ones = _mm256_set1_epi16(1);
    for dot in dots.as_flattened_mut() {
        *dot = _mm256_madd_epi16(*dot, ones);
    }
    dots
}

/// Adds to each token's sums what two inputs give, for eight rows in each half.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_wide_products<const N: usize>(
    dots: &mut [[__m256i; 2]; N],
    weights: [__m256i; 2],
    q: &[[i16; 2]],
) {
    for i in 0..N {
        let q = broadcast_pair(&q[i]);
        for half in 0..2 {
            let product = _mm256_madd_epi16(weights[half], q);
            dots[i][half] = _mm256_add_epi32(dots[i][half], product);
        }
    }
}

/// Does nothing, but the compiler does not know it and has each sum ready here: it would move
/// products of a later step up and add them in another order, for which there are not enough
/// registers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn in_order<const N: usize>(dots: &mut [[__m256i; 2]; N]) {
    if cfg!(miri) {
        return;
    }
    for dot in dots.as_flattened_mut() {
        // SAFETY: (1) called from functions with these target features only; the text is a comment.
        unsafe {
            core::arch::asm!(
                "/* {} */",
                inout(ymm_reg) * dot,
                options(nomem, nostack, preserves_flags),
            );
        }
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
pub(super) fn load_sums<const N: usize>(
    sums: &mut Sums<'_, '_, 1>,
    piece: &Piece<'_>,
) -> [[__m256; 2]; N] {
    let mut acc = [[_mm256_setzero_ps(); 2]; N];
    if piece.resume {
        for i in 0..N {
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
pub(super) fn store_sums<const N: usize>(
    acc: [[__m256; 2]; N],
    sums: &mut Sums<'_, '_, 1>,
    piece: &Piece<'_>,
) {
    for i in 0..N {
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
