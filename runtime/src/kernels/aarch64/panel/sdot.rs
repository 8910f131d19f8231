//! Six tokens with `sdot`: four inputs of a token are a lane, which multiplies those of four rows.

use core::arch::aarch64::*;
use core::arch::asm;

use bytemuck::{Pod, Zeroable};

use super::{Form, Piece, TOKENS, each_sum, panel_loop};
use crate::kernels::aarch64::dot::{self, Group};
use crate::kernels::{Columns, QuantLhs};
use crate::quant::tile::GROUP;

pub(in crate::kernels::aarch64) struct Sdot;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(in crate::kernels::aarch64) struct Panel {
    /// Four inputs of each token, in the order of the weights.
    q: [[[i8; 4]; TOKENS]; GROUP / 4],
    /// With room for two registers.
    scales: [f32; 8],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(in crate::kernels::aarch64) struct Rows {
    /// Four inputs of twice four rows.
    weights: [[[i8; 16]; 2]; GROUP / 4],
    block_scales: [[f32; 4]; 2],
}

/// Two tokens' products of four inputs: `$a` and `$b` are weights of four rows each, `$q` holds
/// the activations in its lanes 0 and 1 (`low`) or 2 and 3 (`high`).
macro_rules! two_tokens {
    (first $a:literal, $b:literal, $q:literal, $lanes:ident) => {
        two_tokens!($a, $b, $q, $lanes, "v8", "v9", "v14", "v15")
    };
    (second $a:literal, $b:literal, $q:literal, $lanes:ident) => {
        two_tokens!($a, $b, $q, $lanes, "v10", "v11", "v16", "v17")
    };
    (third $a:literal, $b:literal, $q:literal, $lanes:ident) => {
        two_tokens!($a, $b, $q, $lanes, "v12", "v13", "v18", "v19")
    };
    ($a:literal, $b:literal, $q:literal, low, $($sums:literal),*) => {
        two_tokens!($a, $b, $q, "0", "1", $($sums),*)
    };
    ($a:literal, $b:literal, $q:literal, high, $($sums:literal),*) => {
        two_tokens!($a, $b, $q, "2", "3", $($sums),*)
    };
    (
        $a:literal, $b:literal, $q:literal, $i:literal, $j:literal,
        $a_i:literal, $a_j:literal, $b_i:literal, $b_j:literal
    ) => {
        concat!(
            "sdot ", $a_i, ".4s, ", $a, ".16b, ", $q, ".4b[", $i, "]\n",
            "sdot ", $b_i, ".4s, ", $b, ".16b, ", $q, ".4b[", $i, "]\n",
            "sdot ", $a_j, ".4s, ", $a, ".16b, ", $q, ".4b[", $j, "]\n",
            "sdot ", $b_j, ".4s, ", $b, ".16b, ", $q, ".4b[", $j, "]\n",
        )
    };
}

/// The products of a group. Registers 8 to 19 are the sums: six tokens of the first four rows, then
/// of the others.
#[rustfmt::skip]
macro_rules! products {
    () => { concat!(
        "ld1 {{v4.16b-v7.16b}}, [{row}], #64\n",
        "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
        two_tokens!(first "v4", "v5", "v0", low),
        two_tokens!(second "v4", "v5", "v0", high),
        two_tokens!(third "v4", "v5", "v1", low),
        two_tokens!(first "v6", "v7", "v1", high),
        two_tokens!(second "v6", "v7", "v2", low),
        two_tokens!(third "v6", "v7", "v2", high),
        "ld1 {{v4.16b-v7.16b}}, [{row}], #64\n",
        two_tokens!(first "v4", "v5", "v3", low),
        two_tokens!(second "v4", "v5", "v3", high),
        "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
        two_tokens!(third "v4", "v5", "v0", low),
        two_tokens!(first "v6", "v7", "v0", high),
        two_tokens!(second "v6", "v7", "v1", low),
        two_tokens!(third "v6", "v7", "v1", high),
        "ld1 {{v4.16b-v7.16b}}, [{row}], #64\n",
        two_tokens!(first "v4", "v5", "v2", low),
        two_tokens!(second "v4", "v5", "v2", high),
        two_tokens!(third "v4", "v5", "v3", low),
        two_tokens!(first "v6", "v7", "v3", high),
        "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
        two_tokens!(second "v6", "v7", "v0", low),
        two_tokens!(third "v6", "v7", "v0", high),
        "ld1 {{v4.16b-v7.16b}}, [{row}], #64\n",
        two_tokens!(first "v4", "v5", "v1", low),
        two_tokens!(second "v4", "v5", "v1", high),
        two_tokens!(third "v4", "v5", "v2", low),
        two_tokens!(first "v6", "v7", "v2", high),
        two_tokens!(second "v6", "v7", "v3", low),
        two_tokens!(third "v6", "v7", "v3", high),
    ) };
}

/// Products of scales, two tokens of twice four rows at a time, and what they add to the sums.
macro_rules! scaled {
    ($a:literal, $($i:literal $dot:literal $sum:literal, $b_dot:literal $b_sum:literal);*) => {
        concat!(
            $("fmul v2.4s, v4.4s, ", $a, ".s[", $i, "]\n",
            "fmul v3.4s, v5.4s, ", $a, ".s[", $i, "]\n",
            "fmla ", $sum, ".4s, ", $dot, ".4s, v2.4s\n",
            "fmla ", $b_sum, ".4s, ", $b_dot, ".4s, v3.4s\n",)*
        )
    };
}

/// All groups; `$fraction` is where the point is in the integer sums.
macro_rules! groups {
    ($fraction:literal) => {
        concat!(
            products!(),
            "ld1 {{v0.4s-v1.4s}}, [{panel}], #32\n",
            "ld1 {{v4.4s-v5.4s}}, [{row}], #32\n",
            each_sum!("scvtf", $fraction),
            scaled!("v0", "0" "v8" "v20", "v14" "v21"; "1" "v9" "v22", "v15" "v23";
                "2" "v10" "v24", "v16" "v25"; "3" "v11" "v26", "v17" "v27"),
            scaled!("v1", "0" "v12" "v28", "v18" "v29"; "1" "v13" "v30", "v19" "v31"),
        )
    };
}

/// Packs six tokens: four inputs are a lane, which are transposed.
#[inline(always)]
fn pack(lhs: &QuantLhs<'_>, t: usize, g: usize, out: &mut Panel) {
    let rows: &[[[u8; 16]; 2]] = bytemuck::cast_slice(lhs.q);
    let (rows, scales) = (&rows[t * lhs.groups + g..], &lhs.scales[t * lhs.groups + g..]);
    for i in 0..TOKENS {
        out.scales[i] = scales[i * lhs.groups];
    }
    for half in 0..2 {
        // SAFETY: (1) NEON, by the build's target; (2) (3) (4) the stores are to the four lanes of
        // a row of `q` and to the two behind them.
        unsafe {
            let mut x = [vdupq_n_s32(0); TOKENS];
            for i in 0..TOKENS {
                x[i] = vreinterpretq_s32_s8(dot::load(&rows[i * lhs.groups][half]));
            }
            let (a, b) = (vzip1q_s32(x[0], x[2]), vzip2q_s32(x[0], x[2]));
            let (c, e) = (vzip1q_s32(x[1], x[3]), vzip2q_s32(x[1], x[3]));
            let fours = [vzip1q_s32(a, c), vzip2q_s32(a, c), vzip1q_s32(b, e), vzip2q_s32(b, e)];
            let (low, high) = (vzip1q_s32(x[4], x[5]), vzip2q_s32(x[4], x[5]));
            let twos =
                [vget_low_s32(low), vget_high_s32(low), vget_low_s32(high), vget_high_s32(high)];
            for j in 0..4 {
                let q = &mut out.q[4 * half + j];
                vst1q_s8(q[..4].as_flattened_mut().as_mut_ptr(), vreinterpretq_s8_s32(fours[j]));
                vst1_s8(q[4..].as_flattened_mut().as_mut_ptr(), vreinterpret_s8_s32(twos[j]));
            }
        }
    }
}

/// The sums of a token, neighbouring registers, after those of the one before.
macro_rules! each_token {
    ($name:literal, $at:literal) => {
        each_token!($name, $at, "v20.4s, v21.4s" "v22.4s, v23.4s" "v24.4s, v25.4s"
            "v26.4s, v27.4s" "v28.4s, v29.4s" "v30.4s, v31.4s")
    };
    ($name:literal, $at:literal, $($sums:literal)*) => {
        concat!($($name, " {{", $sums, "}}, [{", $at, "}], {stride}\n"),*)
    };
}

macro_rules! enter {
    () => {
        concat!("mov {at}, {dst}\n", each_token!("ld1", "at"))
    };
}

macro_rules! leave {
    (plain) => {
        each_token!("st1", "dst")
    };
    (scaled) => {
        concat!(
            leave!("v6", "v20" "v22" "v24" "v26" "v28" "v30"),
            leave!("v7", "v21" "v23" "v25" "v27" "v29" "v31"),
            leave!(plain),
        )
    };
    ($scale:literal, $($sum:literal)*) => {
        concat!($("fmul ", $sum, ".4s, ", $sum, ".4s, ", $scale, ".4s\n"),*)
    };
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn multiply<G: Group>(piece: &Piece<'_, Sdot>, dst: &mut Columns<'_>, place: (usize, usize)) {
    panel_loop!(G::FRACTION, piece, dst, place, groups, enter, leave)
}

impl Form for Sdot {
    type Panel = Panel;
    type Rows = Rows;

    #[inline(always)]
    fn pack(lhs: &QuantLhs<'_>, t: usize, used: usize, g: usize, out: &mut Panel) {
        if used == TOKENS {
            return pack(lhs, t, g, out);
        }
        *out = Panel::zeroed();
        for i in 0..used {
            let at = (t + i) * lhs.groups + g;
            out.scales[i] = lhs.scales[at];
            let row: &[i8; GROUP] = lhs.q[at * GROUP..].first_chunk().expect("a whole group");
            for (q, four) in out.q.iter_mut().zip(row.as_chunks().0) {
                q[i] = *four;
            }
        }
    }

    #[inline(always)]
    fn unpack<G: Group>(tiles: &G::Tiles, block_scales: int8x16_t, out: [&mut Rows; 2]) {
        // SAFETY: (1) NEON, by the build's target; (2) (3) (4) the stores are to whole arrays.
        unsafe {
            for (half, out) in out.into_iter().enumerate() {
                for (j, weights) in out.weights.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let [a, b] = G::eight_inputs(tiles, j, 2 * half);
                    let [c, d] = G::eight_inputs(tiles, j, 2 * half + 1);
                    vst1q_s8(weights[0][0].as_mut_ptr(), a);
                    vst1q_s8(weights[0][1].as_mut_ptr(), c);
                    vst1q_s8(weights[1][0].as_mut_ptr(), b);
                    vst1q_s8(weights[1][1].as_mut_ptr(), d);
                }
                for (i, scales) in out.block_scales.iter_mut().enumerate() {
                    let top = vreinterpretq_u8_s8(dot::load(&dot::TOPS[2 * half + i]));
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
