//! Attention's products with `sdot`, in inline assembly: one load brings four registers and goes
//! on to the next four, where a compiler adds to an address and loads two.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::Neon;
use crate::kernels::generic::Lanes;
use crate::math::Simd;

/// Four registers of bytes. Caches need not be aligned to them.
type Tile = [[u8; 16]; 4];

/// What sums begin with: four registers at once.
static ZEROS: [[i32; 4]; 4] = [[0; 4]; 4];

/// Products of four keys with four queries: `$lane` is which dimensions.
macro_rules! four_queries {
    ($keys:literal, $lane:literal, $a:literal $b:literal $c:literal $d:literal) => {
        concat!(
            "sdot ",
            $a,
            ".4s, ",
            $keys,
            ".16b, v4.4b[",
            $lane,
            "]\n",
            "sdot ",
            $b,
            ".4s, ",
            $keys,
            ".16b, v5.4b[",
            $lane,
            "]\n",
            "sdot ",
            $c,
            ".4s, ",
            $keys,
            ".16b, v6.4b[",
            $lane,
            "]\n",
            "sdot ",
            $d,
            ".4s, ",
            $keys,
            ".16b, v7.4b[",
            $lane,
            "]\n",
        )
    };
}

/// Four dimensions of sixteen keys.
macro_rules! keys {
    ($lane:literal) => {
        concat!(
            "ld1 {{v0.16b-v3.16b}}, [{keys}], #64\n",
            four_queries!("v0", $lane, "v8" "v9" "v10" "v11"),
            four_queries!("v1", $lane, "v12" "v13" "v14" "v15"),
            four_queries!("v2", $lane, "v16" "v17" "v18" "v19"),
            four_queries!("v3", $lane, "v20" "v21" "v22" "v23"),
        )
    };
}

/// Products of sixteen keys with four queries, one behind the other: four keys in lanes, by fours of
/// keys and then by queries.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn products_of_keys(queries: &[[i8; 16]], keys: &[[Tile; 4]]) -> [[int32x4_t; 4]; 4] {
    let n = keys.len();
    assert!(n > 0 && queries.len() == 4 * n);
    let mut out = [[vdupq_n_s32(0); 4]; 4];
    let [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]] = &mut out;
    // SAFETY: (1) by the target features of this function; (2) (3) it reads the zeros, and the
    // queries and the keys as they were counted just now.
    unsafe {
        asm!(
            "ld1 {{v8.4s-v11.4s}}, [{zeros}]",
            "ld1 {{v12.4s-v15.4s}}, [{zeros}]",
            "ld1 {{v16.4s-v19.4s}}, [{zeros}]",
            "ld1 {{v20.4s-v23.4s}}, [{zeros}]",
            "2:",
            "ldr q5, [{q}, {stride}]",
            "ldr q7, [{r}, {stride}]",
            "ldr q4, [{q}], #16",
            "ldr q6, [{r}], #16",
            keys!("0"),
            keys!("1"),
            keys!("2"),
            keys!("3"),
            "subs {n}, {n}, #1",
            "b.ne 2b",
            zeros = in(reg) &ZEROS,
            q = inout(reg) queries.as_ptr() => _,
            r = inout(reg) queries[2 * n..].as_ptr() => _,
            stride = in(reg) 16 * n,
            keys = inout(reg) keys.as_ptr() => _,
            n = inout(reg) n => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") *a0, out("v9") *a1, out("v10") *a2, out("v11") *a3,
            out("v12") *b0, out("v13") *b1, out("v14") *b2, out("v15") *b3,
            out("v16") *c0, out("v17") *c1, out("v18") *c2, out("v19") *c3,
            out("v20") *d0, out("v21") *d1, out("v22") *d2, out("v23") *d3,
            options(pure, readonly, nostack),
        );
    }
    out
}

/// Products of four slots' values with both halves of their weights.
macro_rules! values {
    ($lane:literal) => {
        concat!(
            "ld1 {{v0.16b-v3.16b}}, [{values}], {row}\n",
            "ld1 {{v4.16b-v7.16b}}, [{more}], {row}\n",
            values!($lane, "v0" "v8" "v16", "v1" "v9" "v17", "v2" "v10" "v18", "v3" "v11" "v19",
                "v4" "v12" "v20", "v5" "v13" "v21", "v6" "v14" "v22", "v7" "v15" "v23"),
        )
    };
    ($lane:literal, $($values:literal $high:literal $low:literal),*) => {
        concat!($(
            "sdot ", $high, ".4s, ", $values, ".16b, v24.4b[", $lane, "]\n",
            "sdot ", $low, ".4s, ", $values, ".16b, v25.4b[", $lane, "]\n",
        )*)
    };
}

