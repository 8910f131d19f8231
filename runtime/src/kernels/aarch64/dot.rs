//! Integer kernels, written once over the way in which bytes are multiplied.
//!
//! Every function is `inline(always)`: it must be inlined into a function that has the target
//! features of `D`, or its operations would become calls. For the same reason arrays are filled by
//! loops, not by closures.

use core::arch::aarch64::*;

use bytemuck::Pod;

use super::neon::Neon;
use crate::format::Encoding;
use crate::kernels::generic::Lanes;
use crate::kernels::{Columns, QuantLhs};
use crate::math::Simd;
use crate::quant::tile::{self, GROUP, Q3_GROUP_BYTES, Q4_GROUP_BYTES, Q8_GROUP_BYTES, ROWS};

/// Four inputs of sixteen rows, or eight in nibbles: four registers, aligned as records are.
///
/// Loads that say so stay whole where the build must not rely on unaligned access.
pub(super) type Tile = [int8x16_t; 4];

/// How a set multiplies bytes. Weights come as registers of four inputs of four rows.
///
/// A value is the proof that the CPU has the instructions.
pub(super) trait Dot: Copy {
    /// Sixteen activations, ready to be multiplied with.
    type Lhs: Copy;
    /// Sums of products of signed bytes for four rows.
    type Sums: Copy;
    /// Sums of products with nibbles, 0..=15, for four rows and at most a group of 32.
    type NibbleSums: Copy;

    fn lhs(self, q: &[i8; 16]) -> Self::Lhs;

    fn zero(self) -> Self::Sums;
    /// Adds the products of sixteen inputs.
    fn add(self, sums: Self::Sums, w: [int8x16_t; 4], lhs: Self::Lhs) -> Self::Sums;
    fn total(self, sums: Self::Sums) -> int32x4_t;

    /// `offset` as in [`Self::nibble_total`].
    fn nibble_zero(self, offset: i32) -> Self::NibbleSums;
    fn nibble_add(
        self,
        sums: Self::NibbleSums,
        w: [int8x16_t; 4],
        lhs: Self::Lhs,
    ) -> Self::NibbleSums;
    /// The sums, less `offset`: nibbles stand for −8..=7 in q4, so that it is 8 times the sum of
    /// the activations.
    fn nibble_total(self, sums: Self::NibbleSums, offset: i32) -> int32x4_t;
}

#[inline(always)]
pub(super) fn load(from: &[u8; 16]) -> int8x16_t {
    // SAFETY: (1) NEON, by the build's target; (2) (3) a reference to 16 bytes, any alignment
    // will do.
    unsafe { vld1q_s8(from.as_ptr().cast()) }
}

/// How an encoding's groups are multiplied.
pub(super) trait Group {
    const ENCODING: Encoding;
    /// The tiles of a group.
    type Tiles: Pod;
    /// Integer sums of a group for `M` tokens and `QUADS` times four rows from `4 · first` on.
    fn dot<D: Dot, const M: usize, const QUADS: usize>(
        d: D,
        tiles: &Self::Tiles,
        first: usize,
        q: [&[[i8; 16]; 2]; M],
        sums: [i32; M],
    ) -> [[int32x4_t; QUADS]; M];
    /// A block scale as a number, from its byte moved to the top of a lane.
    fn block_scale(top: int32x4_t) -> float32x4_t;
    /// [`Self::eight_inputs`] gives weights times a power of two: which.
    const FRACTION: u32;
    /// Inputs `8j..8j + 4` and `8j + 4..8j + 8` of four rows, as signed bytes.
    fn eight_inputs(tiles: &Self::Tiles, j: usize, quad: usize) -> [int8x16_t; 2];
}

pub(super) struct Q8;
pub(super) struct Q4;
pub(super) struct Q3;

impl Group for Q8 {
    const ENCODING: Encoding = Encoding::Q8;
    type Tiles = [Tile; Q8_GROUP_BYTES / 64];

