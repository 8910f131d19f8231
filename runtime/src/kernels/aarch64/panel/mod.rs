//! Products of six tokens at once, with all of the CPU's vector registers.
//!
//! Eight output rows of six tokens take twelve registers of integer sums and twelve of f32 sums;
//! activations and weights pass through the other eight. Both are laid out beforehand in the order
//! in which the loop reads them, so that it loads four registers with one instruction and computes
//! no address:
//!
//! - a *panel* is the activations and scales of six tokens, packed once for all rows;
//! - a record is *unpacked*, nibbles to bytes and block scales to f32, once for all panels.
//!
//! Both are on the stack, 73 KB with `sdot`, 79 KB with `smmla`: [`GROUPS`] groups at a time for
//! [`PANELS`] panels. Of those one and half a record are in use at a time; the others are read one
//! after another. Sums of earlier groups wait in `dst`.

use core::arch::aarch64::*;
use core::ops::Range;

use bytemuck::Pod;

use super::dot::{Group, Record};
use crate::kernels::{Columns, QuantLhs};
use crate::quant::tile::{self, GROUP, ROWS};

pub(super) mod sdot;
pub(super) mod smmla;

/// Tokens of a panel.
pub(super) const TOKENS: usize = 6;
/// Groups of a panel, at most: 768 inputs, the width of the smallest GPT-2.
const GROUPS: usize = 24;
/// Panels that a record is unpacked for: two rounds for a batch of 128 tokens.
const PANELS: usize = 11;

