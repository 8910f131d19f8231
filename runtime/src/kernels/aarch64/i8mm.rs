//! `smmla`: two rows by two tokens of eight inputs, for two tokens and more; one token is the
//! business of [`super::dotprod`].
//!
//! Its operand is eight inputs of two rows: those of q4 lie in the two nibbles of the same bytes,
//! those of q8 in two tiles, and zipping 32-bit lanes brings them together.

use core::arch::aarch64::*;

use super::asm::smmla;
use super::dot::{self, Group, Q4, Q8, Tile};
use super::dotprod::{self, Dotprod};
use crate::isa::Isa;
use crate::kernels::{Columns, QuantLhs, Table};
use crate::quant::tile::{self, GROUP, ROWS};

pub(in crate::kernels) static TABLE: Table =
    Table { isa: Isa::I8mm, matmul_q8, matmul_q4, ..dotprod::TABLE };

/// Inputs 8j..8j + 8 of four rows, as two registers of four inputs.
trait Eights: Group {
    fn load(weights: &[Tile], j: usize, quad: usize) -> [int8x16_t; 2];
    /// What the sums begin with.
    fn offset(sum: i32) -> i32;
}

impl Eights for Q8 {
    #[inline(always)]
    fn load(weights: &[Tile], j: usize, quad: usize) -> [int8x16_t; 2] {
        [dot::load(&weights[2 * j][quad]), dot::load(&weights[2 * j + 1][quad])]
    }
    #[inline(always)]
    fn offset(_: i32) -> i32 {
        0
    }
}

impl Eights for Q4 {
    #[inline(always)]
    fn load(weights: &[Tile], j: usize, quad: usize) -> [int8x16_t; 2] {
        dot::nibbles(dot::load(&weights[j][quad]))
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
                rows_8::<G, 2>(lhs, t, record, block, first, dst);
            }
            t += 4;
        }
        if lhs.m - t >= 2 {
            for first in [0, 2] {
                rows_8::<G, 1>(lhs, t, record, block, first, dst);
            }
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

/// Eight output rows, from `4 · first` on, of `PAIRS` times two tokens from token `t` on.
///
/// Sums of two rows and two tokens are a register: rows of the first token, rows of the second.
#[inline(always)]
fn rows_8<G: Eights, const PAIRS: usize>(
    lhs: &QuantLhs<'_>,
    t: usize,
    record: &[u8],
    block: usize,
    first: usize,
    dst: &mut Columns<'_>,
) {
    let groups = lhs.groups;
    let (head, weights) = record.split_at(tile::weights_offset(groups));
    let (row_scales, block_scales) = head.split_at(tile::ROW_SCALES_BYTES);
    let block_scales = &block_scales.as_chunks::<ROWS>().0[..groups];
    let row = |token: usize| -> &[[[i8; 8]; 4]] {
        let row = &lhs.q[token * groups * GROUP..][..groups * GROUP];
        row.as_chunks().0.as_chunks().0
    };
    let pairs: [[usize; 2]; PAIRS] = core::array::from_fn(|i| [t + 2 * i, t + 2 * i + 1]);
    let q = pairs.map(|pair| pair.map(row));
    let scales = pairs.map(|pair| pair.map(|t| &lhs.scales[t * groups..][..groups]));
    let sums = pairs.map(|pair| pair.map(|t| &lhs.sums[t * groups..][..groups]));
    // SAFETY: (1) called from functions with these target features only; (2) (3) (4) loads are of
    // eight bytes and stores of four f32 that are indexed as a whole.
    unsafe {
        let tops: [_; 4] =
            core::array::from_fn(|two| vreinterpretq_u8_s8(dot::load(&TOPS[2 * first + two])));
        let mut acc = [[vdupq_n_f32(0.0); 4]; PAIRS];
        for (g, (w, b)) in weights.chunks_exact(G::BYTES).zip(block_scales).enumerate() {
            let tiles: &[Tile] = w.as_chunks().0.as_chunks().0;
            let mut dots = sums.map(|pair| {
                let [a, b] = pair.map(|sums| vdup_n_s32(G::offset(sums[g])));
                [vcombine_s32(a, b); 4]
            });
            for j in 0..4 {
                let q = q.map(|pair| {
                    let [a, b] = pair.map(|q| vld1_s8(q[g][j].as_ptr()));
                    vcombine_s8(a, b)
                });
                for quad in 0..2 {
                    let [a, b] = G::load(tiles, j, first + quad).map(|w| vreinterpretq_s32_s8(w));
                    let rows = [vzip1q_s32(a, b), vzip2q_s32(a, b)];
                    for (two, rows) in rows.into_iter().enumerate() {
                        for i in 0..PAIRS {
                            let sums = &mut dots[i][2 * quad + two];
                            *sums = smmla(*sums, q[i], vreinterpretq_s8_s32(rows));
                        }
                    }
                }
            }
            let b = dot::load(b);
            let a = scales.map(|pair| {
                let [a, b] = pair.map(|scales| vdup_n_f32(scales[g]));
                vcombine_f32(a, b)
            });
            for two in 0..4 {
                let b = G::block_scale(vreinterpretq_s32_s8(vqtbl1q_s8(b, tops[two])));
                for i in 0..PAIRS {
                    let dot = vcvtq_f32_s32(dots[i][two]);
                    acc[i][two] = vfmaq_f32(acc[i][two], dot, vmulq_f32(b, a[i]));
                }
            }
        }
        let row_scales: &Tile = row_scales.as_chunks().0.first_chunk().expect("64 bytes");
        for (acc, pair) in acc.iter().zip(pairs) {
            for quad in 0..2 {
                let s = vreinterpretq_f32_s8(dot::load(&row_scales[first + quad]));
                let [a, b] = [acc[2 * quad], acc[2 * quad + 1]];
                let tokens = [
                    vcombine_f32(vget_low_f32(a), vget_low_f32(b)),
                    vcombine_f32(vget_high_f32(a), vget_high_f32(b)),
                ];
                for (t, token) in pair.into_iter().zip(tokens) {
                    let out = &mut dst.row_mut(t).as_chunks_mut::<16>().0[block];
                    let four: &mut [f32; 4] = &mut out.as_chunks_mut().0[first + quad];
                    vst1q_f32(four.as_mut_ptr(), vmulq_f32(token, s));
                }
            }
        }
    }
}
