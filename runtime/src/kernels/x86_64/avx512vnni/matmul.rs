//! Matrix products over q8, q4 and q3.
#![allow(
    clippy::needless_range_loop,
    reason = "a token's number indexes registers, scales and rows alike, whichever a loop needs"
)]

use core::arch::x86_64::*;

use super::{Avx512, broadcast, load, load_ps, load_scales};
use crate::format::Encoding;
use crate::kernels::generic::Lanes;
use crate::kernels::x86_64::ahead::{self, Ahead, Way};
use crate::kernels::x86_64::panel::{self, PanelGroup, Piece, Sums, Tile};
use crate::kernels::x86_64::transpose_8x8;
use crate::kernels::{Columns, QuantLhs};
use crate::quant::tile::{
    self, GROUP, Q3_GROUP_BYTES, Q4_GROUP_BYTES, Q8_GROUP_BYTES, QuantRecord, ROWS,
};

/// How an encoding's groups are multiplied.
pub(in crate::kernels::x86_64) trait Group {
    const ENCODING: Encoding;
    const BYTES: usize;
    /// What is added to the weights to make them unsigned, as a power of two.
    const OFFSET_SHIFT: u32;
    /// Adds the dot products of a group of `R` records with unsigned weights to `sums`, of the
    /// first `N` of `M` tokens.
    fn dot<const M: usize, const N: usize, const R: usize>(
        weights: [&[u8]; R],
        q: &[[[i8; 4]; M]; 8],
        sums: [[__m512i; N]; R],
    ) -> [[__m512i; N]; R];
    /// The dot products of a group with one token, while weights are asked for.
    fn dot_of_one<const SECOND: bool>(
        weights: &[u8],
        q: &[[[i8; 4]; 1]; 8],
        ahead: &Ahead<SECOND>,
    ) -> __m512i;
    /// The same, for rows of at most 1024 inputs where weights are not asked for.
    #[inline(always)]
    fn dot_of_short_row(weights: &[u8], q: &[[[i8; 4]; 1]; 8]) -> __m512i {
        // SAFETY: (1) called from functions with these target features only.
        let [[dot]] = Self::dot([weights], q, [[unsafe { _mm512_setzero_si512() }]]);
        dot
    }
    fn block_scales(bytes: &[u8; ROWS]) -> __m512;
}

pub(in crate::kernels::x86_64) struct Q8;
pub(in crate::kernels::x86_64) struct Q4;
pub(in crate::kernels::x86_64) struct Q3;

