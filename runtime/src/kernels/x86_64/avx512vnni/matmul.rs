//! Matrix products over q8, q4 and q3.
#![allow(
    clippy::needless_range_loop,
    reason = "a token's number indexes registers, scales and rows alike, whichever a loop needs"
)]

use core::arch::x86_64::*;

use super::{broadcast, load, load_ps, load_scales};
use crate::format::Encoding;
use crate::kernels::x86_64::ahead;
use crate::kernels::x86_64::panel::{self, PanelGroup, Piece, Sums, Tile};
use crate::kernels::x86_64::transpose_8x8;
use crate::kernels::{Columns, QuantLhs};
use crate::quant::tile::{self, GROUP, Q3_GROUP_BYTES, Q4_GROUP_BYTES, Q8_GROUP_BYTES, ROWS};

/// How an encoding's groups are multiplied.
trait Group {
    const ENCODING: Encoding;
    const BYTES: usize;
    /// What is added to the weights to make them unsigned, as a power of two.
    const OFFSET_SHIFT: u32;
    /// Adds the dot products of a group with unsigned weights to `sums`, of `M` tokens.
    fn dot<const M: usize>(
        weights: &[u8],
        q: &[[[i8; 4]; M]; 8],
        sums: [__m512i; M],
    ) -> [__m512i; M];
    /// The dot products of a group with one token, for rows of at most 1024 inputs.
    #[inline(always)]
    fn dot_of_short_row(weights: &[u8], q: &[[[i8; 4]; 1]; 8]) -> __m512i {
        // SAFETY: (1) called from functions with these target features only.
        let [dot] = Self::dot(weights, q, [unsafe { _mm512_setzero_si512() }]);
        dot
    }
    fn block_scales(bytes: &[u8; ROWS]) -> __m512;
}

struct Q8;
struct Q4;
struct Q3;

impl Group for Q8 {
    const ENCODING: Encoding = Encoding::Q8;
    const BYTES: usize = Q8_GROUP_BYTES;
    const OFFSET_SHIFT: u32 = 7;
    #[inline(always)]
    fn dot<const M: usize>(
        weights: &[u8],
        q: &[[[i8; 4]; M]; 8],
        mut sums: [__m512i; M],
    ) -> [__m512i; M] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let sign = _mm512_set1_epi8(-128);
            for (w, q) in weights.as_chunks().0.iter().zip(q) {
                let w = _mm512_xor_si512(load(w), sign);
                for i in 0..M {
                    sums[i] = _mm512_dpbusd_epi32(sums[i], w, broadcast(&q[i]));
                }
            }
            sums
        }
    }
    /// In halves: with 256-bit loads Zen 4 reads 768-column matrices at 35 GB/s from memory, with
    /// 512-bit ones at 27 to 33. (Longer rows, and q4, are faster with the latter.)
    #[inline(always)]
    fn dot_of_short_row(weights: &[u8], q: &[[[i8; 4]; 1]; 8]) -> __m512i {
        // SAFETY: (1) called from functions with these target features only; (2) (3) each half of
        // 64 bytes is 32 bytes, any alignment will do.
        unsafe {
            let sign = _mm256_set1_epi8(-128);
            let mut halves = [_mm256_setzero_si256(); 2];
            for (w, [q]) in weights.as_chunks::<64>().0.iter().zip(q) {
                let q = _mm512_castsi512_si256(broadcast(q));
                for half in 0..2 {
                    let w = _mm256_loadu_si256(w[32 * half..].as_ptr().cast());
                    halves[half] = _mm256_dpbusd_epi32(halves[half], _mm256_xor_si256(w, sign), q);
                }
            }
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(halves[0]), halves[1])
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
    fn dot<const M: usize>(
        weights: &[u8],
        q: &[[[i8; 4]; M]; 8],
        mut sums: [__m512i; M],
    ) -> [__m512i; M] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            for (w, q) in weights.as_chunks().0.iter().zip(q.as_chunks().0) {
                sums = add_nibbles::<15, M>(load(w), q, sums);
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

impl Group for Q3 {
    const ENCODING: Encoding = Encoding::Q3;
    const BYTES: usize = Q3_GROUP_BYTES;
    const OFFSET_SHIFT: u32 = 2;
    #[inline(always)]
    fn dot<const M: usize>(
        weights: &[u8],
        q: &[[[i8; 4]; M]; 8],
        mut sums: [__m512i; M],
    ) -> [__m512i; M] {
        let w = &weights.as_chunks().0[..3];
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let w = [load(&w[0]), load(&w[1]), load(&w[2])];
            for (w, q) in [w[0], w[1], w[2], spare_bits(w)].into_iter().zip(q.as_chunks().0) {
                sums = add_nibbles::<7, M>(w, q, sums);
            }
            sums
        }
    }
    #[inline(always)]
    fn block_scales(bytes: &[u8; ROWS]) -> __m512 {
        Q4::block_scales(bytes)
    }
}

/// Adds the products of a tile of nibbles, of whose bits `MASK` counts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_nibbles<const MASK: i8, const M: usize>(
    w: __m512i,
    [q_low, q_high]: &[[[i8; 4]; M]; 2],
    mut sums: [__m512i; M],
) -> [__m512i; M] {
    let mask = _mm512_set1_epi8(MASK);
    let low = _mm512_and_si512(w, mask);
    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask);
    for i in 0..M {
        sums[i] = _mm512_dpbusd_epi32(sums[i], low, broadcast(&q_low[i]));
    }
    for i in 0..M {
        sums[i] = _mm512_dpbusd_epi32(sums[i], high, broadcast(&q_high[i]));
    }
    sums
}

