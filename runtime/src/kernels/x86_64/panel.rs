//! Products of several tokens at once: activations packed into panels, weights from the L2 cache.
//!
//! A tile is sixteen output rows, or `R` times as many, of up to `M` tokens. Its activations come
//! from a *panel*: for each group the activations of all `M` tokens, in the order in which the tile
//! uses them, so that one pointer walks through it. A panel covers `GROUPS` groups and fits the L1
//! cache beside a piece of a record; wider rows are taken in several passes, with the sums kept in
//! `dst`. Panels lie on the stack: 6 to 15 KB for few tokens, up to 157 KB with what is unpacked for many.

use core::marker::PhantomData;
use core::ops::Range;

use crate::format::Encoding;
use crate::kernels::x86_64::ahead;
use crate::kernels::{Columns, QuantLhs};
use crate::parallel::share_of_units;
use crate::quant::tile::{self, GROUP, QuantRecord, ROWS};

/// Bytes of weights that are used for one panel after the other: they should stay in the L2 cache.
const WEIGHTS_AT_ONCE: usize = 512 << 10;

/// Activations of one group and `M` tokens.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct PanelGroup<const M: usize> {
    /// Four inputs of each token, in the order of the weights.
    pub(super) q: [[[i8; 4]; M]; 8],
    pub(super) scales: [f32; M],
    /// What sums of products with unsigned weights begin at, in the form of the kernel.
    pub(super) offsets: [i32; M],
}

impl<const M: usize> PanelGroup<M> {
    pub(super) const ZERO: Self = Self { q: [[[0; 4]; M]; 8], scales: [0.0; M], offsets: [0; M] };

    #[inline(always)]
    pub(super) fn set_scales(&mut self, lhs: &QuantLhs<'_>, t: usize, group: usize) {
        set_scales(lhs, t, group, &mut self.scales);
    }
}

/// A group's scales of the tokens from `t` on; zero behind the last one.
#[inline(always)]
pub(super) fn set_scales<const M: usize>(
    lhs: &QuantLhs<'_>,
    t: usize,
    group: usize,
    out: &mut [f32; M],
) {
    *out = [0.0; M];
    for (i, scale) in out.iter_mut().enumerate().take(lhs.m - t) {
        *scale = lhs.scales[(t + i) * lhs.groups + group];
    }
}

/// A group's activations of each token from `t` on.
#[inline(always)]
pub(super) fn rows<'a>(
    lhs: &QuantLhs<'a>,
    t: usize,
    group: usize,
) -> impl Iterator<Item = &'a [i8; GROUP]> {
    let (q, stride) = (lhs.q, lhs.groups * GROUP);
    (t..lhs.m).map(move |t| q[t * stride + group * GROUP..].first_chunk().expect("a whole group"))
}

/// A piece of a record: what a panel is multiplied with.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) block_scales: &'a [[u8; ROWS]],
    pub(super) weights: &'a [u8],
    /// Whether sums of earlier pieces are in `dst`.
    pub(super) resume: bool,
    /// With the last piece: what the sums are multiplied with.
    pub(super) row_scales: Option<&'a [f32; ROWS]>,
    /// Weights to ask for meanwhile, if any: those of the piece that comes next.
    next: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Asks for what the next piece has where this one has a group: for the first tile weights come
    /// from memory, and a CPU that has to be asked (see `ahead`) waits for them, as does on every CPU who unpacks
    /// a whole piece before it multiplies.
    #[inline(always)]
    pub(super) fn ask_next(&self, group: usize, group_bytes: usize) {
        if let Some(weights) = self.next.get(group * group_bytes..(group + 1) * group_bytes) {
            super::prefetch(weights);
        }
    }

    /// Asks for the scales.
    #[inline(always)]
    fn ask_head(&self) {
        super::prefetch(self.block_scales.as_flattened());
        if let Some(row_scales) = self.row_scales {
            super::prefetch(bytemuck::cast_slice(row_scales));
        }
    }

    const EMPTY: Self =
        Self { block_scales: &[], weights: &[], resume: false, row_scales: None, next: &[] };

    #[inline(always)]
    fn of_record(record: &'a [u8], all: usize, groups: &Range<usize>, group_bytes: usize) -> Self {
        let record = QuantRecord::new(record, all);
        let row_scales = bytemuck::cast_slice(record.row_scales).first_chunk();
        Self {
            block_scales: &record.block_scales[groups.clone()],
            weights: &record.weights[groups.start * group_bytes..groups.end * group_bytes],
            resume: groups.start > 0,
            row_scales: row_scales.filter(|_| groups.end == all),
            next: &[],
        }
    }
}