impl Group for Q8 {
    const ENCODING: Encoding = Encoding::Q8;
    const BYTES: usize = Q8_GROUP_BYTES;
    const OFFSET_SHIFT: u32 = 7;
    #[inline(always)]
    fn dot<const M: usize, const N: usize, const R: usize>(
        weights: [&[u8]; R],
        q: &[[[i8; 4]; M]; 8],
        mut sums: [[__m512i; N]; R],
    ) -> [[__m512i; N]; R] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            // Unrolled: the compiler keeps a loop otherwise, 3 % slower for five tokens.
            macro_rules! each {
                ($($j:literal)*) => {$(
                    let w = flipped::<R>(load_each(weights, $j));
                    sums = add_products(w, &q[$j], sums);
                )*};
            }
            each!(0 1 2 3 4 5 6 7);
            sums
        }
    }
    #[inline(always)]
    fn dot_of_one<const SECOND: bool>(
        weights: &[u8],
        q: &[[[i8; 4]; 1]; 8],
        ahead: &Ahead<SECOND>,
    ) -> __m512i {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut dot = [[_mm512_setzero_si512()]];
            for j in 0..8 {
                dot = add_products(flipped(load_each([weights], j)), &q[j], dot);
                ahead.ask_line(j);
            }
            let [[dot]] = dot;
            dot
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
    fn dot<const M: usize, const N: usize, const R: usize>(
        weights: [&[u8]; R],
        q: &[[[i8; 4]; M]; 8],
        mut sums: [[__m512i; N]; R],
    ) -> [[__m512i; N]; R] {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let q: &[[[[i8; 4]; M]; 2]; 4] = q.as_chunks().0.as_array().expect("four pairs");
            sums = add_nibbles::<15, M, N, R>(load_each(weights, 0), &q[0], sums);
            sums = add_nibbles::<15, M, N, R>(load_each(weights, 1), &q[1], sums);
            sums = add_nibbles::<15, M, N, R>(load_each(weights, 2), &q[2], sums);
            add_nibbles::<15, M, N, R>(load_each(weights, 3), &q[3], sums)
        }
    }
    #[inline(always)]
    fn dot_of_one<const SECOND: bool>(
        weights: &[u8],
        q: &[[[i8; 4]; 1]; 8],
        ahead: &Ahead<SECOND>,
    ) -> __m512i {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut dots = [_mm512_setzero_si512(); 2];
            for j in 0..4 {
                let [w] = load_each([weights], j);
                dots = add_nibbles_of_one::<15>(w, &q[2 * j..], dots);
                ahead.ask_line(j);
            }
            _mm512_add_epi32(dots[0], dots[1])
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
    fn dot<const M: usize, const N: usize, const R: usize>(
        weights: [&[u8]; R],
        q: &[[[i8; 4]; M]; 8],
        mut sums: [[__m512i; N]; R],
    ) -> [[__m512i; N]; R] {
        let [q_a, q_b, q_c, q_d] = q.as_chunks().0 else { unreachable!("four pairs") };
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let (a, b, c) = (load_each(weights, 0), load_each(weights, 1), load_each(weights, 2));
            sums = add_nibbles::<7, M, N, R>(a, q_a, sums);
            sums = add_nibbles::<7, M, N, R>(b, q_b, sums);
            sums = add_nibbles::<7, M, N, R>(c, q_c, sums);
            let mut d = a;
            for r in 0..R {
                d[r] = spare_bits([a[r], b[r], c[r]]);
            }
            add_nibbles::<7, M, N, R>(d, q_d, sums)
        }
    }
    #[inline(always)]
    fn dot_of_one<const SECOND: bool>(
        weights: &[u8],
        q: &[[[i8; 4]; 1]; 8],
        ahead: &Ahead<SECOND>,
    ) -> __m512i {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut dots = [_mm512_setzero_si512(); 2];
            let mut tiles = [_mm512_setzero_si512(); 3];
            for j in 0..3 {
                [tiles[j]] = load_each([weights], j);
                dots = add_nibbles_of_one::<7>(tiles[j], &q[2 * j..], dots);
                ahead.ask_line(j);
            }
            dots = add_nibbles_of_one::<7>(spare_bits(tiles), &q[6..], dots);
            _mm512_add_epi32(dots[0], dots[1])
        }
    }
    #[inline(always)]
    fn block_scales(bytes: &[u8; ROWS]) -> __m512 {
        Q4::block_scales(bytes)
    }
}

/// With the sign bits flipped: unsigned.
#[inline]
#[target_feature(enable = "avx512f")]
fn flipped<const R: usize>(mut w: [__m512i; R]) -> [__m512i; R] {
    for r in 0..R {
        w[r] = _mm512_xor_si512(w[r], _mm512_set1_epi8(-128));
    }
    w
}

/// The `j`-th vector of each record's group.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_each<const R: usize>(weights: [&[u8]; R], j: usize) -> [__m512i; R] {
    let mut w = [_mm512_setzero_si512(); R];
    for r in 0..R {
        w[r] = load(&weights[r].as_chunks().0[j]);
    }
    w
}

