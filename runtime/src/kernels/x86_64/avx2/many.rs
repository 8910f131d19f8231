//! Matrix products of many tokens: a record's weights are unpacked once for six tokens after six tokens.
//! Fewer have a loop that unpacks as it multiplies (see `tiles`): for them unpacking, which is bound by
//! stores, would take longer than it saves.

use core::arch::x86_64::*;
use core::marker::PhantomData;

use super::load;
use super::matmul::{Few, Group, Nibbles, Q8};
use super::tiles::{
    SIX, WideGroup, add_products, add_scaled, add_wide_products, begin, load_sums, store_sums,
};
use crate::format::Encoding;
use crate::kernels::x86_64::panel::{self, PanelGroup, Piece, Sums, Tile};
use crate::kernels::{Columns, QuantLhs};
use crate::parallel::share;

/// From how many tokens on this is faster.
pub(super) const WORTH_IT: usize = 24;

/// Tokens that share what is unpacked. More are divided among tiles; most parts of a batch have fewer
/// (see `nn::parting`).
const TOKENS: usize = 8 * SIX;

/// Groups of a panel: those of a record and of six tokens fit an L1 cache of 48 KB.
const GROUPS: usize = 24;

/// By itself, since its panel lies on the stack.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
pub(super) fn many_tokens<W: Unpack<STEPS>, const STEPS: usize>(
    lhs: &QuantLhs<'_>,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    panel::matmul::<TOKENS, 1, 1, GROUPS, Many<W, STEPS>>(lhs, records, dst);
}

/// Weights of a step: 32 bits of each row, eight rows in each half.
type Step = [[u8; 32]; 2];

/// A group of sixteen rows as it is multiplied.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Unpacked<const STEPS: usize> {
    weights: [Step; STEPS],
    block_scales: [[f32; 8]; 2],
}

/// How an encoding's groups are unpacked, and multiplied in `STEPS` steps.
pub(super) trait Unpack<const STEPS: usize>: Group + Tile<SIX> {
    fn unpack(weights: &[u8], out: &mut [Step; STEPS]);
    /// Adds the products of `N` tokens.
    fn add_group<const N: usize>(
        acc: &mut [[__m256; 2]; N],
        group: &<Self as Tile<SIX>>::Group,
        rows: &Unpacked<STEPS>,
    );
}

impl Unpack<16> for Q8 {
    /// In each 64 bytes pairs first, then their upper bytes (see [`WideGroup::of_pairs`]).
    #[inline(always)]
    fn unpack(weights: &[u8], out: &mut [Step; 16]) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let sign_of_lower = _mm256_set1_epi16(0x80);
            let weights = weights.as_chunks().0.as_chunks::<2>().0;
            for (w, [pairs, upper]) in weights.iter().zip(out.as_chunks_mut().0) {
                let w = [load(&w[0]), load(&w[1])];
                store(w.map(|w| _mm256_xor_si256(w, sign_of_lower)), pairs);
                store(w.map(|w| _mm256_srai_epi16::<8>(w)), upper);
            }
        }
    }

    #[inline(always)]
    fn add_group<const N: usize>(
        acc: &mut [[__m256; 2]; N],
        group: &WideGroup<SIX>,
        rows: &Unpacked<16>,
    ) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut dots = begin::<N>(&group.offsets);
            for (w, q) in rows.weights.iter().zip(group.q.as_flattened()) {
                add_wide_products(&mut dots, [load(&w[0]), load(&w[1])], q);
            }
            add_scaled(acc, dots, block_scales(rows), &group.scales);
        }
    }
}

impl<const BITS: u32> Unpack<8> for Few<BITS>
where
    Self: Nibbles,
{
    /// In each 64 bytes low nibbles first, then high ones.
    #[inline(always)]
    fn unpack(weights: &[u8], out: &mut [Step; 8]) {
        let tiles = weights.as_chunks().0.as_chunks::<2>().0;
        let mut outs = out.as_chunks_mut().0.iter_mut();
        for (w, out) in tiles.iter().zip(&mut outs) {
            // SAFETY: (1) called from functions with these target features only.
            unsafe { nibbles([load(&w[0]), load(&w[1])], Self::MASK, out) }
        }
        if let (Some(w), Some(out)) = (Self::fourth(tiles), outs.next()) {
            // SAFETY: (1) as above.
            unsafe { nibbles(w, Self::MASK, out) }
        }
    }

    #[inline(always)]
    fn add_group<const N: usize>(
        acc: &mut [[__m256; 2]; N],
        group: &PanelGroup<SIX>,
        rows: &Unpacked<8>,
    ) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut dots = begin::<N>(&group.offsets);
            for (w, q) in rows.weights.iter().zip(&group.q) {
                add_products(&mut dots, [load(&w[0]), load(&w[1])], q);
            }
            add_scaled(acc, widened(dots), block_scales(rows), &group.scales);
        }
    }
}