    #[inline(always)]
    fn dot<D: Dot, const M: usize, const QUADS: usize>(
        d: D,
        tiles: &Self::Tiles,
        first: usize,
        q: [&[[i8; 16]; 2]; M],
        _: [i32; M],
    ) -> [[int32x4_t; QUADS]; M] {
        let mut sums = [[d.zero(); QUADS]; M];
        for (half, tiles) in tiles.as_chunks::<4>().0.iter().enumerate() {
            let mut lhs = [d.lhs(&q[0][half]); M];
            for i in 1..M {
                lhs[i] = d.lhs(&q[i][half]);
            }
            for quad in 0..QUADS {
                let (a, b) = (tiles[0][first + quad], tiles[1][first + quad]);
                let (c, e) = (tiles[2][first + quad], tiles[3][first + quad]);
                for i in 0..M {
                    sums[i][quad] = d.add(sums[i][quad], [a, b, c, e], lhs[i]);
                }
            }
        }
        let mut totals = [[d.total(sums[0][0]); QUADS]; M];
        for i in 0..M {
            for quad in 0..QUADS {
                totals[i][quad] = d.total(sums[i][quad]);
            }
        }
        totals
    }

    #[inline(always)]
    fn block_scale(top: int32x4_t) -> float32x4_t {
        // SAFETY: (1) NEON, by the build's target.
        unsafe { vcvtq_n_f32_u32::<24>(vreinterpretq_u32_s32(top)) }
    }

    const FRACTION: u32 = 0;
    #[inline(always)]
    fn eight_inputs(tiles: &Self::Tiles, j: usize, quad: usize) -> [int8x16_t; 2] {
        [tiles[2 * j][quad], tiles[2 * j + 1][quad]]
    }
}

/// An encoding whose groups are four tiles of nibbles.
pub(super) trait Nibbles {
    const ENCODING: Encoding;
    /// The tiles that are stored.
    type Tiles: Pod;
    /// What is added to weights to make them unsigned, as a power of two.
    const OFFSET_SHIFT: u32;
    /// As in [`Group`].
    const FRACTION: u32;
    /// Four rows of tile `j`.
    fn tile(tiles: &Self::Tiles, j: usize, quad: usize) -> int8x16_t;
    /// The low nibbles of a tile, and the high ones.
    fn unsigned(w: int8x16_t) -> [int8x16_t; 2];
    /// What they stand for, times a power of two.
    fn signed(w: int8x16_t) -> [int8x16_t; 2];
}

impl Nibbles for Q4 {
    const ENCODING: Encoding = Encoding::Q4;
    type Tiles = [Tile; Q4_GROUP_BYTES / 64];
    const OFFSET_SHIFT: u32 = 3;
    const FRACTION: u32 = 4;

    #[inline(always)]
    fn tile(tiles: &Self::Tiles, j: usize, quad: usize) -> int8x16_t {
        tiles[j][quad]
    }
    #[inline(always)]
    fn unsigned(w: int8x16_t) -> [int8x16_t; 2] {
        // SAFETY: (1) NEON, by the build's target.
        unsafe {
            let w = vreinterpretq_u8_s8(w);
            let low = vandq_u8(w, vdupq_n_u8(15));
            [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(vshrq_n_u8::<4>(w))]
        }
    }
    /// A nibble less 8 is the nibble with its first bit turned, in two's complement; at the top of
    /// a byte it needs no extension of its sign.
    #[inline(always)]
    fn signed(w: int8x16_t) -> [int8x16_t; 2] {
        // SAFETY: (1) NEON, by the build's target.
        unsafe {
            let w = veorq_s8(w, vdupq_n_s8(0x88_u8 as i8));
            [vshlq_n_s8::<4>(w), vandq_s8(w, vdupq_n_s8(0xf0_u8 as i8))]
        }
    }
}

impl Nibbles for Q3 {
    const ENCODING: Encoding = Encoding::Q3;
    type Tiles = [Tile; Q3_GROUP_BYTES / 64];
    const OFFSET_SHIFT: u32 = 2;
    const FRACTION: u32 = 5;

    /// The fourth is in the last bits of the others' nibbles; its own last bits are anything.
    #[inline(always)]
    fn tile(tiles: &Self::Tiles, j: usize, quad: usize) -> int8x16_t {
        if j < 3 {
            return tiles[j][quad];
        }
        // SAFETY: (1) NEON, by the build's target.
        unsafe {
            let a = vshrq_n_u8::<3>(vreinterpretq_u8_s8(tiles[0][quad]));
            let b = vshrq_n_u8::<2>(vreinterpretq_u8_s8(tiles[1][quad]));
            let c = vshrq_n_u8::<1>(vreinterpretq_u8_s8(tiles[2][quad]));
            let bc = vbslq_u8(vdupq_n_u8(0x22), b, c);
            vreinterpretq_s8_u8(vbslq_u8(vdupq_n_u8(0x11), a, bc))
        }
    }
    #[inline(always)]
    fn unsigned(w: int8x16_t) -> [int8x16_t; 2] {
        // SAFETY: (1) NEON, by the build's target.
        unsafe {
            let (w, mask) = (vreinterpretq_u8_s8(w), vdupq_n_u8(7));
            let [low, high] = [vandq_u8(w, mask), vandq_u8(vshrq_n_u8::<4>(w), mask)];
            [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high)]
        }
    }
    /// As in q4, with three bits at the top of a byte.
    #[inline(always)]
    fn signed(w: int8x16_t) -> [int8x16_t; 2] {
        // SAFETY: (1) NEON, by the build's target.
        unsafe {
            let w = veorq_s8(w, vdupq_n_s8(0x44));
            [vshlq_n_s8::<5>(w), vandq_s8(vshlq_n_s8::<1>(w), vdupq_n_s8(0xe0_u8 as i8))]
        }
    }
}

