//! q4 and q3: nibbles, unsigned as they are stored, times bytes, added up in 16 bits.

use core::arch::x86_64::*;

use super::{Row, Step, Unpack, Unpacked, six, store};
use crate::kernels::QuantLhs;
use crate::kernels::generic::Lanes;
use crate::kernels::x86_64::avx2::matmul::{Few, Group, Nibbles};
use crate::kernels::x86_64::avx2::tiles::{SIX, add_products, add_scaled, begin, widened};
use crate::kernels::x86_64::avx2::{Avx2, load};
use crate::kernels::x86_64::panel::{PanelGroup, Tile};
use crate::quant::tile::ROWS;

impl<const BITS: u32> Unpack for Few<BITS>
where
    Self: Nibbles,
{
    type Stored = Self;
    type Rows = Unpacked<8>;
    const ZERO_ROWS: Unpacked<8> = Unpacked::ZERO;
    type Six = PanelGroup<SIX>;
    const ZERO_SIX: PanelGroup<SIX> = PanelGroup::ZERO;

    /// In each 64 bytes low nibbles first, then high ones.
    #[inline(always)]
    fn unpack(weights: &[u8], block_scales: &[u8; ROWS], out: &mut Unpacked<8>) {
        let tiles = weights.as_chunks().0.as_chunks::<2>().0;
        let mut outs = out.weights.as_chunks_mut().0.iter_mut();
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            for (w, out) in tiles.iter().zip(&mut outs) {
                nibbles([load(&w[0]), load(&w[1])], Self::MASK, out);
            }
            if let (Some(w), Some(out)) = (Self::fourth(tiles), outs.next()) {
                nibbles(w, Self::MASK, out);
            }
            Avx2(()).store(<Self as Group>::block_scales(block_scales), &mut out.block_scales);
        }
    }

    #[inline(always)]
    fn pack_six(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut PanelGroup<SIX>) {
        <Self as Tile<SIX>>::pack(lhs, t, group, out);
    }

    #[inline(always)]
    fn add_group<const N: usize>(acc: &mut [Row; N], group: &PanelGroup<SIX>, rows: &Unpacked<8>) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            if let Some(acc) = six::all(acc) {
                return six::add_nibbles(acc, group, rows);
            }
            let mut dots = begin::<N>(&group.offsets);
            for (w, q) in rows.weights.iter().zip(&group.q) {
                add_products(&mut dots, [load(&w[0]), load(&w[1])], q);
            }
            add_scaled(acc, widened(dots), Avx2(()).load(&rows.block_scales), &group.scales);
        }
    }
}

/// Low nibbles, then high ones.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(w: [__m256i; 2], mask: i8, [low, high]: &mut [Step; 2]) {
    let mask = _mm256_set1_epi8(mask);
    store([_mm256_and_si256(w[0], mask), _mm256_and_si256(w[1], mask)], low);
    let w = [_mm256_srli_epi16::<4>(w[0]), _mm256_srli_epi16::<4>(w[1])];
    store([_mm256_and_si256(w[0], mask), _mm256_and_si256(w[1], mask)], high);
}