pub(super) struct Many<W, const STEPS: usize>(PhantomData<W>);

impl<W: Unpack<STEPS>, const STEPS: usize> Tile<TOKENS> for Many<W, STEPS> {
    const ENCODING: Encoding = <W as Group>::ENCODING;
    const GROUP_BYTES: usize = W::BYTES;
    const UNIT: usize = SIX;
    type Group = [<W as Tile<SIX>>::Group; TOKENS / SIX];
    const ZERO: Self::Group = [<W as Tile<SIX>>::ZERO; TOKENS / SIX];
    type Scratch = [Unpacked<STEPS>; GROUPS];
    const SCRATCH: Self::Scratch =
        [Unpacked { weights: [[[0; 32]; 2]; STEPS], block_scales: [[0.0; 8]; 2] }; GROUPS];

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut Self::Group) {
        for (t, out) in (t..lhs.m).step_by(SIX).zip(out) {
            <W as Tile<SIX>>::pack(lhs, t, group, out);
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
        let groups = piece.weights.chunks_exact(W::BYTES).zip(piece.block_scales);
        for (rows, (weights, b)) in rows.iter_mut().zip(groups) {
            W::unpack(weights, &mut rows.weights);
            for (out, b) in rows.block_scales.iter_mut().zip(W::block_scales(b)) {
                // SAFETY: (1) called from functions with these target features only; (2) (3) (4) eight
                // f32, borrowed exclusively.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), b) }
            }
        }
        let sixes = sums.tokens().div_ceil(SIX);
        for six in 0..sixes {
            let ask = share(panel.len(), sixes, six);
            let sums = sums.from(six * SIX);
            match sums.tokens() {
                ..=2 => add_six::<W, STEPS, 2>(panel, six, rows, &piece, ask, sums),
                3..=4 => add_six::<W, STEPS, 4>(panel, six, rows, &piece, ask, sums),
                _ => add_six::<W, STEPS, SIX>(panel, six, rows, &piece, ask, sums),
            }
        }
    }
}

/// What the groups of a panel give to the sums of `N` tokens, the first of a panel's `six`-th six. Meanwhile
/// the groups `ask` of the piece that comes next are asked for.
#[inline(always)]
fn add_six<W: Unpack<STEPS>, const STEPS: usize, const N: usize>(
    panel: &[[<W as Tile<SIX>>::Group; TOKENS / SIX]],
    six: usize,
    rows: &[Unpacked<STEPS>],
    piece: &Piece<'_>,
    ask: core::ops::Range<usize>,
    mut sums: Sums<'_, '_, 1>,
) {
    // SAFETY: (1) called from functions with these target features only.
    unsafe {
        let mut acc = load_sums::<N>(&mut sums, piece);
        for (g, (group, rows)) in panel.iter().zip(rows).enumerate() {
            if ask.contains(&g) {
                piece.ask_next(g, W::BYTES);
            }
            W::add_group::<N>(&mut acc, &group[six], rows);
        }
        store_sums(acc, &mut sums, piece);
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

/// Pairs of sums in 16 bits as one in 32.
#[inline]
#[target_feature(enable = "avx2")]
fn widened<const N: usize>(mut dots: [[__m256i; 2]; N]) -> [[__m256i; 2]; N] {
    let ones = _mm256_set1_epi16(1);
    for dot in dots.as_flattened_mut() {
        *dot = _mm256_madd_epi16(*dot, ones);
    }
    dots
}

#[inline]
#[target_feature(enable = "avx2")]
fn block_scales<const STEPS: usize>(rows: &Unpacked<STEPS>) -> [__m256; 2] {
    let [low, high] = &rows.block_scales;
    // SAFETY: (2) (3) eight f32 each, any alignment will do.
    unsafe { [_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())] }
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