/// The fourth tile of a group of q3, which is in the last bits of the others' nibbles. Its own last
/// bits are anything.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn spare_bits([a, b, c]: [__m512i; 3]) -> __m512i {
    // The bits of the second operand where the first one is set, else those of the third.
    const CHOOSE: i32 = 0xca;
    let (a, b) = (_mm512_srli_epi16::<3>(a), _mm512_srli_epi16::<2>(b));
    let c = _mm512_srli_epi16::<1>(c);
    let bc = _mm512_ternarylogic_epi32::<CHOOSE>(_mm512_set1_epi8(0x22), b, c);
    _mm512_ternarylogic_epi32::<CHOOSE>(_mm512_set1_epi8(0x11), a, bc)
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn matmul_q8(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q8>(lhs, records, dst);
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q4>(lhs, records, dst);
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn matmul_q3(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q3>(lhs, records, dst);
}

/// Eight tokens at a time, then four, and a single one by itself.
#[inline(always)]
fn matmul<G: Group>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    let (whole, rest) = (lhs.m - lhs.m % 8, lhs.m % 8);
    let eights = if rest > 4 { lhs.m } else { whole };
    let fours = if (2..=4).contains(&rest) { lhs.m } else { eights };
    if eights > 0 {
        panel::matmul::<8, G>(lhs, 0..eights, records, dst);
    }
    if fours > eights {
        panel::matmul::<4, G>(lhs, eights..fours, records, dst);
    }
    if lhs.m > fours {
        with_scratch_for!(lhs.groups, one_token::<G>(lhs, fours, records, dst));
    }
}