/// How an instruction set multiplies.
pub(super) trait Form: Sized {
    /// Activations of six tokens in one group, with their scales.
    type Panel: Pod;
    /// Weights of eight rows in one group, with their block scales.
    type Rows: Pod;
    /// Packs group `g` of the tokens from `t` on; there are `used` of them, and zeros behind.
    fn pack(lhs: &QuantLhs<'_>, t: usize, used: usize, g: usize, out: &mut Self::Panel);
    /// Unpacks both halves of a group.
    fn unpack<G: Group>(tiles: &G::Tiles, block_scales: int8x16_t, out: [&mut Self::Rows; 2]);
    /// The products of a piece: eight columns of `dst` for the tokens of its panels, from token
    /// `place.0` and column `place.1` on.
    fn multiply<G: Group>(piece: &Piece<'_, Self>, dst: &mut Columns<'_>, place: (usize, usize));
}

/// How many of `m` tokens go through panels, if at least `least` do.
pub(super) fn tokens(m: usize, least: usize) -> usize {
    match m % TOKENS {
        _ if m < least => 0,
        rest @ 1..4 => m - rest,
        _ => m,
    }
}

/// The products of some tokens. Inlined into functions with the target features of `F`.
#[inline(always)]
pub(super) fn matmul<F: Form, G: Group>(
    lhs: &QuantLhs<'_>,
    tokens: Range<usize>,
    records: &[u8],
    dst: &mut Columns<'_>,
) {
    let record_len = tile::record_len(G::ENCODING, lhs.groups * GROUP);
    // Pieces of about the same length.
    let step = lhs.groups.div_ceil(lhs.groups.div_ceil(GROUPS));
    let mut panels: [[F::Panel; GROUPS]; PANELS] = bytemuck::Zeroable::zeroed();
    let mut rows: [[F::Rows; GROUPS]; 2] = bytemuck::Zeroable::zeroed();
    for t in tokens.clone().step_by(PANELS * TOKENS) {
        let tokens = t..tokens.end.min(t + PANELS * TOKENS);
        for first in (0..lhs.groups).step_by(step) {
            let groups = first..lhs.groups.min(first + step);
            for (panel, t) in panels.iter_mut().zip(tokens.clone().step_by(TOKENS)) {
                for (out, g) in panel.iter_mut().zip(groups.clone()) {
                    F::pack(lhs, t, TOKENS.min(tokens.end - t), g, out);
                }
            }
            for (block, record) in records.chunks_exact(record_len).enumerate() {
                let record = Record::<G>::new(record, lhs.groups);
                let [low, high] = &mut rows;
                let outs = low.iter_mut().zip(high);
                for ((low, high), g) in outs.zip(groups.clone()) {
                    F::unpack::<G>(&record.weights[g], record.block_scales[g], [low, high]);
                }
                let (begun, last) = (groups.start > 0, groups.end == lhs.groups);
                for (half, rows) in rows.iter().enumerate() {
                    let column = block * ROWS + half * 8;
                    let row_scales = record.row_scales.as_chunks().0.get(half).filter(|_| last);
                    let rows = &rows[..groups.len()];
                    let (panels, rest) =
                        panels[..tokens.len().div_ceil(TOKENS)].split_at(tokens.len() / TOKENS);
                    let piece = Piece::<F> { panels, rows, begun, row_scales };
                    if !panels.is_empty() {
                        F::multiply::<G>(&piece, dst, (tokens.start, column));
                    }
                    if !rest.is_empty() {
                        let first = tokens.end - tokens.len() % TOKENS;
                        fewer::<F, G>(
                            Piece { panels: rest, ..piece },
                            dst,
                            (first..tokens.end, column),
                        );
                    }
                }
            }
        }
    }
}

/// The sums of a panel that is not full, with zeros for the tokens that it has not.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Padded([f32; TOKENS * 8]);

/// The products of one panel of fewer than six tokens.
#[inline(always)]
fn fewer<F: Form, G: Group>(
    piece: Piece<'_, F>,
    dst: &mut Columns<'_>,
    (tokens, column): (Range<usize>, usize),
) {
    let mut padded = Padded([0.0; TOKENS * 8]);
    let columns = column..column + 8;
    if piece.begun {
        for (padded, t) in padded.0.as_chunks_mut::<8>().0.iter_mut().zip(tokens.clone()) {
            padded.copy_from_slice(&dst.row_mut(t)[columns.clone()]);
        }
    }
    F::multiply::<G>(&piece, &mut Columns::new(&mut padded.0, 8), (0, 0));
    for (padded, t) in padded.0.as_chunks::<8>().0.iter().zip(tokens) {
        dst.row_mut(t)[columns.clone()].copy_from_slice(padded);
    }
}

/// An instruction on each integer sum, registers 8 to 19, in place.
macro_rules! each_sum {
    ($name:literal, $last:literal) => {
        each_sum!($name, $last, "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19")
    };
    ($name:literal, $last:literal, $($sum:literal),*) => {
        concat!($($name, " ", $sum, ".4s, ", $sum, ".4s", $last, "\n"),*)
    };
}
use each_sum;

/// What sums begin with: three loads of four registers, where `movi` would take twelve.
static ZEROS: [[i32; 4]; 4] = [[0; 4]; 4];

/// Eight rows of some panels.
pub(super) struct Piece<'a, F: Form> {
    panels: &'a [[F::Panel; GROUPS]],
    rows: &'a [F::Rows],
    /// Whether sums of earlier groups wait in the destination.
    begun: bool,
    /// After the last groups: what the sums are multiplied with.
    row_scales: Option<&'a [float32x4_t; 2]>,
}

