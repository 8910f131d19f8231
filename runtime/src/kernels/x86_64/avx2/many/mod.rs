//! Matrix products of many tokens: a record's weights are unpacked once for six tokens after six tokens.
//! Fewer have a loop that unpacks as it multiplies (see `tiles`): for them unpacking, which is bound by
//! stores, would take longer than it saves.

mod nibbles;
pub(in crate::kernels) mod offset;
mod six;
mod whole;

use core::arch::x86_64::*;
use core::marker::PhantomData;

use super::matmul::Group;
use super::tiles::{SIX, load_sums, store_sums};
use crate::format::Encoding;
use crate::kernels::x86_64::panel::{self, Piece, Sums, Tile};
use crate::kernels::{AVX2_TILE, Columns, QuantLhs};
use crate::parallel::share;
use crate::quant::tile::ROWS;

/// From how many tokens on this is faster.
pub(super) const WORTH_IT: usize = 24;

/// Tokens that share what is unpacked. More are divided among tiles; parts of a batch seldom
/// have more.
const TOKENS: usize = AVX2_TILE;
const _: () = assert!(TOKENS.is_multiple_of(SIX));

/// Groups of a panel: those of a record and of six tokens fit an L1 cache of 48 KB. Fewer are slower with one of
/// 32 KB as well.
const GROUPS: usize = 24;

/// By itself, since its panel lies on the stack.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
pub(super) fn many_tokens<W: Unpack>(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    panel::matmul::<TOKENS, 1, 1, GROUPS, Many<W>>(lhs, records, dst);
}

/// Weights of a step: 32 bits of each row, eight rows in each half.
type Step = [[u8; 32]; 2];

/// A group of sixteen rows as it is multiplied, in `STEPS` steps.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Unpacked<const STEPS: usize> {
    weights: [Step; STEPS],
    block_scales: [f32; ROWS],
}

impl<const STEPS: usize> Unpacked<STEPS> {
    const ZERO: Self = Self { weights: [[[0; 32]; 2]; STEPS], block_scales: [0.0; ROWS] };
}

/// Sums of a token and of sixteen rows, eight in each half.
type Row = [__m256; 2];

/// How an encoding's groups are unpacked, activations packed for them, and both multiplied.
pub(super) trait Unpack {
    /// As weights are stored.
    type Stored: Group;
    /// A group of sixteen rows.
    type Rows;
    const ZERO_ROWS: Self::Rows;
    /// Activations of a group and six tokens.
    type Six: Copy;
    const ZERO_SIX: Self::Six;
    fn unpack(weights: &[u8], block_scales: &[u8; ROWS], out: &mut Self::Rows);
    /// Packs a group of six tokens from `t` on; those behind the last one are zero.
    fn pack_six(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut Self::Six);
    /// Adds the products of `N` tokens.
    fn add_group<const N: usize>(acc: &mut [Row; N], group: &Self::Six, rows: &Self::Rows);
}

pub(super) struct Many<W>(PhantomData<W>);

impl<W: Unpack> Tile<TOKENS> for Many<W> {
    const ENCODING: Encoding = W::Stored::ENCODING;
    const GROUP_BYTES: usize = W::Stored::BYTES;
    const UNIT: usize = SIX;
    /// Evenly, while all tokens are multiplied: otherwise unpacking waits for memory.
    const ASKS_ALWAYS: bool = true;
    type Group = [W::Six; TOKENS / SIX];
    const ZERO: Self::Group = [W::ZERO_SIX; TOKENS / SIX];
    type Scratch = [W::Rows; GROUPS];
    const SCRATCH: Self::Scratch = [W::ZERO_ROWS; GROUPS];

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut Self::Group) {
        for (t, out) in (t..lhs.m).step_by(SIX).zip(out) {
            W::pack_six(lhs, t, group, out);
        }
    }

    #[inline(always)]
    fn add<const N: usize>(
        panel: &[Self::Group],
        [piece]: [Piece<'_>; 1],
        mut sums: Sums<'_, '_, 1>,
        rows: &mut Self::Scratch,
    ) {
        let rows = &mut rows[..panel.len()];
        let groups = piece.weights.chunks_exact(W::Stored::BYTES).zip(piece.block_scales);
        for (rows, (weights, block_scales)) in rows.iter_mut().zip(groups) {
            W::unpack(weights, block_scales, rows);
        }
        let sixes = sums.tokens().div_ceil(SIX);
        for six in 0..sixes {
            let ask = share(panel.len(), sixes, six);
            let sums = sums.from(six * SIX);
            match sums.tokens() {
                ..=2 => add_six::<W, 2>(panel, six, rows, &piece, ask, sums),
                3..=4 => add_six::<W, 4>(panel, six, rows, &piece, ask, sums),
                _ => add_six::<W, SIX>(panel, six, rows, &piece, ask, sums),
            }
        }
    }
}

/// What the groups of a panel give to the sums of `N` tokens, the first of a panel's `six`-th six. Meanwhile
/// the groups `ask` of the piece that comes next are asked for.
#[inline(always)]
fn add_six<W: Unpack, const N: usize>(
    panel: &[[W::Six; TOKENS / SIX]],
    six: usize,
    rows: &[W::Rows],
    piece: &Piece<'_>,
    ask: core::ops::Range<usize>,
    mut sums: Sums<'_, '_, 1>,
) {
    // SAFETY: (1) called from functions with these target features only.
    unsafe {
        let mut acc = load_sums::<N>(&mut sums, piece);
        for (g, (group, rows)) in panel.iter().zip(rows).enumerate() {
            if ask.contains(&g) {
                piece.ask_next(g, W::Stored::BYTES);
            }
            W::add_group::<N>(&mut acc, &group[six], rows);
        }
        store_sums(acc, &mut sums, piece);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(w: [__m256i; 2], [low, high]: &mut Step) {
    // SAFETY: (2) (3) (4) 32 bytes each, borrowed exclusively, any alignment will do.
    unsafe {
        _mm256_storeu_si256(low.as_mut_ptr().cast(), w[0]);
        _mm256_storeu_si256(high.as_mut_ptr().cast(), w[1]);
    }
}