/// Sums of 32 dimensions of values, weighted: those of the high halves, then of the low ones. `row`
/// is how many tiles it is from four slots to the next.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn weighted_values(
    high: &[[i8; 16]],
    low: &[[i8; 16]],
    values: &[Tile],
    row: usize,
) -> [[int32x4_t; 8]; 2] {
    let n = high.len();
    assert!(n > 0 && low.len() == n && row >= 2);
    assert!(values.len() >= (4 * n - 1) * row + 2);
    let mut out = [[vdupq_n_s32(0); 8]; 2];
    let [[a, b, c, d, e, f, g, h], [i, j, k, l, m, o, p, q]] = &mut out;
    // SAFETY: (1) by the target features of this function; (2) (3) it reads the zeros, as many
    // weights as there are, and two tiles of each fours of slots, the last of which were shown
    // to be there.
    unsafe {
        asm!(
            "ld1 {{v8.4s-v11.4s}}, [{zeros}]",
            "ld1 {{v12.4s-v15.4s}}, [{zeros}]",
            "ld1 {{v16.4s-v19.4s}}, [{zeros}]",
            "ld1 {{v20.4s-v23.4s}}, [{zeros}]",
            "2:",
            "ldr q24, [{high}], #16",
            "ldr q25, [{low}], #16",
            values!("0"),
            values!("1"),
            values!("2"),
            values!("3"),
            "subs {n}, {n}, #1",
            "b.ne 2b",
            zeros = in(reg) &ZEROS,
            high = inout(reg) high.as_ptr() => _,
            low = inout(reg) low.as_ptr() => _,
            values = inout(reg) values.as_ptr() => _,
            more = inout(reg) values[1..].as_ptr() => _,
            row = in(reg) row * size_of::<Tile>(),
            n = inout(reg) n => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") *a, out("v9") *b, out("v10") *c, out("v11") *d,
            out("v12") *e, out("v13") *f, out("v14") *g, out("v15") *h,
            out("v16") *i, out("v17") *j, out("v18") *k, out("v19") *l,
            out("v20") *m, out("v21") *o, out("v22") *p, out("v23") *q,
            out("v24") _, out("v25") _,
            options(pure, readonly, nostack),
        );
    }
    out
}

/// The scores of four queries, as [`super::dot::scores_q8`] has them.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn scores_of_four(
    queries: &[i8],
    scales: &[f32; 4],
    keys: &[i8],
    key_scales: &[f32],
    scores: &mut [f32],
) {
    let queries = queries.as_chunks::<16>().0;
    let slots = scores.len() / 4;
    let (first, second) = scores.as_chunks_mut::<16>().0.split_at_mut(2 * slots / 16);
    let (a, b) = first.split_at_mut(first.len() / 2);
    let (c, d) = second.split_at_mut(second.len() / 2);
    let keys: &[[Tile; 4]] = bytemuck::cast_slice(keys);
    let keys = keys.chunks_exact(queries.len() / 4).zip(key_scales.as_chunks::<16>().0);
    let scores = a.iter_mut().zip(b).zip(c.iter_mut().zip(d));
    for ((keys, key_scales), ((a, b), (c, d))) in keys.zip(scores) {
        let products = products_of_keys(queries, keys);
        let s = Neon::new();
        let key_scales = s.load(key_scales);
        for (n, scores) in [a, b, c, d].into_iter().enumerate() {
            let mut dots = [vdupq_n_f32(0.0); 4];
            for i in 0..4 {
                dots[i] = vcvtq_f32_s32(products[i][n]);
            }
            s.store(s.mul(dots, s.mul(key_scales, s.splat(scales[n]))), scores);
        }
    }
}

/// Sums of values for pairs of sixteen dimensions from the front on; returns for how many
/// dimensions.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn values_of_pairs(
    high: &[i8],
    low: &[i8],
    scale: f32,
    values: &[i8],
    out: &mut [f32],
) -> usize {
    let row = out.len() / 16;
    let values: &[Tile] = bytemuck::cast_slice(values);
    let (high, low) = (high.as_chunks().0, low.as_chunks().0);
    let pairs = out.as_chunks_mut::<32>().0;
    for (pair, out) in pairs.iter_mut().enumerate() {
        let sums = weighted_values(high, low, &values[2 * pair..], row);
        for (i, four) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let (high, low) = (vcvtq_f32_s32(sums[0][i]), vcvtq_f32_s32(sums[1][i]));
            let sum = vfmaq_f32(low, high, vdupq_n_f32(128.0));
            // SAFETY: (2) (3) (4) an exclusive reference to four f32.
            unsafe { vst1q_f32(four.as_mut_ptr(), vmulq_n_f32(sum, scale)) };
        }
    }
    32 * pairs.len()
}
