//! `smmla`: two rows by two tokens of eight inputs, for four tokens and more.
//!
//! Its operand is eight inputs of two rows: those of q4 lie in the two nibbles of the same bytes,
//! those of q8 in two tiles, and zipping 32-bit lanes brings them together. That costs as much as
//! `smmla` saves where fewer than four tokens share it: those are the business of `sdot`.

use core::arch::aarch64::*;

use super::asm::smmla;
use super::dot::{self, Group, Q4, Q8, Record, Tokens};
use super::dotprod::{self, Dotprod};
use crate::isa::Isa;
use crate::kernels::{Columns, QuantLhs, Table};
use crate::quant::tile::{self, GROUP, ROWS};

pub(in crate::kernels) static TABLE: Table =
    Table { isa: Isa::I8mm, matmul_q8, matmul_q4, ..dotprod::TABLE };

/// Eight inputs of the first two of four rows, and of the last two, from two registers of four.
#[inline(always)]
fn zip(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: (1) NEON, by the build's target.
    unsafe {
        let (a, b) = (vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
        [vreinterpretq_s8_s32(vzip1q_s32(a, b)), vreinterpretq_s8_s32(vzip2q_s32(a, b))]
    }
}

/// The first eight of sixteen activations of two tokens, and the last eight.
#[inline(always)]
fn eights(a: &[i8; 16], b: &[i8; 16]) -> [int8x16_t; 2] {
    let (a, b) = (dot::load(bytemuck::cast_ref(a)), dot::load(bytemuck::cast_ref(b)));
    // SAFETY: (1) NEON, by the build's target.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
        [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
    }
}

/// How an encoding's groups become operands.
trait Eights: Group {
    /// Inputs 8j..8j + 8 of the first two of four rows, and of the last two.
    fn rows(tiles: &Self::Tiles, j: usize, quad: usize) -> [int8x16_t; 2];
    /// What the sums begin with.
    fn offset(sum: i32) -> i32;
}

impl Eights for Q8 {
    #[inline(always)]
    fn rows(tiles: &Self::Tiles, j: usize, quad: usize) -> [int8x16_t; 2] {
        zip(tiles[2 * j][quad], tiles[2 * j + 1][quad])
    }
    #[inline(always)]
    fn offset(_: i32) -> i32 {
        0
    }
}

impl Eights for Q4 {
    #[inline(always)]
    fn rows(tiles: &Self::Tiles, j: usize, quad: usize) -> [int8x16_t; 2] {
        let [low, high] = dot::nibbles(tiles[j][quad]);
        zip(low, high)
    }
    #[inline(always)]
    fn offset(sum: i32) -> i32 {
        -8 * sum
    }
}

#[target_feature(enable = "neon,dotprod,i8mm")]
fn matmul_q8(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q8>(lhs, records, dst);
}

#[target_feature(enable = "neon,dotprod,i8mm")]
fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q4>(lhs, records, dst);
}

#[inline(always)]
fn matmul<G: Eights>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    // SAFETY: (1) called from functions with these target features only.
    let d = unsafe { Dotprod::new() };
    let record_len = tile::record_len(G::ENCODING, lhs.groups * GROUP);
    for (block, record) in records.chunks_exact(record_len).enumerate() {
        let mut t = 0;
        while lhs.m - t >= 4 {
            for first in [0, 2] {
                rows_8::<G>(lhs, t, record, block, first, dst);
            }
            t += 4;
        }
        if lhs.m - t >= 2 {
            dot::rows::<_, G, 2, 4>(d, lhs, t, record, block, 0, dst);
            t += 2;
        }
        if t < lhs.m {
            dot::rows::<_, G, 1, 4>(d, lhs, t, record, block, 0, dst);
        }
    }
}

/// For each pair of lanes, where its bytes go: to the top of 32-bit lanes, twice.
const TOPS: [[u8; 16]; 8] = {
    let mut tops = [[255; 16]; 8];
    let mut lane = 0;
    while lane < ROWS {
        tops[lane / 2][lane % 2 * 4 + 3] = lane as u8;
        tops[lane / 2][lane % 2 * 4 + 11] = lane as u8;
        lane += 1;
    }
    tops
};

