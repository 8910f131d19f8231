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

/// f32 sums of eight rows and six tokens, in the order of the form.
pub(super) type Sums = [float32x4_t; 12];

/// How an instruction set multiplies.
pub(super) trait Form {
    /// Activations of six tokens in one group, with their scales.
    type Panel: Pod;
    /// Weights of eight rows in one group, with their block scales.
    type Rows: Pod;
    /// Packs group `g` of the tokens from `t` on; there are `used` of them, and zeros behind.
    fn pack(lhs: &QuantLhs<'_>, t: usize, used: usize, g: usize, out: &mut Self::Panel);
    /// Unpacks both halves of a group.
    fn unpack<G: Group>(tiles: &G::Tiles, block_scales: int8x16_t, out: [&mut Self::Rows; 2]);
    /// Adds the products of all groups in turn.
    fn add<G: Group>(panel: &[Self::Panel], rows: &[Self::Rows], sums: Sums) -> Sums;
    /// The sums as eight rows of each token, or the reverse.
    fn by_token(sums: Sums) -> [[float32x4_t; 2]; TOKENS];
    fn from_tokens(rows: [[float32x4_t; 2]; TOKENS]) -> Sums;
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
                for (half, rows) in rows.iter().enumerate() {
                    let place = Place { block, half, groups: &groups };
                    for (panel, t) in panels.iter().zip(tokens.clone().step_by(TOKENS)) {
                        let tokens = t..tokens.end.min(t + TOKENS);
                        if tokens.len() == TOKENS {
                            piece::<F, G, true>(panel, rows, &record, &place, tokens, dst);
                        } else {
                            piece::<F, G, false>(panel, rows, &record, &place, tokens, dst);
                        }
                    }
                }
            }
        }
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

/// Integer sums begin as zeros: three loads of four registers, where `movi` would take twelve.
static ZEROS: [[i32; 4]; 4] = [[0; 4]; 4];

/// The loop over groups, `$groups!(…)` of inline assembly, which reads on at `panel` and `rows` and
/// adds to registers 20 to 31 what it summed up in registers 8 to 19, with its other operands in 0
/// to 7.
///
/// Written by hand because it takes all 32 registers: a compiler would spill some.
macro_rules! panel_loop {
    (zeros) => {
        concat!(
            "ld1 {{v8.4s-v11.4s}}, [{zeros}]\n",
            "ld1 {{v12.4s-v15.4s}}, [{zeros}]\n",
            "ld1 {{v16.4s-v19.4s}}, [{zeros}]\n",
        )
    };
    ($fraction:expr, $panel:expr, $rows:expr, $sums:expr, $groups:ident) => {{
        assert!($panel.len() == $rows.len() && !$rows.is_empty());
        match $fraction {
            0 => panel_loop!(@ "", $panel, $rows, $sums, $groups),
            4 => panel_loop!(@ ", #4", $panel, $rows, $sums, $groups),
            5 => panel_loop!(@ ", #5", $panel, $rows, $sums, $groups),
            _ => unreachable!("no encoding has another one"),
        }
    }};
    (@ $fraction:literal, $panel:expr, $rows:expr, $sums:expr, $groups:ident) => {{
        let mut s = $sums;
        // SAFETY: (1) by the target features of this function; (2) (3) each group reads one element
        // of both slices, which are as long as the number of groups and aligned to 16 bytes, and
        // the four zeros; (4) it writes nothing.
        unsafe {
            asm!(
                // Two groups a round; an odd number begins in the middle.
                "tbz {n}, #0, 2f",
                "add {n}, {n}, #1",
                "b 3f",
                "2:",
                panel_loop!(zeros),
                $groups!($fraction),
                "3:",
                panel_loop!(zeros),
                $groups!($fraction),
                "subs {n}, {n}, #2",
                "b.ne 2b",
                panel = inout(reg) $panel.as_ptr() => _,
                rows = inout(reg) $rows.as_ptr() => _,
                n = inout(reg) $rows.len() => _,
                zeros = in(reg) &super::ZEROS,
                inout("v20") s[0], inout("v21") s[1], inout("v22") s[2], inout("v23") s[3],
                inout("v24") s[4], inout("v25") s[5], inout("v26") s[6], inout("v27") s[7],
                inout("v28") s[8], inout("v29") s[9], inout("v30") s[10], inout("v31") s[11],
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _,
                out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                out("v12") _, out("v13") _, out("v14") _, out("v15") _, out("v16") _, out("v17") _,
                out("v18") _, out("v19") _,
                options(pure, readonly, nostack),
            );
        }
        s
    }};
}
use panel_loop;

/// Where a piece of a product belongs.
struct Place<'a> {
    block: usize,
    half: usize,
    groups: &'a Range<usize>,
}

/// The products of one panel and eight rows, for six tokens or, if not `FULL`, fewer.
#[inline(always)]
fn piece<F: Form, G: Group, const FULL: bool>(
    panel: &[F::Panel; GROUPS],
    rows: &[F::Rows; GROUPS],
    record: &Record<'_, G>,
    place: &Place<'_>,
    tokens: Range<usize>,
    dst: &mut Columns<'_>,
) {
    let Place { block, half, groups } = place;
    let used = |i| FULL || i < tokens.len();
    // SAFETY: (1) NEON, by the build's target; (2) (3) (4) loads and stores are of four f32 that
    // are indexed as a whole.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); 2]; TOKENS];
        if groups.start > 0 {
            for i in 0..TOKENS {
                if used(i) {
                    let [a, b] = fours(dst, tokens.start + i, *block, *half);
                    sums[i] = [vld1q_f32(a.as_ptr()), vld1q_f32(b.as_ptr())];
                }
            }
        }
        let n = groups.len();
        let mut sums = F::by_token(F::add::<G>(&panel[..n], &rows[..n], F::from_tokens(sums)));
        if groups.end == record.weights.len() {
            let scales = [record.row_scales[2 * half], record.row_scales[2 * half + 1]];
            for i in 0..TOKENS {
                sums[i] = [vmulq_f32(sums[i][0], scales[0]), vmulq_f32(sums[i][1], scales[1])];
            }
        }
        for i in 0..TOKENS {
            if used(i) {
                let [a, b] = fours(dst, tokens.start + i, *block, *half);
                vst1q_f32(a.as_mut_ptr(), sums[i][0]);
                vst1q_f32(b.as_mut_ptr(), sums[i][1]);
            }
        }
    }
}

/// The sums of a token in one half of a record's rows.
#[inline(always)]
fn fours<'a>(
    dst: &'a mut Columns<'_>,
    t: usize,
    block: usize,
    half: usize,
) -> &'a mut [[f32; 4]; 2] {
    let row: &mut [f32; ROWS] = &mut dst.row_mut(t).as_chunks_mut().0[block];
    row.as_chunks_mut().0.as_chunks_mut().0.get_mut(half).expect("two halves")
}
