//! Kernels for x86-64 with AVX-512 and AMX, which multiplies sixteen tokens with sixteen output rows
//! by one instruction, for prompts.
//!
//! Weights lie in files as `tdpbssd` takes them: four inputs of sixteen rows in a line, eight lines a
//! group. Those of q8 are loaded from there, others are unpacked once for [`TOKENS`] tokens. Each
//! group's products leave the tile registers, since each has scales of its own; that is what takes
//! longest. Everything else is the business of AVX-512.

mod available;
mod registers;

use core::arch::asm;
use core::arch::x86_64::*;
use core::marker::PhantomData;

use self::registers::{Activations, Products, TILE, TOGETHER, TOKENS, Tiles, Unpacked};
use super::avx512vnni;
use super::avx512vnni::matmul::{Group, Q3, Q4, Q8, spare_bits};
use super::panel::{self, Piece, Sums, Tile};
use crate::format::Encoding;
use crate::isa::Isa;
use crate::kernels::{Columns, QuantLhs, Table};
use crate::parallel::share;
use crate::quant::tile::{GROUP, Q3_GROUP_BYTES, Q4_GROUP_BYTES};

pub(crate) use self::available::is_available;

pub(in crate::kernels) static TABLE: Table =
    Table { isa: Isa::Amx, matmul_q8, matmul_q4, matmul_q3, ..avx512vnni::TABLE };

/// Groups of a panel: those of sixteen tokens and of a record fit the L1 cache.
const GROUPS: usize = 24;