/// Pairs of tokens taken at once.
const PAIRS: usize = 2;

/// Eight output rows, from `4 · first` on, of four tokens from token `t` on.
///
/// Sums of two rows and two tokens are a register: rows of the first token, rows of the second.
#[inline(always)]
fn rows_8<G: Eights>(
    lhs: &QuantLhs<'_>,
    t: usize,
    record: &[u8],
    block: usize,
    first: usize,
    dst: &mut Columns<'_>,
) {
    let groups = lhs.groups;
    let Record { row_scales, block_scales, weights } = Record::<G>::new(record, groups);
    let Tokens { q, scales, sums } = Tokens::<{ 2 * PAIRS }>::new(lhs, t);
    // SAFETY: (1) called from functions with these target features only; (2) (3) (4) the stores are
    // of four f32 that are indexed as a whole.
    unsafe {
        let mut tops = [vdupq_n_u8(0); 4];
        for two in 0..4 {
            tops[two] = vreinterpretq_u8_s8(dot::load(&TOPS[2 * first + two]));
        }
        let mut acc = [[vdupq_n_f32(0.0); 4]; PAIRS];
        for g in 0..groups {
            let mut dots = [[vdupq_n_s32(0); 4]; PAIRS];
            for i in 0..PAIRS {
                let a = vdupq_n_s32(G::offset(sums[2 * i][g]));
                let b = vdupq_n_s32(G::offset(sums[2 * i + 1][g]));
                dots[i] = [vextq_s32::<2>(a, b); 4];
            }
            add_half::<G>(&mut dots, &weights[g], first, &q, g, 0);
            add_half::<G>(&mut dots, &weights[g], first, &q, g, 1);
            let b = block_scales[g];
            let mut a = [vdupq_n_f32(0.0); PAIRS];
            for i in 0..PAIRS {
                let (first, second) = (scales[2 * i][g], scales[2 * i + 1][g]);
                a[i] = vextq_f32::<2>(vdupq_n_f32(first), vdupq_n_f32(second));
            }
            for two in 0..4 {
                let b = G::block_scale(vreinterpretq_s32_s8(vqtbl1q_s8(b, tops[two])));
                for i in 0..PAIRS {
                    let dot = vcvtq_f32_s32(dots[i][two]);
                    acc[i][two] = vfmaq_f32(acc[i][two], dot, vmulq_f32(b, a[i]));
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            for quad in 0..2 {
                let s = row_scales[first + quad];
                let [a, b] = [acc[2 * quad], acc[2 * quad + 1]];
                let tokens = [
                    vcombine_f32(vget_low_f32(a), vget_low_f32(b)),
                    vcombine_f32(vget_high_f32(a), vget_high_f32(b)),
                ];
                for (j, token) in tokens.into_iter().enumerate() {
                    let out = &mut dst.row_mut(t + 2 * i + j).as_chunks_mut::<16>().0[block];
                    let four: &mut [f32; 4] = &mut out.as_chunks_mut().0[first + quad];
                    vst1q_f32(four.as_mut_ptr(), vmulq_f32(token, s));
                }
            }
        }
    }
}

/// Adds the products of sixteen inputs, the first or the second half of group `g`.
#[inline(always)]
fn add_half<G: Eights>(
    dots: &mut [[int32x4_t; 4]; PAIRS],
    tiles: &G::Tiles,
    first: usize,
    q: &[&[[[i8; 16]; 2]]; 2 * PAIRS],
    g: usize,
    half: usize,
) {
    // SAFETY: (1) called from functions with these target features only.
    unsafe {
        let mut pairs = [[vdupq_n_s8(0); 2]; PAIRS];
        for i in 0..PAIRS {
            pairs[i] = eights(&q[2 * i][g][half], &q[2 * i + 1][g][half]);
        }
        for eight in 0..2 {
            for quad in 0..2 {
                let rows = G::rows(tiles, 2 * half + eight, first + quad);
                for two in 0..2 {
                    for i in 0..PAIRS {
                        let sums = &mut dots[i][2 * quad + two];
                        *sums = smmla(*sums, pairs[i][eight], rows[two]);
                    }
                }
            }
        }
    }
}
