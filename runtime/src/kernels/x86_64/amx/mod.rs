//! Kernels for x86-64 with AVX-512 and AMX, which multiplies sixteen tokens with sixteen output rows
//! by one instruction, for prompts.
//!
//! Weights lie in files as `tdpbssd` takes them: four inputs of sixteen rows in a line, eight lines a
//! group. Those of q8 are loaded from there, others are unpacked once for [`TOKENS`] tokens. Each
//! group's products leave the tile registers, since each has scales of its own. Everything else is the
//! business of AVX-512.
//!
//! While AMX is in use (Sapphire Rapids), and for some hundred cycles afterwards, only one port instead of two
//! multiplies and converts floats of 512 bits, which is what takes longest. So groups are scaled beside the
//! work of the tile registers, not in between.

mod available;
mod registers;

use core::arch::asm;
use core::arch::x86_64::*;
use core::marker::PhantomData;

use self::registers::{Activations, Pipeline, Products, TILE, TOKENS, TURNS, Tiles, Unpacked};
use super::avx512vnni;
use super::avx512vnni::matmul::{Group, Q3, Q4, Q8, spare_bits};
use super::panel::{self, Piece, Sums, Tile};
use crate::format::Encoding;
use crate::isa::Isa;
use crate::kernels::{Columns, QuantLhs, Table};
use crate::quant::tile::{GROUP, Q3_GROUP_BYTES, Q4_GROUP_BYTES, ROWS};

pub(crate) use self::available::is_available;

pub(in crate::kernels) static TABLE: Table =
    Table { isa: Isa::Amx, matmul_q8, matmul_q4, matmul_q3, ..avx512vnni::TABLE };

/// Groups of a panel: those of sixteen tokens and of a record fit the L1 cache.
const GROUPS: usize = 24;

/// Whether AMX is the faster one: its registers are multiplied whole, so that five eighths of their rows
/// must be tokens. (16 tokens take as long as 9 with q8 and 11 with q4 do with AVX-512.)
fn is_worth_it(tokens: usize) -> bool {
    tokens > 0 && tokens.next_multiple_of(TILE) * 5 <= tokens * 8
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
    /// Those of groups on their way through the pipeline.
    products: [Products; TURNS],
    /// Those of the piece, as numbers.
    block_scales: [[f32; ROWS]; GROUPS],
}

impl<W: Weights> Tile<TOKENS> for Amx<W> {
    const ENCODING: Encoding = W::ENCODING;
    const GROUP_BYTES: usize = W::BYTES;
    const UNIT: usize = TILE;
    type Group = Activations;
    const ZERO: Activations = Activations { q: [[0; GROUP]; TOKENS], scales: [0.0; TOKENS] };
    type Scratch = Scratch;
    const SCRATCH: Scratch = Scratch {
        weights: [[[0; 64]; 8]; GROUPS],
        products: [[[0; ROWS]; TILE]; TURNS],
        block_scales: [[0.0; ROWS]; GROUPS],
    };

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
        scratch: &mut Scratch,
    ) {
        // SAFETY: (1) called by `many_tokens`, which configured the registers.
        unsafe { add_tiles::<W>(panel, &piece, &mut sums, scratch) }
    }
}