impl<N: Nibbles> Group for N {
    const ENCODING: Encoding = N::ENCODING;
    type Tiles = N::Tiles;

    #[inline(always)]
    fn dot<D: Dot, const M: usize, const QUADS: usize>(
        d: D,
        tiles: &Self::Tiles,
        first: usize,
        q: [&[[i8; 16]; 2]; M],
        activation_sums: [i32; M],
    ) -> [[int32x4_t; QUADS]; M] {
        let mut sums = [[d.nibble_zero(activation_sums[0] << N::OFFSET_SHIFT); QUADS]; M];
        for i in 1..M {
            sums[i] = [d.nibble_zero(activation_sums[i] << N::OFFSET_SHIFT); QUADS];
        }
        for half in 0..2 {
            let mut lhs = [d.lhs(&q[0][half]); M];
            for i in 1..M {
                lhs[i] = d.lhs(&q[i][half]);
            }
            for quad in 0..QUADS {
                let [a, b] = N::unsigned(N::tile(tiles, 2 * half, first + quad));
                let [c, e] = N::unsigned(N::tile(tiles, 2 * half + 1, first + quad));
                for i in 0..M {
                    sums[i][quad] = d.nibble_add(sums[i][quad], [a, b, c, e], lhs[i]);
                }
            }
        }
        let first = d.nibble_total(sums[0][0], activation_sums[0] << N::OFFSET_SHIFT);
        let mut totals = [[first; QUADS]; M];
        for i in 0..M {
            let offset = activation_sums[i] << N::OFFSET_SHIFT;
            for quad in 0..QUADS {
                totals[i][quad] = d.nibble_total(sums[i][quad], offset);
            }
        }
        totals
    }

    #[inline(always)]
    fn block_scale(top: int32x4_t) -> float32x4_t {
        // SAFETY: (1) NEON, by the build's target.
        unsafe { vcvtq_n_f32_s32::<24>(top) }
    }

    const FRACTION: u32 = N::FRACTION;
    #[inline(always)]
    fn eight_inputs(tiles: &Self::Tiles, j: usize, quad: usize) -> [int8x16_t; 2] {
        N::signed(N::tile(tiles, j, quad))
    }
}

/// The parts of a record, as registers.
pub(super) struct Record<'a, G: Group> {
    pub(super) row_scales: &'a [float32x4_t],
    /// `[groups]`
    pub(super) block_scales: &'a [int8x16_t],
    /// `[groups]`
    pub(super) weights: &'a [G::Tiles],
}

impl<'a, G: Group> Record<'a, G> {
    #[inline(always)]
    pub(super) fn new(record: &'a [u8], groups: usize) -> Self {
        let (head, weights) = record.split_at(tile::weights_offset(groups));
        let (row_scales, block_scales) = head.split_at(tile::ROW_SCALES_BYTES);
        Self {
            row_scales: &bytemuck::cast_slice(row_scales)[..4],
            block_scales: &bytemuck::cast_slice(block_scales)[..groups],
            weights: &bytemuck::cast_slice(weights)[..groups],
        }
    }
}