/// Adds the products of some tiles of nibbles, of whose bits `MASK` counts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_nibbles<const MASK: i8, const M: usize, const N: usize, const R: usize>(
    w: [__m512i; R],
    [q_low, q_high]: &[[[i8; 4]; M]; 2],
    mut sums: [[__m512i; N]; R],
) -> [[__m512i; N]; R] {
    let mask = _mm512_set1_epi8(MASK);
    let (mut low, mut high) = (w, w);
    for r in 0..R {
        low[r] = _mm512_and_si512(w[r], mask);
        high[r] = _mm512_and_si512(_mm512_srli_epi16::<4>(w[r]), mask);
    }
    sums = add_products(low, q_low, sums);
    add_products(high, q_high, sums)
}

/// Adds the products of a tile of nibbles with one token, those of low and of high ones by themselves: two
/// short chains of instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_nibbles_of_one<const MASK: i8>(
    w: __m512i,
    q: &[[[i8; 4]; 1]],
    [low, high]: [__m512i; 2],
) -> [__m512i; 2] {
    let mask = _mm512_set1_epi8(MASK);
    let w_high = _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask);
    [
        _mm512_dpbusd_epi32(low, _mm512_and_si512(w, mask), broadcast(&q[0][0])),
        _mm512_dpbusd_epi32(high, w_high, broadcast(&q[1][0])),
    ]
}

/// Adds the products of four inputs: each activation is loaded once for all records.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_products<const M: usize, const N: usize, const R: usize>(
    w: [__m512i; R],
    q: &[[i8; 4]; M],
    mut sums: [[__m512i; N]; R],
) -> [[__m512i; N]; R] {
    for i in 0..N {
        let q = broadcast(&q[i]);
        for r in 0..R {
            sums[r][i] = _mm512_dpbusd_epi32(sums[r][i], w[r], q);
        }
    }
    in_order(&mut sums);
    sums
}

/// Does nothing, but the compiler does not know it: it would finish one sum after the other, each a
/// chain of dependent instructions, where side by side they keep the CPU busy.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_order<const N: usize, const R: usize>(sums: &mut [[__m512i; N]; R]) {
    if cfg!(miri) {
        return;
    }
    for i in 0..N {
        for r in 0..R {
            let sum = &mut sums[r][i];
            // SAFETY: (1) called from functions with these target features only; the text is a
            // comment.
            unsafe {
                core::arch::asm!(
                    "/* {} */",
                    inout(zmm_reg) * sum,
                    options(nomem, nostack, preserves_flags)
                );
            }
        }
    }
}

/// The fourth tile of a group of q3, which is in the last bits of the others' nibbles. Its own last
/// bits are anything.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(in crate::kernels::x86_64) fn spare_bits([a, b, c]: [__m512i; 3]) -> __m512i {
    // The bits of the second operand where the first one is set, else those of the third.
    const CHOOSE: i32 = 0xca;
    let (a, b) = (_mm512_srli_epi16::<3>(a), _mm512_srli_epi16::<2>(b));
    let c = _mm512_srli_epi16::<1>(c);
    let bc = _mm512_ternarylogic_epi32::<CHOOSE>(_mm512_set1_epi8(0x22), b, c);
    _mm512_ternarylogic_epi32::<CHOOSE>(_mm512_set1_epi8(0x11), a, bc)
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(in crate::kernels::x86_64) fn matmul_q8(
    lhs: &QuantLhs<'_>,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    matmul::<Q8>(lhs, records, dst);
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(in crate::kernels::x86_64) fn matmul_q4(
    lhs: &QuantLhs<'_>,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    matmul::<Q4>(lhs, records, dst);
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(in crate::kernels::x86_64) fn matmul_q3(
    lhs: &QuantLhs<'_>,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    matmul::<Q3>(lhs, records, dst);
}

#[inline(always)]
fn matmul<G: Group>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    // SAFETY: (1) called from functions with these target features only.
    unsafe {
        match lhs.m {
            0 => {}
            1 => match ahead::way() {
                Way::Never => with_scratch_for!(lhs.groups, one_token::<G>(lhs, records, dst)),
                Way::First => one_token_asking::<G, false>(lhs, records, dst),
                Way::Second => one_token_asking::<G, true>(lhs, records, dst),
            },
            2..=8 => few_tokens::<G>(lhs, records, dst),
            _ => many_tokens::<G>(lhs, records, dst),
        }
    }
}

/// One record after the other: two streams from memory are slower than one. By itself, as what
/// follows, since its panel lies on the stack.
#[inline(never)]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn few_tokens<G: Group>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    if lhs.m <= 4 {
        panel::matmul::<4, 1, 1, 48, G>(lhs, records, dst);
    } else {
        panel::matmul::<8, 1, 1, 48, G>(lhs, records, dst);
    }
}