/// A whole [`Piece`]: for each panel all groups in turn, `$groups!(…)` of inline assembly, which
/// reads on at `panel` and `row` and adds to registers 20 to 31 what it summed up in registers 8 to
/// 19, with its other operands in 0 to 7. `$enter!()` loads the sums from `at`, `$leave!(…)` stores
/// them at `dst`, multiplied with registers 6 and 7; both go on by `stride` six times.
///
/// Written by hand because it takes all 32 registers: a compiler would spill some.
macro_rules! panel_loop {
    (zeros $a:literal, $b:literal, $c:literal) => {
        concat!(
            "ld1 {{", $a, "}}, [{zeros}]\n",
            "ld1 {{", $b, "}}, [{zeros}]\n",
            "ld1 {{", $c, "}}, [{zeros}]\n",
        )
    };
    (group $groups:ident $fraction:literal) => {
        concat!(
            panel_loop!(zeros "v8.4s-v11.4s", "v12.4s-v15.4s", "v16.4s-v19.4s"),
            $groups!($fraction),
        )
    };
    ($fraction:expr, $piece:expr, $dst:expr, $place:expr, $groups:ident, $enter:ident, $leave:ident) => {{
        match $fraction {
            0 => panel_loop!(@ "", $piece, $dst, $place, $groups, $enter, $leave),
            4 => panel_loop!(@ ", #4", $piece, $dst, $place, $groups, $enter, $leave),
            5 => panel_loop!(@ ", #5", $piece, $dst, $place, $groups, $enter, $leave),
            _ => unreachable!("no encoding has another one"),
        }
    }};
    (
        @ $fraction:literal, $piece:expr, $dst:expr, $place:expr,
        $groups:ident, $enter:ident, $leave:ident
    ) => {{
        let (piece, (t, column)) = ($piece, $place);
        let (n, panels) = (piece.rows.len(), piece.panels.len());
        assert!((1..=super::GROUPS).contains(&n) && panels > 0);
        let (dst, stride) = $dst.part_mut(t..t + panels * TOKENS, column..column + 8);
        // SAFETY: (1) by the target features of this function; (2) (3) a panel's groups and the
        // rows' are read in turn, as many as there are rows, no more than a panel has; both are
        // aligned to 16 bytes; beside these the four zeros and, if not null, two registers of
        // scales; (4) what it writes, and reads before, are eight columns of six tokens for each
        // panel, which `part_mut` showed to belong to `dst`.
        unsafe {
            asm!(
                "5:",
                "mov {row}, {rows}",
                "add {left}, {n}, #3",
                "cbz {begun}, 6f",
                $enter!(),
                "b 7f",
                "6:",
                panel_loop!(zeros "v20.4s-v23.4s", "v24.4s-v27.4s", "v28.4s-v31.4s"),
                // Four groups a round; other numbers begin in the middle.
                "7:",
                "and {left}, {left}, #-4",
                "tbz {n}, #0, 8f",
                "tbz {n}, #1, 13f",
                "b 11f",
                "8:",
                "tbnz {n}, #1, 12f",
                "9:",
                panel_loop!(group $groups $fraction),
                "11:",
                panel_loop!(group $groups $fraction),
                "12:",
                panel_loop!(group $groups $fraction),
                "13:",
                panel_loop!(group $groups $fraction),
                "subs {left}, {left}, #4",
                "b.ne 9b",
                "cbz {scales}, 14f",
                "ldp q6, q7, [{scales}]",
                $leave!(scaled),
                "b 15f",
                "14:",
                $leave!(plain),
                "15:",
                "add {panel}, {panel}, {skip}",
                "subs {panels}, {panels}, #1",
                "b.ne 5b",
                panel = inout(reg) piece.panels.as_ptr() => _,
                panels = inout(reg) panels => _,
                // What a panel has beside the groups that are read.
                skip = in(reg) (super::GROUPS - n) * size_of::<Panel>(),
                rows = in(reg) piece.rows.as_ptr(),
                row = out(reg) _,
                n = in(reg) n,
                left = out(reg) _,
                begun = in(reg) usize::from(piece.begun),
                scales = in(reg) piece.row_scales.map_or(core::ptr::null(), core::ptr::from_ref),
                dst = inout(reg) dst => _,
                at = out(reg) _,
                stride = in(reg) stride * size_of::<f32>(),
                zeros = in(reg) &super::ZEROS,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _,
                out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                out("v12") _, out("v13") _, out("v14") _, out("v15") _, out("v16") _, out("v17") _,
                out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
                out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _,
                out("v30") _, out("v31") _,
                options(nostack),
            );
        }
    }};
}
use panel_loop;
