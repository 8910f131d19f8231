//! Products of several tokens at once: activations packed into panels, weights from the L2 cache.
//!
//! A tile is sixteen output rows of `M` tokens. Its activations come from a *panel*: for each
//! group the activations of all `M` tokens, in the order in which the tile uses them, so that one
//! pointer walks through it. A panel covers [`PANEL_GROUPS`] groups and fits the L1 cache beside a
//! piece of a record; wider rows are taken in several passes, with the sums kept in `dst`.

use core::ops::Range;

use crate::format::Encoding;
use crate::kernels::{Columns, QuantLhs};
use crate::quant::tile::{self, GROUP, ROWS};

/// Groups of a panel: 1024 inputs, 10 KB for eight tokens.
const PANEL_GROUPS: usize = 32;
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

    #[inline(always)]
    pub(super) fn set_q(&mut self, lhs: &QuantLhs<'_>, t: usize, group: usize) {
        let mut rows = rows(lhs, t, group);
        for i in 0..M {
            let row =
                rows.next().map_or(&[[0; 4]; 8], |row| row.as_chunks().0.as_array().expect("32"));
            for (q, four) in self.q.iter_mut().zip(row) {
                q[i] = *four;
            }
        }
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
}

impl<'a> Piece<'a> {
    #[inline(always)]
    fn of_record(record: &'a [u8], all: usize, groups: &Range<usize>, group_bytes: usize) -> Self {
        let (head, weights) = record.split_at(tile::weights_offset(all));
        let (row_scales, block_scales) = head.split_at(tile::ROW_SCALES_BYTES);
        let row_scales = bytemuck::cast_slice(row_scales).first_chunk();
        Self {
            block_scales: &block_scales.as_chunks().0[groups.clone()],
            weights: &weights[groups.start * group_bytes..groups.end * group_bytes],
            resume: groups.start > 0,
            row_scales: row_scales.filter(|_| groups.end == all),
        }
    }
}

/// Where the sums of a tile are: sixteen columns of some rows.
pub(super) struct Sums<'a, 'd> {
    dst: &'a mut Columns<'d>,
    t: usize,
    used: usize,
    block: usize,
}

impl Sums<'_, '_> {
    /// The sums of the `i`-th token, if there is one.
    #[inline(always)]
    pub(super) fn row(&mut self, i: usize) -> Option<&mut [f32; ROWS]> {
        (i < self.used).then(|| &mut self.dst.row_mut(self.t + i).as_chunks_mut().0[self.block])
    }
}

/// How an instruction set multiplies a group.
pub(super) trait Tile<const M: usize> {
    const ENCODING: Encoding;
    /// Bytes of a group of sixteen rows.
    const GROUP_BYTES: usize;
    /// Activations of one group and `M` tokens.
    type Group: Copy;
    const ZERO: Self::Group;
    /// Packs a group of the tokens from `t` on; those behind the last one are zero.
    fn pack(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut Self::Group);
    /// Adds what the groups of a panel give to the sums of each token.
    fn add(panel: &[Self::Group], piece: Piece<'_>, sums: Sums<'_, '_>);
}

/// The products of some tokens. Inlined into functions with the target features of `T`.
#[inline(always)]
pub(super) fn matmul<const M: usize, T: Tile<M>>(
    lhs: &QuantLhs<'_>,
    tokens: Range<usize>,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    let record_len = tile::record_len(T::ENCODING, lhs.groups * GROUP);
    let piece_len = PANEL_GROUPS.min(lhs.groups) * T::GROUP_BYTES;
    let at_once = (WEIGHTS_AT_ONCE / piece_len).max(1);
    let mut panel = [T::ZERO; PANEL_GROUPS];
    for (chunk, records) in records.chunks(at_once * record_len).enumerate() {
        for first in (0..lhs.groups).step_by(PANEL_GROUPS) {
            let groups = first..lhs.groups.min(first + PANEL_GROUPS);
            let panel = &mut panel[..groups.len()];
            for t in tokens.clone().step_by(M) {
                for (out, group) in panel.iter_mut().zip(groups.clone()) {
                    T::pack(lhs, t, group, out);
                }
                let used = M.min(tokens.end - t);
                for (i, record) in records.chunks_exact(record_len).enumerate() {
                    let piece = Piece::of_record(record, lhs.groups, &groups, T::GROUP_BYTES);
                    super::prefetch(piece.block_scales.as_flattened());
                    let block = chunk * at_once + i;
                    T::add(panel, piece, Sums { dst: &mut *dst, t, used, block });
                }
            }
        }
    }
}
