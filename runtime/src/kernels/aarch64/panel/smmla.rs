//! Six tokens with `smmla`: eight inputs of two tokens are a register, as are those of two rows, and
//! a register of sums is two rows of the first token, then of the second.

use core::arch::aarch64::*;
use core::arch::asm;

use bytemuck::{Pod, Zeroable};

use super::{Form, Piece, TOKENS, each_sum, panel_loop};
use crate::kernels::aarch64::dot::Group;
use crate::kernels::{Columns, QuantLhs};
use crate::quant::tile::{GROUP, ROWS};

pub(in crate::kernels::aarch64) struct Smmla;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(in crate::kernels::aarch64) struct Panel {
    /// Eight inputs of each token, in the order of the weights.
    q: [[[i8; 8]; TOKENS]; GROUP / 8],
    /// Each twice, for two rows.
    scales: [[f32; 2]; TOKENS],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(in crate::kernels::aarch64) struct Rows {
    /// Eight inputs of four times two rows.
    weights: [[[i8; 16]; 4]; GROUP / 8],
    /// Those of two rows twice, for two tokens.
    block_scales: [[f32; 4]; 4],
}

/// Two tokens' products of eight inputs, with the eight rows of registers 4 to 7.
macro_rules! two_tokens {
    ($q:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "smmla ",
            $a,
            ".4s, ",
            $q,
            ".16b, v4.16b\n",
            "smmla ",
            $b,
            ".4s, ",
            $q,
            ".16b, v5.16b\n",
            "smmla ",
            $c,
            ".4s, ",
            $q,
            ".16b, v6.16b\n",
            "smmla ",
            $d,
            ".4s, ",
            $q,
            ".16b, v7.16b\n",
        )
    };
}

/// What a sum of products adds, times the product of scales.
macro_rules! scaled {
    ($a:literal, $b:literal, $dot:literal, $sum:literal) => {
        concat!(
            "fmul v3.4s, ",
            $b,
            ".4s, ",
            $a,
            ".4s\n",
            "fmla ",
            $sum,
            ".4s, ",
            $dot,
            ".4s, v3.4s\n",
        )
    };
}

/// All groups; `$fraction` is where the point is in the integer sums. Registers 8 to 19 are those:
/// eight rows of the first two tokens, of the next two, of the last two.
macro_rules! groups {
    ($fraction:literal) => {
        concat!(
            "ld1 {{v4.16b-v7.16b}}, [{row}], #64\n",
            "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
            two_tokens!("v0", "v8", "v9", "v10", "v11"),
            two_tokens!("v1", "v12", "v13", "v14", "v15"),
            two_tokens!("v2", "v16", "v17", "v18", "v19"),
            "ld1 {{v4.16b-v7.16b}}, [{row}], #64\n",
            two_tokens!("v3", "v8", "v9", "v10", "v11"),
            "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
            two_tokens!("v0", "v12", "v13", "v14", "v15"),
            two_tokens!("v1", "v16", "v17", "v18", "v19"),
            "ld1 {{v4.16b-v7.16b}}, [{row}], #64\n",
            two_tokens!("v2", "v8", "v9", "v10", "v11"),
            two_tokens!("v3", "v12", "v13", "v14", "v15"),
            "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
            two_tokens!("v0", "v16", "v17", "v18", "v19"),
            "ld1 {{v4.16b-v7.16b}}, [{row}], #64\n",
            two_tokens!("v1", "v8", "v9", "v10", "v11"),
            two_tokens!("v2", "v12", "v13", "v14", "v15"),
            two_tokens!("v3", "v16", "v17", "v18", "v19"),
            "ld1 {{v0.4s-v2.4s}}, [{panel}], #48\n",
            "ld1 {{v4.4s-v7.4s}}, [{row}], #64\n",
            each_sum!("scvtf", $fraction),
            scaled!("v0", "v4", "v8", "v20"),
            scaled!("v0", "v5", "v9", "v21"),
            scaled!("v0", "v6", "v10", "v22"),
            scaled!("v0", "v7", "v11", "v23"),
            scaled!("v1", "v4", "v12", "v24"),
            scaled!("v1", "v5", "v13", "v25"),
            scaled!("v1", "v6", "v14", "v26"),
            scaled!("v1", "v7", "v15", "v27"),
            scaled!("v2", "v4", "v16", "v28"),
            scaled!("v2", "v5", "v17", "v29"),
            scaled!("v2", "v6", "v18", "v30"),
            scaled!("v2", "v7", "v19", "v31"),
        )
    };
}

/// Two tokens after two others: registers of two rows of both are zipped from, or to, eight rows of
/// each.
macro_rules! each_pair {
    ($part:ident) => {
        concat!(
            $part!("v20", "v21", "v22", "v23"),
            $part!("v24", "v25", "v26", "v27"),
            $part!("v28", "v29", "v30", "v31"),
        )
    };
}