/// Where the sums of a tile are: sixteen columns, or some times as many, of some rows.
pub(super) struct Sums<'a, 'd, const R: usize> {
    dst: &'a mut Columns<'d>,
    tokens: Range<usize>,
    /// Those of the records, of which the first `n` are meant.
    blocks: [usize; R],
    n: usize,
}

impl<'d, const R: usize> Sums<'_, 'd, R> {
    /// How many tokens the tile has.
    #[inline(always)]
    pub(super) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Those of the tokens from the `i`-th on.
    #[inline(always)]
    pub(super) fn from(&mut self, i: usize) -> Sums<'_, 'd, R> {
        let tokens = self.tokens.start + i..self.tokens.end;
        Sums { dst: &mut *self.dst, tokens, blocks: self.blocks, n: self.n }
    }

    /// The sums of the `i`-th token with the `r`-th record, if there are such.
    #[inline(always)]
    pub(super) fn row(&mut self, i: usize, r: usize) -> Option<&mut [f32; ROWS]> {
        let t = self.tokens.start + i;
        (t < self.tokens.end && r < self.n)
            .then(|| &mut self.dst.row_mut(t).as_chunks_mut().0[self.blocks[r]])
    }
}

/// How an instruction set multiplies a group of `R` records with up to `M` tokens.
pub(super) trait Tile<const M: usize, const R: usize = 1> {
    const ENCODING: Encoding;
    /// Bytes of a group of sixteen rows.
    const GROUP_BYTES: usize;
    /// Tokens that a tile has a multiple of, but for the last one.
    const UNIT: usize = 1;
    /// Whether what comes next is asked for on every CPU, not only on those that need it (see `ahead`).
    const ASKS_ALWAYS: bool = false;
    /// Activations of one group and `M` tokens.
    type Group: Copy;
    const ZERO: Self::Group;
    /// Room that a tile wants, whatever is in it.
    type Scratch;
    const SCRATCH: Self::Scratch;
    /// Packs a group of the tokens from `t` on, as many as a tile may have; those behind the last one are zero, or
    /// what was there if a whole part of the panel has none.
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut Self::Group);
    /// Adds what the groups of a panel give to the sums of its first `N` tokens. Pieces of records
    /// that `sums` does not have are copies of others.
    fn add<const N: usize>(
        panel: &[Self::Group],
        pieces: [Piece<'_>; R],
        sums: Sums<'_, '_, R>,
        scratch: &mut Self::Scratch,
    );
}

/// The products of all tokens, which are divided among as few tiles as can hold them; `TILES` of
/// them take turns with the weights in the L2 cache. Inlined into functions with the target features
/// of `T`.
#[inline(always)]
pub(super) fn matmul<
    const M: usize,
    const R: usize,
    const TILES: usize,
    const GROUPS: usize,
    T: Tile<M, R>,