/// Six tokens and two records at a time, so that an activation is loaded for two products. On Zen 5,
/// which loads two vectors and multiplies two in a cycle, loads are the limit where each is used
/// once: 350 to 380 of 430 G multiply-adds a second.
#[inline(never)]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn many_tokens<G: Group>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    panel::matmul::<6, 2, 6, 48, G>(lhs, records, dst);
}

impl<const M: usize, const R: usize, G: Group> Tile<M, R> for G {
    const ENCODING: Encoding = G::ENCODING;
    const GROUP_BYTES: usize = G::BYTES;
    type Group = PanelGroup<M>;
    const ZERO: PanelGroup<M> = PanelGroup::ZERO;
    type Scratch = ();
    const SCRATCH: () = ();

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut PanelGroup<M>) {
        const { assert!(M <= 8) };
        out.set_scales(lhs, t, group);
        // SAFETY: (1) called from functions with these target features only; (2) (3) (4) masked
        // stores go to `M` times 32 bits, borrowed exclusively.
        unsafe {
            let mut rows = [_mm256_setzero_si256(); 8];
            for (row, q) in rows[..M].iter_mut().zip(panel::rows(lhs, t, group)) {
                *row = _mm256_loadu_si256(q.as_ptr().cast());
            }
            let all = 0xff >> (8 - M);
            let ones = _mm256_set1_epi8(1);
            let mut sums = _mm256_setzero_si256();
            for (column, q) in transpose_8x8(rows).into_iter().zip(&mut out.q) {
                _mm256_mask_storeu_epi32(q.as_mut_ptr().cast(), all, column);
                sums = _mm256_dpbusd_epi32(sums, ones, column);
            }
            let shift = _mm_cvtsi32_si128(G::OFFSET_SHIFT as i32);
            let offsets = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_sll_epi32(sums, shift));
            _mm256_mask_storeu_epi32(out.offsets.as_mut_ptr(), all, offsets);
        }
    }

    #[inline(always)]
    fn add<const N: usize>(
        panel: &[PanelGroup<M>],
        pieces: [Piece<'_>; R],
        sums: Sums<'_, '_, R>,
        (): &mut (),
    ) {
        add::<M, N, R, G>(panel, pieces, sums);
    }
}

