//! Matrix products of many tokens: a record's weights are unpacked once for six tokens after six tokens.
//! Fewer have a loop that unpacks as it multiplies (see `tiles`): for them unpacking, which is bound by
//! stores, would take longer than it saves.

use core::arch::x86_64::*;
use core::marker::PhantomData;

use super::matmul::{Few, Group, Nibbles, Q8};
use super::tiles::{
    SIX, add_products, add_scaled, add_wide_products, begin, even_and_odd, in_order, load_sums,
    rows, store_sums, store_tokens, widened,
};
use super::{Avx2, load};
use crate::format::Encoding;
use crate::kernels::generic::Lanes;
use crate::kernels::x86_64::panel::{self, PanelGroup, Piece, Sums, Tile};
use crate::kernels::x86_64::transpose_8x8;
use crate::kernels::{Columns, QuantLhs};
use crate::parallel::share;
use crate::quant::tile::ROWS;

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
    block_scales: [f32; ROWS],
}

/// How an encoding's groups are unpacked, activations packed for them, and both multiplied in `STEPS` steps.
pub(super) trait Unpack<const STEPS: usize>: Group + Tile<SIX> {
    /// Activations of a group and six tokens.
    type Six: Copy;
    const ZERO_SIX: Self::Six;
    fn unpack(weights: &[u8], out: &mut [Step; STEPS]);
    /// Packs a group of six tokens from `t` on; those behind the last one are zero.
    fn pack_six(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut Self::Six);
    /// Adds the products of `N` tokens.
    fn add_group<const N: usize>(
        acc: &mut [[__m256; 2]; N],
        group: &Self::Six,
        rows: &Unpacked<STEPS>,
    );
}

/// A group of q8: activations in 16 bits, as weights are, since products of bytes would not fit these.
/// Where weights are unpacked for each six tokens anew they are taken in pairs instead, which saves an
/// instruction there, but costs an addition more for each sum (see `tiles::WideGroup`).
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct WholeGroup {
    /// Of four inputs of each token the first and the third, then the others.
    q: [[[i16; 2]; SIX]; 16],
    scales: [f32; SIX],
}

impl Unpack<16> for Q8 {
    type Six = WholeGroup;
    const ZERO_SIX: WholeGroup = WholeGroup { q: [[[0; 2]; SIX]; 16], scales: [0.0; SIX] };

    #[inline(always)]
    fn unpack(weights: &[u8], out: &mut [Step; 16]) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let weights = weights.as_chunks().0.as_chunks::<2>().0;
            for (w, [even, odd]) in weights.iter().zip(out.as_chunks_mut().0) {
                let [low, high] = [even_and_odd(load(&w[0])), even_and_odd(load(&w[1]))];
                store([low[0], high[0]], even);
                store([low[1], high[1]], odd);
            }
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
    fn add_group<const N: usize>(
        acc: &mut [[__m256; 2]; N],
        group: &WholeGroup,
        rows: &Unpacked<16>,
    ) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let ([w, weights @ ..], [q, others @ ..]) = (&rows.weights, &group.q);
            let mut dots = [[_mm256_setzero_si256(); 2]; N];
            // The compiler leaves out what adds to zero.
            add_wide_products(&mut dots, [load(&w[0]), load(&w[1])], q);
            // Three at a time: on Intel's CPUs counting takes the ports of products and sums.
            let threes = weights.as_chunks::<3>().0.iter().zip(others.as_chunks::<3>().0);
            for (w, q) in threes {
                for (w, q) in w.iter().zip(q) {
                    add_wide_products(&mut dots, [load(&w[0]), load(&w[1])], q);
                    in_order(&mut dots);
                }
            }
            add_scaled(acc, dots, Avx2(()).load(&rows.block_scales), &group.scales);
        }
    }
}

impl<const BITS: u32> Unpack<8> for Few<BITS>
where
    Self: Nibbles,
{
    type Six = PanelGroup<SIX>;
    const ZERO_SIX: PanelGroup<SIX> = PanelGroup::ZERO;

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
    fn pack_six(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut PanelGroup<SIX>) {
        <Self as Tile<SIX>>::pack(lhs, t, group, out);
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
            // Two at a time: on Intel's CPUs counting takes the ports of products and sums.
            let twos = rows.weights.as_chunks::<2>().0.iter().zip(group.q.as_chunks::<2>().0);
            for (w, q) in twos {
                for (w, q) in w.iter().zip(q) {
                    add_products(&mut dots, [load(&w[0]), load(&w[1])], q);
                    in_order(&mut dots);
                }
            }
            add_scaled(acc, widened(dots), Avx2(()).load(&rows.block_scales), &group.scales);
        }
    }
}

pub(super) struct Many<W, const STEPS: usize>(PhantomData<W>);

impl<W: Unpack<STEPS>, const STEPS: usize> Tile<TOKENS> for Many<W, STEPS> {
    const ENCODING: Encoding = <W as Group>::ENCODING;
    const GROUP_BYTES: usize = W::BYTES;
    const UNIT: usize = SIX;
    type Group = [W::Six; TOKENS / SIX];
    const ZERO: Self::Group = [W::ZERO_SIX; TOKENS / SIX];
    type Scratch = [Unpacked<STEPS>; GROUPS];
    const SCRATCH: Self::Scratch =
        [Unpacked { weights: [[[0; 32]; 2]; STEPS], block_scales: [0.0; ROWS] }; GROUPS];

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
        let groups = piece.weights.chunks_exact(W::BYTES).zip(piece.block_scales);
        for (rows, (weights, b)) in rows.iter_mut().zip(groups) {
            W::unpack(weights, &mut rows.weights);
            // SAFETY: (1) called from functions with these target features only.
            unsafe { store_scales(W::block_scales(b), &mut rows.block_scales) }
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
    panel: &[[W::Six; TOKENS / SIX]],
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

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_scales(scales: [__m256; 2], to: &mut [f32; ROWS]) {
    Avx2(()).store(scales, to);
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