>(
    lhs: &QuantLhs<'_>,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    const { assert!(M.is_multiple_of(T::UNIT)) };
    let tokens = lhs.m;
    let weights = Weights::<T, M, R>::new(lhs.groups, GROUPS, records);
    let tiles = tokens.div_ceil(M);
    let of_tile = |tile| share_of_units(tokens, T::UNIT, tiles, tile);
    let ask_next = T::ASKS_ALWAYS || ahead::is_needed();
    let mut panels = [[T::ZERO; GROUPS]; TILES];
    let mut scratch = T::SCRATCH;
    for first_tile in (0..tiles).step_by(TILES) {
        let panels = &mut panels[..TILES.min(tiles - first_tile)];
        for i in 0..weights.portions() {
            let portion = weights.portion(i);
            let next_portion = weights.portion((i + 1) % weights.portions());
            if portion.blocks.start == 0 {
                for (tile, panel) in (first_tile..).zip(&mut *panels) {
                    for (out, group) in panel.iter_mut().zip(portion.groups.clone()) {
                        T::pack(lhs, of_tile(tile).start, group, out);
                    }
                }
            }
            for (tile, panel) in (first_tile..).zip(&*panels) {
                let panel = &panel[..portion.groups.len()];
                // Each of the `R` records at once is the next of a stream of its own, which goes on
                // through memory: the hardware fetches it ahead.
                let steps = portion.blocks.len().div_ceil(R);
                for step in 0..steps {
                    let mut sums =
                        Sums { dst: &mut *dst, tokens: of_tile(tile), blocks: [0; R], n: 0 };
                    let mut pieces = [Piece::EMPTY; R];
                    for (r, piece) in pieces.iter_mut().enumerate() {
                        let block = portion.blocks.start + r * steps + step;
                        sums.blocks[r] = block;
                        sums.n += usize::from(block < portion.blocks.end);
                        let block = block.min(portion.blocks.end - 1);
                        *piece = weights.piece(&portion, block);
                        let next = weights.behind(&portion, &next_portion, block);
                        next.ask_head();
                        if ask_next && tile == first_tile {
                            piece.next = next.weights;
                        }
                    }
                    // Short tiles do less. Tokens are divided evenly, so there are none much shorter.
                    match (M, sums.tokens.len()) {
                        (6, ..=4) => T::add::<4>(panel, pieces, sums, &mut scratch),
                        (6, 5) => T::add::<5>(panel, pieces, sums, &mut scratch),
                        _ => T::add::<M>(panel, pieces, sums, &mut scratch),
                    }
                }
            }
        }
    }
}

/// What stays in the L2 cache while all tiles take their turn.
struct Portion {
    groups: Range<usize>,
    blocks: Range<usize>,
}

/// A matrix in portions.
struct Weights<'a, T, const M: usize, const R: usize> {
    records: &'a [u8],
    record_len: usize,
    /// Of a row.
    groups: usize,
    /// Of a portion.
    groups_at_once: usize,
    /// Sixteen rows each.
    blocks: usize,
    /// Of a portion.
    blocks_at_once: usize,
    tile: PhantomData<T>,
}

impl<'a, const M: usize, const R: usize, T: Tile<M, R>> Weights<'a, T, M, R> {
    #[inline(always)]
    fn new(groups: usize, groups_at_once: usize, records: &'a [u8]) -> Self {
        let record_len = tile::record_len(T::ENCODING, groups * GROUP);
        let piece_len = groups_at_once.min(groups) * T::GROUP_BYTES;
        Self {
            records,
            record_len,
            groups,
            groups_at_once,
            blocks: records.len() / record_len,
            blocks_at_once: (WEIGHTS_AT_ONCE / piece_len).next_multiple_of(R).max(R),
            tile: PhantomData,
        }
    }

    #[inline(always)]
    fn portions(&self) -> usize {
        self.groups.div_ceil(self.groups_at_once) * self.blocks.div_ceil(self.blocks_at_once)
    }

    /// All blocks of some groups, a portion at a time, then of the next groups.
    #[inline(always)]
    fn portion(&self, i: usize) -> Portion {
        let of_rows = self.blocks.div_ceil(self.blocks_at_once);
        let (group, block) = (i / of_rows * self.groups_at_once, i % of_rows * self.blocks_at_once);
        Portion {
            groups: group..self.groups.min(group + self.groups_at_once),
            blocks: block..self.blocks.min(block + self.blocks_at_once),
        }
    }

    #[inline(always)]
    fn piece(&self, portion: &Portion, block: usize) -> Piece<'a> {
        let record = &self.records[block * self.record_len..][..self.record_len];
        Piece::of_record(record, self.groups, &portion.groups, T::GROUP_BYTES)
    }

    /// The piece behind that of a block: the next block's, or the first of the next portion. (At the
    /// end of a stream that is not the last, this asks for what is there already.)
    #[inline(always)]
    fn behind(&self, portion: &Portion, next: &Portion, block: usize) -> Piece<'a> {
        if block + 1 < portion.blocks.end {
            self.piece(portion, block + 1)
        } else {
            self.piece(next, next.blocks.start)
        }
    }
}