/// The activations of `M` tokens, `[groups]` each.
pub(super) struct Tokens<'a, const M: usize> {
    pub(super) q: [&'a [[[i8; 16]; 2]]; M],
    pub(super) scales: [&'a [f32]; M],
    pub(super) sums: [&'a [i32]; M],
}

impl<'a, const M: usize> Tokens<'a, M> {
    /// Those from token `t` on.
    #[inline(always)]
    pub(super) fn new(lhs: &QuantLhs<'a>, t: usize) -> Self {
        let groups = lhs.groups;
        let q: &[[[i8; 16]; 2]] = lhs.q.as_chunks().0.as_chunks().0;
        let mut out = Self { q: [&[]; M], scales: [&[]; M], sums: [&[]; M] };
        for i in 0..M {
            let at = (t + i) * groups;
            out.q[i] = &q[at..][..groups];
            out.scales[i] = &lhs.scales[at..][..groups];
            out.sums[i] = &lhs.sums[at..][..groups];
        }
        out
    }

    /// Activations and their sum in one group.
    #[inline(always)]
    fn group(&self, g: usize) -> ([&'a [[i8; 16]; 2]; M], [i32; M]) {
        let (mut q, mut sums) = ([&self.q[0][g]; M], [self.sums[0][g]; M]);
        for i in 1..M {
            (q[i], sums[i]) = (&self.q[i][g], self.sums[i][g]);
        }
        (q, sums)
    }
}

/// For each group of four lanes, where its bytes go: to the top of a 32-bit lane.
pub(super) const TOPS: [[u8; 16]; 4] = {
    let mut tops = [[255; 16]; 4];
    let mut lane = 0;
    while lane < ROWS {
        tops[lane / 4][lane % 4 * 4 + 3] = lane as u8;
        lane += 1;
    }
    tops
};

/// The tokens from `from` on: `M` at a time and `QUADS` (two or four) times four rows, then what is
/// left of four by twos, then single tokens.
#[inline(always)]
pub(super) fn matmul<D: Dot, G: Group, const M: usize, const QUADS: usize>(
    d: D,
    lhs: &QuantLhs<'_>,
    from: usize,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    let record_len = tile::record_len(G::ENCODING, lhs.groups * GROUP);
    for (block, record) in records.chunks_exact(record_len).enumerate() {
        let mut t = from;
        while lhs.m - t >= M {
            for first in (0..4).step_by(QUADS) {
                rows::<D, G, M, QUADS>(d, lhs, t, record, block, first, dst);
            }
            t += M;
        }
        if M == 4 && lhs.m - t >= 2 {
            rows::<D, G, 2, 4>(d, lhs, t, record, block, 0, dst);
            t += 2;
        }
        while t < lhs.m {
            rows::<D, G, 1, 4>(d, lhs, t, record, block, 0, dst);
            t += 1;
        }
    }
}

/// `QUADS` times four output rows, from `4 · first` on, of `M` tokens from token `t` on.
#[inline(always)]
pub(super) fn rows<D: Dot, G: Group, const M: usize, const QUADS: usize>(
    d: D,
    lhs: &QuantLhs<'_>,
    t: usize,
    record: &[u8],
    block: usize,
    first: usize,
    dst: &mut Columns<'_>,
) {
    let groups = lhs.groups;
    let Record { row_scales, block_scales, weights } = Record::<G>::new(record, groups);
    let tokens = Tokens::<M>::new(lhs, t);
    // SAFETY: (1) NEON, by the build's target; (2) (3) (4) the loads and stores are of four f32
    // that are indexed as a whole.
    unsafe {
        let mut tops = [vdupq_n_u8(0); QUADS];
        for quad in 0..QUADS {
            tops[quad] = vreinterpretq_u8_s8(load(&TOPS[first + quad]));
        }
        let mut acc = [[vdupq_n_f32(0.0); QUADS]; M];
        for g in 0..groups {
            let (q, sums) = tokens.group(g);
            let dots = G::dot::<D, M, QUADS>(d, &weights[g], first, q, sums);
            let b = block_scales[g];
            for quad in 0..QUADS {
                let b = G::block_scale(vreinterpretq_s32_s8(vqtbl1q_s8(b, tops[quad])));
                for i in 0..M {
                    let scale = vmulq_n_f32(b, tokens.scales[i][g]);
                    acc[i][quad] = vfmaq_f32(acc[i][quad], vcvtq_f32_s32(dots[i][quad]), scale);
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            let out = &mut dst.row_mut(t + i).as_chunks_mut::<16>().0[block];
            for quad in 0..QUADS {
                let s = row_scales[first + quad];
                let four: &mut [f32; 4] = &mut out.as_chunks_mut().0[first + quad];
                vst1q_f32(four.as_mut_ptr(), vmulq_f32(acc[quad], s));
            }
        }
    }
}

/// The scores of some queries, one by one.
#[inline(always)]
pub(super) fn scores_q8<D: Dot>(
    d: D,
    queries: &[i8],
    scales: &[f32],
    keys: &[i8],
    key_scales: &[f32],
    scores: &mut [f32],
) {
    let (hd, slots) = (queries.len() / scales.len(), scores.len() / scales.len());
    let keys: &[[[[u8; 16]; 4]; 4]] = bytemuck::cast_slice(keys);
    let rows = queries.chunks_exact(hd).zip(scores.chunks_exact_mut(slots));
    for ((query, scores), &scale) in rows.zip(scales) {
        let query = query.as_chunks::<16>().0;
        let tiles = scores.as_chunks_mut::<16>().0.iter_mut().zip(key_scales.as_chunks::<16>().0);
        for ((scores, key_scales), keys) in tiles.zip(keys.chunks_exact(query.len())) {
            let mut dots = [d.zero(); 4];
            for (q, tile) in query.iter().zip(keys) {
                let q = d.lhs(q);
                // Not a loop: the compiler would keep the sums in memory.
                dots[0] = dots_of_four::<_, 0>(d, tile, q, dots[0]);
                dots[1] = dots_of_four::<_, 1>(d, tile, q, dots[1]);
                dots[2] = dots_of_four::<_, 2>(d, tile, q, dots[2]);
                dots[3] = dots_of_four::<_, 3>(d, tile, q, dots[3]);
            }
            let s = Neon::new();
            let scale = s.mul(s.load(key_scales), s.splat(scale));
            s.store(s.mul(totals(d, dots), scale), scores);
        }
    }
}

/// Adds the products of four keys and a query, of sixteen dimensions.
#[inline(always)]
fn dots_of_four<D: Dot, const QUAD: usize>(
    d: D,
    [a, b, c, e]: &[[[u8; 16]; 4]; 4],
    q: D::Lhs,
    dots: D::Sums,
) -> D::Sums {
    d.add(dots, [load(&a[QUAD]), load(&b[QUAD]), load(&c[QUAD]), load(&e[QUAD])], q)
}

/// `QUADS` times four dimensions at once, from dimension `from` on, a multiple of sixteen.
#[inline(always)]
pub(super) fn values_q8<D: Dot, const QUADS: usize>(
    d: D,
    high: &[i8],
    low: &[i8],
    scale: f32,
    values: &[i8],
    out: &mut [f32],
    from: usize,
) {
    let columns = out.len() / 16;
    let values: &[[[u8; 16]; 4]] = bytemuck::cast_slice(values);
    for (column, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate().skip(from / 16) {
        for first in (0..4).step_by(QUADS) {
            let mut sums = [[d.zero(); QUADS]; 2];
            let weights = high.as_chunks::<16>().0.iter().zip(low.as_chunks::<16>().0);
            for ((h, l), rows) in weights.zip(values.chunks_exact(4 * columns)) {
                let (h, l) = (d.lhs(h), d.lhs(l));
                for quad in 0..QUADS {
                    let (a, b) = (&rows[column], &rows[columns + column]);
                    let (c, e) = (&rows[2 * columns + column], &rows[3 * columns + column]);
                    let (a, b) = (load(&a[first + quad]), load(&b[first + quad]));
                    let (c, e) = (load(&c[first + quad]), load(&e[first + quad]));
                    sums[0][quad] = d.add(sums[0][quad], [a, b, c, e], h);
                    sums[1][quad] = d.add(sums[1][quad], [a, b, c, e], l);
                }
            }
            for quad in 0..QUADS {
                let four: &mut [f32; 4] = &mut out.as_chunks_mut().0[first + quad];
                // SAFETY: (1) NEON, by the build's target; (2) (3) (4) an exclusive reference
                // to four f32.
                unsafe {
                    let high = vcvtq_f32_s32(d.total(sums[0][quad]));
                    let low = vcvtq_f32_s32(d.total(sums[1][quad]));
                    let sum = vfmaq_f32(low, high, vdupq_n_f32(128.0));
                    vst1q_f32(four.as_mut_ptr(), vmulq_n_f32(sum, scale));
                }
            }
        }
    }
}

#[inline(always)]
fn totals<D: Dot>(d: D, sums: [D::Sums; 4]) -> [float32x4_t; 4] {
    let [a, b, c, e] = sums;
    // SAFETY: (1) NEON, by the build's target.
    unsafe {
        [
            vcvtq_f32_s32(d.total(a)),
            vcvtq_f32_s32(d.total(b)),
            vcvtq_f32_s32(d.total(c)),
            vcvtq_f32_s32(d.total(e)),
        ]
    }
}