/// Of a panel of `M` tokens the first `N`.
#[inline(always)]
fn add<const M: usize, const N: usize, const R: usize, G: Group>(
    panel: &[PanelGroup<M>],
    pieces: [Piece<'_>; R],
    mut sums: Sums<'_, '_, R>,
) {
    // SAFETY: (1) called from functions with these target features only; (2) (3) (4) `sums` are
    // sixteen f32 each, borrowed exclusively.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); N]; R];
        for r in 0..R {
            for i in 0..N {
                if let (Some(sums), true) = (sums.row(i, r), pieces[r].resume) {
                    acc[r][i] = _mm512_loadu_ps(sums.as_ptr());
                }
            }
        }
        for (g, group) in panel.iter().enumerate() {
            let mut dots = [[_mm512_setzero_si512(); N]; R];
            for i in 0..N {
                let offset = _mm512_set1_epi32(group.offsets[i]);
                for r in 0..R {
                    dots[r][i] = offset;
                }
            }
            let mut weights = [&[][..]; R];
            let mut b = [_mm512_setzero_ps(); R];
            for r in 0..R {
                weights[r] = &pieces[r].weights[g * G::BYTES..][..G::BYTES];
                pieces[r].ask_next(g, G::BYTES);
                b[r] = G::block_scales(&pieces[r].block_scales[g]);
            }
            let dots = G::dot(weights, &group.q, dots);
            for i in 0..N {
                let a = _mm512_set1_ps(group.scales[i]);
                for r in 0..R {
                    let dot = _mm512_cvtepi32_ps(dots[r][i]);
                    acc[r][i] = _mm512_fmadd_ps(dot, _mm512_mul_ps(b[r], a), acc[r][i]);
                }
            }
        }
        for r in 0..R {
            if let Some(row_scales) = pieces[r].row_scales {
                let row_scales = _mm512_loadu_ps(row_scales.as_ptr());
                for i in 0..N {
                    acc[r][i] = _mm512_mul_ps(acc[r][i], row_scales);
                }
            }
            for i in 0..N {
                if let Some(sums) = sums.row(i, r) {
                    _mm512_storeu_ps(sums.as_mut_ptr(), acc[r][i]);
                }
            }
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
            let mut acc = _mm512_setzero_ps();
            for (i, block_scales) in block_scales.chunks(N).enumerate() {
                let first = i * N;
                for ((scale, b), a) in scratch.iter_mut().zip(block_scales).zip(&scales[first..]) {
                    Avx512(()).store(group_scale::<G>(b, *a), scale);
                }
                let weights = weights[first * G::BYTES..].chunks_exact(G::BYTES);
                let groups = weights.zip(&q[first..]).zip(&sums[first..]);
                for (((w, q), sum), scale) in groups.zip(&scratch[..block_scales.len()]) {
                    let dot = if N <= 32 {
                        G::dot_of_short_row(w, q)
                    } else {
                        let [[dot]] = G::dot([w], q, [[_mm512_setzero_si512()]]);
                        dot
                    };
                    acc = add_group::<G>(acc, dot, *sum, Avx512(()).load(scale));
                }
            }
            Avx512(()).store(_mm512_mul_ps(acc, load_ps(row_scales)), out);
        }
    }
}

/// The product of one token with weights that are asked for, so that it does not matter to the
/// hardware in which order they are read.
#[inline(never)]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
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
        let mut acc = _mm512_setzero_ps();
        for ((((w, b), q), sum), a) in weights.zip(block_scales).zip(q).zip(sums).zip(scales) {
            let dot = G::dot_of_one(w, q, &ahead);
            ahead.end_group(G::BYTES);
            acc = add_group::<G>(acc, dot, *sum, group_scale::<G>(b, *a));
        }
        Avx512(()).store(_mm512_mul_ps(acc, load_ps(row_scales)), out);
    }
}

/// The first token's, by groups and columns of four.
#[inline(always)]
fn activations<'a>(lhs: &QuantLhs<'a>) -> &'a [[[[i8; 4]; 1]; 8]] {
    lhs.q[..lhs.groups * GROUP].as_chunks().0.as_chunks().0.as_chunks().0
}

#[inline]
#[target_feature(enable = "avx512f")]
fn group_scale<G: Group>(b: &[u8; ROWS], a: f32) -> __m512 {
    _mm512_mul_ps(G::block_scales(b), _mm512_set1_ps(a))
}

/// Adds a group's dot products with unsigned weights to the sums of a record.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_group<G: Group>(acc: __m512, dot: __m512i, sum: i32, scale: __m512) -> __m512 {
    let offset = _mm512_set1_epi32(sum << G::OFFSET_SHIFT);
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(dot, offset)), scale, acc)
}