macro_rules! enter {
    () => {
        concat!("mov {at}, {dst}\n", each_pair!(enter))
    };
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ldp q0, q1, [{at}]\n",
            "add {at}, {at}, {stride}\n",
            "ldp q2, q3, [{at}]\n",
            "add {at}, {at}, {stride}\n",
            "zip1 ",
            $a,
            ".2d, v0.2d, v2.2d\n",
            "zip2 ",
            $b,
            ".2d, v0.2d, v2.2d\n",
            "zip1 ",
            $c,
            ".2d, v1.2d, v3.2d\n",
            "zip2 ",
            $d,
            ".2d, v1.2d, v3.2d\n",
        )
    };
}

macro_rules! leave {
    (plain) => {
        each_pair!(leave)
    };
    (scaled) => {
        each_pair!(leave_scaled)
    };
    (zip $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "zip1 v0.2d, ", $a, ".2d, ", $b, ".2d\n",
            "zip2 v2.2d, ", $a, ".2d, ", $b, ".2d\n",
            "zip1 v1.2d, ", $c, ".2d, ", $d, ".2d\n",
            "zip2 v3.2d, ", $c, ".2d, ", $d, ".2d\n",
        )
    };
    (store) => {
        concat!(
            "stp q0, q1, [{dst}]\n",
            "add {dst}, {dst}, {stride}\n",
            "stp q2, q3, [{dst}]\n",
            "add {dst}, {dst}, {stride}\n",
        )
    };
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(leave!(zip $a, $b, $c, $d), leave!(store))
    };
}

macro_rules! leave_scaled {
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            leave!(zip $a, $b, $c, $d),
            "fmul v0.4s, v0.4s, v6.4s\n",
            "fmul v1.4s, v1.4s, v7.4s\n",
            "fmul v2.4s, v2.4s, v6.4s\n",
            "fmul v3.4s, v3.4s, v7.4s\n",
            leave!(store),
        )
    };
}

#[inline]
#[target_feature(enable = "neon,i8mm")]
fn multiply<G: Group>(piece: &Piece<'_, Smmla>, dst: &mut Columns<'_>, place: (usize, usize)) {
    panel_loop!(G::FRACTION, piece, dst, place, groups, enter, leave)
}

impl Form for Smmla {
    type Panel = Panel;
    type Rows = Rows;

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, used: usize, g: usize, out: &mut Panel) {
        if used < TOKENS {
            *out = Panel::zeroed();
        }
        for i in 0..used {
            let at = (t + i) * lhs.groups + g;
            out.scales[i] = [lhs.scales[at]; 2];
            let row: &[i8; GROUP] = lhs.q[at * GROUP..].first_chunk().expect("a whole group");
            for (q, eight) in out.q.iter_mut().zip(row.as_chunks().0) {
                q[i] = *eight;
            }
        }
    }

    #[inline(always)]
    fn unpack<G: Group>(tiles: &G::Tiles, block_scales: int8x16_t, out: [&mut Rows; 2]) {
        // SAFETY: (1) NEON, by the build's target; (2) (3) (4) the stores are to whole arrays.
        unsafe {
            for (half, out) in out.into_iter().enumerate() {
                for (j, weights) in out.weights.iter_mut().enumerate() {
                    for i in 0..2 {
                        let [a, b] = G::eight_inputs(tiles, j, 2 * half + i);
                        let (a, b) = (vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
                        let [first, second] = [vzip1q_s32(a, b), vzip2q_s32(a, b)];
                        vst1q_s8(weights[2 * i].as_mut_ptr(), vreinterpretq_s8_s32(first));
                        vst1q_s8(weights[2 * i + 1].as_mut_ptr(), vreinterpretq_s8_s32(second));
                    }
                }
                for (i, scales) in out.block_scales.iter_mut().enumerate() {
                    let top = vld1q_u8(TOPS[4 * half + i].as_ptr());
                    let top = vreinterpretq_s32_s8(vqtbl1q_s8(block_scales, top));
                    vst1q_f32(scales.as_mut_ptr(), G::block_scale(top));
                }
            }
        }
    }

    #[inline(always)]
    fn multiply<G: Group>(piece: &Piece<'_, Self>, dst: &mut Columns<'_>, place: (usize, usize)) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe { multiply::<G>(piece, dst, place) }
    }
}

/// For each pair of lanes, where its bytes go: to the top of 32-bit lanes, twice.
const TOPS: [[u8; 16]; 8] = {
    let mut tops = [[255; 16]; 8];
    let mut lane = 0;
    while lane < ROWS {
        tops[lane / 2][lane % 2 * 4 + 3] = lane as u8;
        tops[lane / 2][lane % 2 * 4 + 11] = lane as u8;
        lane += 1;
    }
    tops
};