impl<const M: usize, G: Group> Tile<M> for G {
    const ENCODING: Encoding = G::ENCODING;
    const GROUP_BYTES: usize = G::BYTES;
    type Group = PanelGroup<M>;
    const ZERO: PanelGroup<M> = PanelGroup::ZERO;

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut PanelGroup<M>) {
        out.set_scales(lhs, t, group);
        if M == 8 {
            // SAFETY: (1) called from functions with these target features only.
            unsafe {
                let mut rows = [_mm256_setzero_si256(); 8];
                for (row, q) in rows.iter_mut().zip(panel::rows(lhs, t, group)) {
                    *row = _mm256_loadu_si256(q.as_ptr().cast());
                }
                let ones = _mm256_set1_epi8(1);
                let mut sums = _mm256_setzero_si256();
                let columns = transpose_8x8(rows);
                for (column, q) in columns.into_iter().zip(&mut out.q) {
                    _mm256_storeu_si256(q.as_mut_ptr().cast(), column);
                    sums = _mm256_dpbusd_epi32(sums, ones, column);
                }
                let shift = _mm_cvtsi32_si128(G::OFFSET_SHIFT as i32);
                let sums = _mm256_sll_epi32(sums, shift);
                let offsets = _mm256_sub_epi32(_mm256_setzero_si256(), sums);
                _mm256_storeu_si256(out.offsets.as_mut_ptr().cast(), offsets);
            }
            return;
        }
        out.set_q(lhs, t, group);
        for (i, offset) in out.offsets.iter_mut().enumerate() {
            let sum = if t + i < lhs.m { lhs.sums[(t + i) * lhs.groups + group] } else { 0 };
            *offset = -(sum << G::OFFSET_SHIFT);
        }
    }

    #[inline(always)]
    fn add(panel: &[PanelGroup<M>], piece: Piece<'_>, mut sums: Sums<'_, '_>) {
        // SAFETY: (1) called from functions with these target features only; (2) (3) (4) `sums`
        // are sixteen f32 each, borrowed exclusively.
        unsafe {
            let mut acc = [_mm512_setzero_ps(); M];
            if piece.resume {
                for i in 0..M {
                    if let Some(sums) = sums.row(i) {
                        acc[i] = _mm512_loadu_ps(sums.as_ptr());
                    }
                }
            }
            let weights = piece.weights.chunks_exact(G::BYTES);
            for ((group, b), w) in panel.iter().zip(piece.block_scales).zip(weights) {
                let mut dots = [_mm512_setzero_si512(); M];
                for i in 0..M {
                    dots[i] = _mm512_set1_epi32(group.offsets[i]);
                }
                let dots = G::dot(w, &group.q, dots);
                let b = G::block_scales(b);
                for i in 0..M {
                    let scale = _mm512_mul_ps(b, _mm512_set1_ps(group.scales[i]));
                    acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[i]), scale, acc[i]);
                }
            }
            if let Some(row_scales) = piece.row_scales {
                let row_scales = _mm512_loadu_ps(row_scales.as_ptr());
                for i in 0..M {
                    acc[i] = _mm512_mul_ps(acc[i], row_scales);
                }
            }
            for i in 0..M {
                if let Some(sums) = sums.row(i) {
                    _mm512_storeu_ps(sums.as_mut_ptr(), acc[i]);
                }
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
    let q = lhs.q[range.start * GROUP..range.end * GROUP].as_chunks().0;
    let q: &[[[[i8; 4]; 1]; 8]] = q.as_chunks().0.as_chunks().0;
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
        // SAFETY: (1) called from functions with these target features only; (2) (3) (4) stores go
        // to sixteen f32 that are borrowed exclusively.
        unsafe {
            let mut acc = _mm512_setzero_ps();
            for (i, block_scales) in block_scales.chunks(N).enumerate() {
                let first = i * N;
                for ((scale, b), a) in scratch.iter_mut().zip(block_scales).zip(&scales[first..]) {
                    let product = _mm512_mul_ps(G::block_scales(b), _mm512_set1_ps(*a));
                    _mm512_storeu_ps(scale.as_mut_ptr(), product);
                }
                let weights = weights[first * G::BYTES..].chunks_exact(G::BYTES);
                let groups = weights.zip(&q[first..]).zip(&sums[first..]);
                for (((w, q), sum), scale) in groups.zip(&scratch[..block_scales.len()]) {
                    if ask_ahead {
                        ahead::ask(w);
                    }
                    let dot = if N <= 32 {
                        G::dot_of_short_row(w, q)
                    } else {
                        let [dot] = G::dot(w, q, [_mm512_setzero_si512()]);
                        dot
                    };
                    let offset = _mm512_set1_epi32(sum << G::OFFSET_SHIFT);
                    let dot = _mm512_cvtepi32_ps(_mm512_sub_epi32(dot, offset));
                    acc = _mm512_fmadd_ps(dot, _mm512_loadu_ps(scale.as_ptr()), acc);
                }
            }
            let row_scales = load_ps(row_scales.first_chunk().expect("sixteen f32"));
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(acc, row_scales));
        }
    }
}
