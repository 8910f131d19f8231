//! `sdot`: four products of signed bytes in each 32-bit lane, four activations for all lanes.
//!
//! The nibbles of q4 and q3 are signed bytes as they are. Sums are exact in 32 bits, so that the zero
//! point is what they begin with.

use core::arch::aarch64::*;

use super::asm::sdot_lane;
use super::attention;
use super::dot::{self, Dot, Group, Q3, Q4, Q8};
use super::neon;
use super::panel::{self, sdot::Sdot};
use crate::isa::Isa;
use crate::kernels::{Behind, Columns, QuantLhs, Table};

pub(in crate::kernels) static TABLE: Table = Table {
    isa: Isa::Dotprod,
    matmul_q8,
    matmul_q4,
    matmul_q3,
    scores_q8,
    values_q8,
    ..neon::TABLE
};

/// Proof that the CPU has the instructions: made only in functions that require them.
#[derive(Clone, Copy)]
pub(super) struct Dotprod(());

impl Dotprod {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl Dot for Dotprod {
    type Lhs = int8x16_t;
    type Sums = int32x4_t;
    type NibbleSums = int32x4_t;

    #[inline(always)]
    fn lhs(self, q: &[i8; 16]) -> int8x16_t {
        dot::load(bytemuck::cast_ref(q))
    }
    #[inline(always)]
    fn zero(self) -> int32x4_t {
        // SAFETY: (1) by the token.
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    fn add(self, sums: int32x4_t, w: [int8x16_t; 4], lhs: int8x16_t) -> int32x4_t {
        // SAFETY: (1) the token is made only in functions with these target features.
        unsafe {
            let sums = sdot_lane::<0>(sums, w[0], lhs);
            let sums = sdot_lane::<1>(sums, w[1], lhs);
            let sums = sdot_lane::<2>(sums, w[2], lhs);
            sdot_lane::<3>(sums, w[3], lhs)
        }
    }
    #[inline(always)]
    fn total(self, sums: int32x4_t) -> int32x4_t {
        sums
    }
    #[inline(always)]
    fn nibble_zero(self, offset: i32) -> int32x4_t {
        // SAFETY: (1) by the token.
        unsafe { vdupq_n_s32(-offset) }
    }
    #[inline(always)]
    fn nibble_add(self, sums: int32x4_t, w: [int8x16_t; 4], lhs: int8x16_t) -> int32x4_t {
        self.add(sums, w, lhs)
    }
    #[inline(always)]
    fn nibble_total(self, sums: int32x4_t, _: i32) -> int32x4_t {
        sums
    }
}

#[target_feature(enable = "neon,dotprod")]
fn matmul_q8(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q8>(Dotprod::new(), lhs, records, dst);
}

#[target_feature(enable = "neon,dotprod")]
fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q4>(Dotprod::new(), lhs, records, dst);
}

#[target_feature(enable = "neon,dotprod")]
fn matmul_q3(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q3>(Dotprod::new(), lhs, records, dst);
}

/// Panels of six tokens, the last one with four at least: with fewer, or for a single panel of four,
/// they cost more than they save.
#[inline(always)]
fn matmul<G: Group>(d: Dotprod, lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    let in_panels = panel::tokens(lhs.m, 5);
    if in_panels > 0 {
        // SAFETY: (1) by the token.
        unsafe { panels::<G>(lhs, in_panels, records, dst) };
    }
    if in_panels < lhs.m {
        dot::matmul::<_, G, 4, 2>(d, lhs, in_panels, records, dst);
    }
}

/// By itself, so that other products need not its stack.
#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
fn panels<G: Group>(lhs: &QuantLhs<'_>, tokens: usize, records: &[u8], dst: &mut Columns<'_>) {
    panel::matmul::<Sdot, G>(lhs, 0..tokens, records, dst);
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn scores_q8(
    queries: &[i8],
    scales: &[f32],
    keys: &[i8],
    key_scales: &[f32],
    _: Behind<'_>,
    scores: &mut [f32],
) {
    let (hd, slots) = (queries.len() / scales.len(), scores.len() / scales.len());
    let (fours, last) = scales.as_chunks::<4>();
    let (queries, last_queries) = queries.split_at(fours.len() * 4 * hd);
    let (scores, last_scores) = scores.split_at_mut(fours.len() * 4 * slots);
    let blocks = queries.chunks_exact(4 * hd).zip(scores.chunks_exact_mut(4 * slots));
    for ((queries, scores), scales) in blocks.zip(fours) {
        attention::scores_of_four(queries, scales, keys, key_scales, scores);
    }
    if !last.is_empty() {
        dot::scores_q8(Dotprod::new(), last_queries, last, keys, key_scales, last_scores);
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn values_q8(
    high: &[u8],
    low: &[u8],
    scale: f32,
    values: &[i8],
    _: Behind<'_>,
    out: &mut [f32],
) {
    let (high, low) = (bytemuck::cast_slice(high), bytemuck::cast_slice(low));
    let done = attention::values_of_pairs(high, low, scale, values, out);
    dot::values_q8::<_, 4>(Dotprod::new(), high, low, scale, values, out, done);
}