/// Whether AMX is the faster one: its registers are multiplied whole, so that four fifths of their rows
/// must be tokens. (16 tokens take as long as 12 or 13 do with AVX-512.)
fn is_worth_it(tokens: usize) -> bool {
    tokens > 0 && tokens.next_multiple_of(TILE) * 4 <= tokens * 5
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn matmul_q8(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    if is_worth_it(lhs.m) {
        many_tokens::<Q8>(lhs, records, dst);
    } else {
        avx512vnni::matmul::matmul_q8(lhs, records, dst);
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    if is_worth_it(lhs.m) {
        many_tokens::<Q4>(lhs, records, dst);
    } else {
        avx512vnni::matmul::matmul_q4(lhs, records, dst);
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn matmul_q3(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    if is_worth_it(lhs.m) {
        many_tokens::<Q3>(lhs, records, dst);
    } else {
        avx512vnni::matmul::matmul_q3(lhs, records, dst);
    }
}

/// By itself, since its panel lies on the stack.
#[inline(never)]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn many_tokens<W: Weights>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    // SAFETY: (1) called by kernels of this set only.
    let _tiles = unsafe { Tiles::configure() };
    panel::matmul::<TOKENS, 1, 1, GROUPS, Amx<W>>(lhs, records, dst);
}

/// Encodings whose weights `tdpbssd` can have.
trait Weights: Group {
    /// The weights of some groups, in `scratch` if not where they are.
    fn unpack<'a>(weights: &'a [u8], scratch: &'a mut [Unpacked; GROUPS]) -> &'a [Unpacked];
}

impl Weights for Q8 {
    #[inline(always)]
    fn unpack<'a>(weights: &'a [u8], _: &'a mut [Unpacked; GROUPS]) -> &'a [Unpacked] {
        bytemuck::cast_slice(weights)
    }
}

impl Weights for Q4 {
    #[inline(always)]
    fn unpack<'a>(weights: &'a [u8], scratch: &'a mut [Unpacked; GROUPS]) -> &'a [Unpacked] {
        let (groups, _) = weights.as_chunks::<Q4_GROUP_BYTES>();
        for (weights, out) in groups.iter().zip(&mut *scratch) {
            for (weights, out) in weights.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                // SAFETY: (1) called from functions with these target features only.
                unsafe { nibbles::<15, 8>(avx512vnni::load(weights), out) }
            }
        }
        &scratch[..groups.len()]
    }
}

impl Weights for Q3 {
    #[inline(always)]
    fn unpack<'a>(weights: &'a [u8], scratch: &'a mut [Unpacked; GROUPS]) -> &'a [Unpacked] {
        let (groups, _) = weights.as_chunks::<Q3_GROUP_BYTES>();
        for (weights, out) in groups.iter().zip(&mut *scratch) {
            let (weights, (outs, _)) = (weights.as_chunks().0, out.as_chunks_mut());
            // SAFETY: (1) called from functions with these target features only.
            unsafe {
                let a = avx512vnni::load(&weights[0]);
                let b = avx512vnni::load(&weights[1]);
                let c = avx512vnni::load(&weights[2]);
                for (tile, out) in [a, b, c, spare_bits([a, b, c])].into_iter().zip(outs) {
                    nibbles::<7, 4>(tile, out);
                }
            }
        }
        &scratch[..groups.len()]
    }
}

/// The low nibbles, then the high ones, of whose bits `MASK` counts, less `OFFSET`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles<const MASK: i8, const OFFSET: i8>(w: __m512i, [low, high]: &mut [[i8; 64]; 2]) {
    let (mask, offset) = (_mm512_set1_epi8(MASK), _mm512_set1_epi8(OFFSET));
    for (out, w) in [(low, w), (high, _mm512_srli_epi16::<4>(w))] {
        let w = _mm512_sub_epi8(_mm512_and_si512(w, mask), offset);
        // SAFETY: (2) (3) (4) 64 bytes, any alignment will do, borrowed exclusively.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), w) }
    }
}

struct Amx<W>(PhantomData<W>);

/// What is at hand between the panel and the sums.
#[repr(C, align(64))]
struct Scratch {
    /// Weights of a piece of a record.
    weights: [Unpacked; GROUPS],
    /// Products of sixteen tokens: a chunk of groups is multiplied while another is scaled.
    products: [[Products; TOGETHER]; 2],
}

impl<W: Weights> Tile<TOKENS> for Amx<W> {
    const ENCODING: Encoding = W::ENCODING;
    const GROUP_BYTES: usize = W::BYTES;
    const UNIT: usize = TILE;
    type Group = Activations;
    const ZERO: Activations = Activations { q: [[0; GROUP]; TOKENS], scales: [0.0; TOKENS] };
    type Scratch = Scratch;
    const SCRATCH: Scratch =
        Scratch { weights: [[[0; 64]; 8]; GROUPS], products: [[[[0; 16]; TILE]; TOGETHER]; 2] };

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut Activations) {
        panel::set_scales(lhs, t, group, &mut out.scales);
        let mut rows = panel::rows(lhs, t, group);
        for q in &mut out.q {
            *q = rows.next().copied().unwrap_or([0; GROUP]);
        }
    }

    #[inline(always)]
    fn add<const N: usize>(
        panel: &[Activations],
        [piece]: [Piece<'_>; 1],
        mut sums: Sums<'_, '_, 1>,
        Scratch { weights, products }: &mut Scratch,
    ) {
        let weights = &W::unpack(piece.weights, weights)[..panel.len()];
        let tiles = sums.tokens().div_ceil(TILE);
        for tile in 0..tiles {
            let ask = share(panel.len(), tiles, tile);
            let first = tile * TILE;
            // SAFETY: (1) called by `many_tokens`, which configured the registers.
            unsafe {
                add_tile::<W>(panel, first, weights, &piece, ask, products, sums.from(first));
            }
        }
    }
}

/// What the groups of a panel give to the sums of sixteen tokens, from its `first` on. A chunk is
/// multiplied before the one before it is scaled, so that both go on side by side. Meanwhile the groups
/// `ask` of the piece that comes next are asked for.
///
/// # Safety
/// 1. The CPU has the instructions, and the tile registers are configured.
#[inline(always)]
unsafe fn add_tile<W: Weights>(
    panel: &[Activations],
    first: usize,
    weights: &[Unpacked],
    piece: &Piece<'_>,
    mut ask: core::ops::Range<usize>,
    products: &mut [[Products; TOGETHER]; 2],
    mut sums: Sums<'_, '_, 1>,
) {
    // SAFETY: (1) see above; (2) (3) (4) `sums` are sixteen f32 each, borrowed exclusively.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); TILE];
        if piece.resume {
            for (i, acc) in acc.iter_mut().enumerate() {
                if let Some(sums) = sums.row(i, 0) {
                    *acc = _mm512_loadu_ps(sums.as_ptr());
                }
            }
        }
        let chunks = panel.len().div_ceil(TOGETHER);
        let groups_of = |chunk: usize| chunk * TOGETHER..panel.len().min((chunk + 1) * TOGETHER);
        let asked_together = ask.len().div_ceil(chunks);
        for chunk in 0..=chunks {
            let [even, odd] = &mut *products;
            let (now, before) = if chunk % 2 == 0 { (even, odd) } else { (odd, even) };
            if chunk < chunks {
                for group in ask.by_ref().take(asked_together) {
                    piece.ask_next(group, W::BYTES);
                }
                let groups = groups_of(chunk);
                registers::multiply(&panel[groups.clone()], first, &weights[groups], now);
            }
            if let Some(chunk) = chunk.checked_sub(1) {
                for (g, products) in groups_of(chunk).zip(before) {
                    let scales = panel[g].scales[first..].first_chunk().expect("a tile");
                    add_scaled(&mut acc, products, scales, W::block_scales(&piece.block_scales[g]));
                }
            }
        }
        if let Some(row_scales) = piece.row_scales {
            let row_scales = _mm512_loadu_ps(row_scales.as_ptr());
            for acc in &mut acc {
                *acc = _mm512_mul_ps(*acc, row_scales);
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            if let Some(sums) = sums.row(i, 0) {
                _mm512_storeu_ps(sums.as_mut_ptr(), acc);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_scaled(
    acc: &mut [__m512; TILE],
    products: &Products,
    scales: &[f32; TILE],
    block_scales: __m512,
) {
    for ((acc, products), scale) in acc.iter_mut().zip(products).zip(scales) {
        // SAFETY: (2) (3) 64 bytes, any alignment will do.
        let products = unsafe { _mm512_loadu_si512(products.as_ptr().cast()) };
        let scale = times(block_scales, scale);
        *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, *acc);
    }
}

/// `b · a`. The compiler would load two scales at once and broadcast each by a shuffle, for which there
/// is no time.
#[inline]
#[target_feature(enable = "avx512f")]
fn times(b: __m512, a: &f32) -> __m512 {
    let product;
    // SAFETY: (1) by the target feature; (2) a reference to an f32.
    unsafe {
        asm!(
            "vmulps {product}, {b}, dword ptr [{a}]{{1to16}}",
            product = lateout(zmm_reg) product,
            b = in(zmm_reg) b,
            a = in(reg) a,
            options(pure, readonly, nostack),
        );
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_would_be_empty_are_not_multiplied() {
        let worth_it = |tokens: &core::ops::Range<usize>| tokens.clone().all(is_worth_it);
        assert!([13..17, 26..33, 39..49, 52..1025].iter().all(worth_it));
        assert!(
            [0..13, 17..26, 33..39, 49..52].iter().all(|tokens| !tokens.clone().any(is_worth_it))
        );
    }
}
