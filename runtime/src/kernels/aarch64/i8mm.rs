//! `smmla`: two rows by two tokens of eight inputs, for four tokens and more.
//!
//! Its operand is eight inputs of two rows: those of q4 and q3 lie in the two nibbles of the same bytes,
//! those of q8 in two tiles, and zipping 32-bit lanes brings them together. That costs as much as
//! `smmla` saves where fewer than four tokens share it: those are the business of `sdot`.

use super::dot::{self, Group, Q3, Q4, Q8};
use super::dotprod::{self, Dotprod};
use super::panel::{self, smmla::Smmla};
use crate::isa::Isa;
use crate::kernels::{Columns, QuantLhs, Table};

pub(in crate::kernels) static TABLE: Table =
    Table { isa: Isa::I8mm, matmul_q8, matmul_q4, matmul_q3, ..dotprod::TABLE };

#[target_feature(enable = "neon,dotprod,i8mm")]
fn matmul_q8(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q8>(lhs, records, dst);
}

#[target_feature(enable = "neon,dotprod,i8mm")]
fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q4>(lhs, records, dst);
}

#[target_feature(enable = "neon,dotprod,i8mm")]
fn matmul_q3(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul::<Q3>(lhs, records, dst);
}

#[inline(always)]
fn matmul<G: Group>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    let in_panels = panel::tokens(lhs.m, 4);
    if in_panels > 0 {
        // SAFETY: (1) called from functions with these target features only.
        unsafe { panels::<G>(lhs, in_panels, records, dst) };
    }
    if in_panels < lhs.m {
        // SAFETY: (1) called from functions with these target features only.
        let d = unsafe { Dotprod::new() };
        dot::matmul::<_, G, 2, 4>(d, lhs, in_panels, records, dst);
    }
}

/// By itself, so that other products need not its stack.
#[inline(never)]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn panels<G: Group>(lhs: &QuantLhs<'_>, tokens: usize, records: &[u8], dst: &mut Columns<'_>) {
    panel::matmul::<Smmla, G>(lhs, 0..tokens, records, dst);
}
