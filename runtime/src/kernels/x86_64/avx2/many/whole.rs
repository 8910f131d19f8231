//! q8: activations in 16 bits, as weights are, since products of bytes would not fit these.
//!
//! Where weights are unpacked for each six tokens anew they are taken in pairs instead, which saves an
//! instruction there, but costs an addition more for each sum (see `tiles::WideGroup`).

use core::arch::x86_64::*;

use super::{Row, Unpack, Unpacked, six, store};
use crate::kernels::QuantLhs;
use crate::kernels::generic::Lanes;
use crate::kernels::x86_64::avx2::matmul::{Group, Q8};
use crate::kernels::x86_64::avx2::tiles::{
    SIX, add_scaled, add_wide_products, even_and_odd, rows, store_tokens,
};
use crate::kernels::x86_64::avx2::{Avx2, load};
use crate::kernels::x86_64::{panel, transpose_8x8};
use crate::quant::tile::ROWS;

/// Activations of a group.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::kernels::x86_64::avx2) struct WholeGroup {
    /// Of four inputs of each token the first and the third, then the others.
    pub(super) q: [[[i16; 2]; SIX]; 16],
    pub(super) scales: [f32; SIX],
}

impl Unpack for Q8 {
    type Stored = Self;
    type Rows = Unpacked<16>;
    const ZERO_ROWS: Unpacked<16> = Unpacked::ZERO;
    type Six = WholeGroup;
    const ZERO_SIX: WholeGroup = WholeGroup { q: [[[0; 2]; SIX]; 16], scales: [0.0; SIX] };

    #[inline(always)]
    fn unpack(weights: &[u8], block_scales: &[u8; ROWS], out: &mut Unpacked<16>) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let weights = weights.as_chunks().0.as_chunks::<2>().0;
            for (w, [even, odd]) in weights.iter().zip(out.weights.as_chunks_mut().0) {
                let [low, high] = [even_and_odd(load(&w[0])), even_and_odd(load(&w[1]))];
                store([low[0], high[0]], even);
                store([low[1], high[1]], odd);
            }
            Avx2(()).store(Q8::block_scales(block_scales), &mut out.block_scales);
        }
    }

    #[inline(always)]
    fn pack_six(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut WholeGroup) {
        panel::set_scales(lhs, t, group, &mut out.scales);
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let columns = transpose_8x8(rows::<SIX>(lhs, t, group));
            for (column, [even, odd]) in columns.into_iter().zip(out.q.as_chunks_mut().0) {
                let halves = even_and_odd(column);
                store_tokens(halves[0], even);
                store_tokens(halves[1], odd);
            }
        }
    }

    #[inline(always)]
    fn add_group<const N: usize>(acc: &mut [Row; N], group: &WholeGroup, rows: &Unpacked<16>) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            if let Some(acc) = six::all(acc) {
                return six::add_whole(acc, group, rows);
            }
            let mut dots = [[_mm256_setzero_si256(); 2]; N];
            for (w, q) in rows.weights.iter().zip(&group.q) {
                add_wide_products(&mut dots, [load(&w[0]), load(&w[1])], q);
            }
            add_scaled(acc, dots, Avx2(()).load(&rows.block_scales), &group.scales);
        }
    }
}