/// What the groups of a panel give to the sums of its tokens. Meanwhile the piece that comes next is asked for.
///
/// # Safety
/// 1. The CPU has the instructions, and the tile registers are configured.
#[inline(always)]
unsafe fn add_tiles<W: Weights>(
    panel: &[Activations],
    piece: &Piece<'_>,
    sums: &mut Sums<'_, '_, 1>,
    Scratch { weights, block_scales, products }: &mut Scratch,
) {
    let weights = &W::unpack(piece.weights, weights)[..panel.len()];
    for (out, bytes) in block_scales.iter_mut().zip(piece.block_scales) {
        // SAFETY: (1) see above; (3) (4) sixteen f32, borrowed exclusively.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), W::block_scales(bytes)) }
    }
    let tiles = sums.tokens().div_ceil(TILE);
    let mut pipeline = Pipeline::new(panel, weights, products, tiles);
    // SAFETY: (1) see above; (2) (3) (4) `sums` are sixteen f32 each, borrowed exclusively.
    unsafe {
        for _ in 0..Pipeline::DEPTH {
            pipeline.step();
        }
        for tile in 0..tiles {
            let mut sums = sums.from(tile * TILE);
            let mut acc = [_mm512_setzero_ps(); TILE];
            if piece.resume {
                for (i, acc) in acc.iter_mut().enumerate() {
                    if let Some(sums) = sums.row(i, 0) {
                        *acc = _mm512_loadu_ps(sums.as_ptr());
                    }
                }
            }
            // Each tile asks for some of the next groups, so that all are asked for evenly, and group by group for
            // the lines that it will write, which the L2 cache may have lost.
            let mut ask = tile;
            for (group, (activations, block_scales)) in panel.iter().zip(&*block_scales).enumerate()
            {
                if group == ask {
                    piece.ask_next(group, W::BYTES);
                    ask += tiles;
                }
                if group < TILE
                    && let Some(sums) = sums.row(group, 0)
                {
                    ask_to_write(sums);
                }
                let products = pipeline.step();
                let scales = activations.scales[tile * TILE..].first_chunk().expect("a tile");
                add_scaled(&mut acc, products, scales, block_scales);
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
}

/// Asks for a line that will be written.
#[inline(always)]
fn ask_to_write(line: &[f32; ROWS]) {
    // SAFETY: (1) every CPU with AMX has the instruction, which is a hint: it changes nothing.
    unsafe { asm!("prefetchw [{}]", in(reg) line, options(readonly, nostack, preserves_flags)) }
}

/// `acc + products · (block_scales · scales)` of sixteen tokens by sixteen rows. Left to itself, the compiler moves
/// sums from register to register, and loads scales to broadcast them by shuffles, for which there is no time.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_scaled(
    acc: &mut [__m512; TILE],
    products: &Products,
    scales: &[f32; TILE],
    block_scales: &[f32; ROWS],
) {
    /// The instructions of a token, whose sum is the operand of its number.
    macro_rules! token {
        ($i:literal) => {
            concat!(
                "vcvtdq2ps zmm30, [{products} + 64 * ",
                $i,
                "]\n",
                "vmulps zmm31, {block_scales}, dword ptr [{scales} + 4 * ",
                $i,
                "]{{1to16}}\n",
                "vfmadd231ps {",
                $i,
                "}, zmm30, zmm31",
            )
        };
    }
    let [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15] = acc;
    // SAFETY: (1) by the target feature; (2) references to sixteen times sixteen i32 and to sixteen f32 each.
    unsafe {
        asm!(
            token!(0),
            token!(1),
            token!(2),
            token!(3),
            token!(4),
            token!(5),
            token!(6),
            token!(7),
            token!(8),
            token!(9),
            token!(10),
            token!(11),
            token!(12),
            token!(13),
            token!(14),
            token!(15),
            inout(zmm_reg) *a0,
            inout(zmm_reg) *a1,
            inout(zmm_reg) *a2,
            inout(zmm_reg) *a3,
            inout(zmm_reg) *a4,
            inout(zmm_reg) *a5,
            inout(zmm_reg) *a6,
            inout(zmm_reg) *a7,
            inout(zmm_reg) *a8,
            inout(zmm_reg) *a9,
            inout(zmm_reg) *a10,
            inout(zmm_reg) *a11,
            inout(zmm_reg) *a12,
            inout(zmm_reg) *a13,
            inout(zmm_reg) *a14,
            inout(zmm_reg) *a15,
            products = in(reg) products,
            scales = in(reg) scales,
            block_scales = in(zmm_reg) _mm512_loadu_ps(block_scales.as_ptr()),
            out("zmm30") _,
            out("zmm31") _,
            options(readonly, nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_would_be_empty_are_not_multiplied() {
        let worth_it = |tokens: &core::ops::Range<usize>| tokens.clone().all(is_worth_it);
        assert!([10..17, 20..1025].iter().all(worth_it));
        assert!([0..10, 17..20].iter().all(|tokens| !tokens.clone().any(is_worth_it)));
    }
}
