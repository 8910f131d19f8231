//! Six tokens with `smmla`: eight inputs of two tokens are a register, as are those of two rows, and
//! a register of sums is two rows of the first token, then of the second.

use core::arch::aarch64::*;
use core::arch::asm;

use bytemuck::{Pod, Zeroable};

use super::{Form, Sums, TOKENS, each_sum, panel_loop};
use crate::kernels::QuantLhs;
use crate::kernels::aarch64::dot::Group;
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
            "ld1 {{v4.16b-v7.16b}}, [{rows}], #64\n",
            "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
            two_tokens!("v0", "v8", "v9", "v10", "v11"),
            two_tokens!("v1", "v12", "v13", "v14", "v15"),
            two_tokens!("v2", "v16", "v17", "v18", "v19"),
            "ld1 {{v4.16b-v7.16b}}, [{rows}], #64\n",
            two_tokens!("v3", "v8", "v9", "v10", "v11"),
            "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
            two_tokens!("v0", "v12", "v13", "v14", "v15"),
            two_tokens!("v1", "v16", "v17", "v18", "v19"),
            "ld1 {{v4.16b-v7.16b}}, [{rows}], #64\n",
            two_tokens!("v2", "v8", "v9", "v10", "v11"),
            two_tokens!("v3", "v12", "v13", "v14", "v15"),
            "ld1 {{v0.16b-v3.16b}}, [{panel}], #64\n",
            two_tokens!("v0", "v16", "v17", "v18", "v19"),
            "ld1 {{v4.16b-v7.16b}}, [{rows}], #64\n",
            two_tokens!("v1", "v8", "v9", "v10", "v11"),
            two_tokens!("v2", "v12", "v13", "v14", "v15"),
            two_tokens!("v3", "v16", "v17", "v18", "v19"),
            "ld1 {{v0.4s-v2.4s}}, [{panel}], #48\n",
            "ld1 {{v4.4s-v7.4s}}, [{rows}], #64\n",
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

#[inline]
#[target_feature(enable = "neon,i8mm")]
fn add<G: Group>(panel: &[Panel], rows: &[Rows], sums: Sums) -> Sums {
    panel_loop!(G::FRACTION, panel, rows, sums, groups)
}

/// The first halves of two registers, and their second halves.
#[inline(always)]
fn halves(a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] {
    // SAFETY: (1) NEON, by the build's target.
    unsafe {
        let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
        [vreinterpretq_f32_f64(vzip1q_f64(a, b)), vreinterpretq_f32_f64(vzip2q_f64(a, b))]
    }
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
    fn add<G: Group>(panel: &[Panel], rows: &[Rows], sums: Sums) -> Sums {
        // SAFETY: (1) called from functions with these target features only.
        unsafe { add::<G>(panel, rows, sums) }
    }

    #[inline(always)]
    fn by_token(sums: Sums) -> [[float32x4_t; 2]; TOKENS] {
        let mut out = [[sums[0]; 2]; TOKENS];
        for (out, s) in out.as_chunks_mut::<2>().0.iter_mut().zip(sums.as_chunks::<4>().0) {
            [out[0][0], out[1][0]] = halves(s[0], s[1]);
            [out[0][1], out[1][1]] = halves(s[2], s[3]);
        }
        out
    }

    #[inline(always)]
    fn from_tokens(rows: [[float32x4_t; 2]; TOKENS]) -> Sums {
        let mut out = [rows[0][0]; 12];
        for (out, t) in out.as_chunks_mut::<4>().0.iter_mut().zip(rows.as_chunks::<2>().0) {
            [out[0], out[1]] = halves(t[0][0], t[1][0]);
            [out[2], out[3]] = halves(t[0][1], t[1][1]);
        }
        out
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
