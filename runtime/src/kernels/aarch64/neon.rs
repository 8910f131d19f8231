//! NEON alone, as Cortex-A53 and A72 have it: `smlal` multiplies eight bytes to eight 16-bit sums.
//!
//! The products of a whole group of nibbles fit 16 bits: a lane of four-row registers takes eight
//! of them, 8 · 15 · 127 = 15240, and pairs of lanes 30480. So q4 is widened once a group. Of
//! products of signed bytes two fit: 2 · 128 · 127 = 32512.

use core::arch::aarch64::*;

use super::dot::{self, Dot, Q3, Q4, Q8};
use super::{exp, quantize as groups};
use crate::format::Encoding;
use crate::isa::Isa;
use crate::kernels::generic::{self, Lanes};
use crate::kernels::{Behind, Columns, FloatLhs, QuantLhs, Table};
use crate::math::Simd;
use crate::quant::tile::{self, GROUP};

/// Proof that the CPU has the instructions. Every build that contains this module has them.
#[derive(Clone, Copy)]
pub(super) struct Neon(());

impl Neon {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self(())
    }
}

kernel_table!(Isa::Neon, "neon", Neon(()), tokens = 4);

/// Sixteen lanes.
type F = [float32x4_t; 4];

/// A method whose instructions the token promises, on all four registers.
macro_rules! all {
    ($f:ident($($x:ident),*)) => {
        // SAFETY: (1) NEON, by the build's target.
        unsafe {
            [$f($($x[0]),*), $f($($x[1]),*), $f($($x[2]),*), $f($($x[3]),*)]
        }
    };
}

impl Simd for Neon {
    type F = F;
    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: (1) NEON, by the build's target.
        [unsafe { vdupq_n_f32(x) }; 4]
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        all!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        all!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        all!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        all!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        all!(vfmaq_f32(c, a, b))
    }
    // `fmax` and `fmin` give NaN where one is NaN.
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        self.select_lt(b, a, a, b)
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        self.select_lt(a, b, a, b)
    }
    /// `fmaxnm` and `fminnm` give the number where one is a NaN. (A signalling one, which no
    /// operation returns, they would make a quiet one.)
    #[inline(always)]
    fn clamp(self, a: F, low: f32, high: f32) -> F {
        let (low, high) = (self.splat(low), self.splat(high));
        let a = all!(vmaxnmq_f32(a, low));
        all!(vminnmq_f32(a, high))
    }
    #[inline(always)]
    fn at_least(self, a: F, low: f32) -> F {
        let low = self.splat(low);
        all!(vmaxnmq_f32(a, low))
    }
    #[inline(always)]
    fn abs(self, a: F) -> F {
        all!(vabsq_f32(a))
    }
    #[inline(always)]
    fn select_lt(self, a: F, b: F, x: F, y: F) -> F {
        let less = all!(vcltq_f32(a, b));
        all!(vbslq_f32(less, x, y))
    }
    #[inline(always)]
    fn ldexp_magic(self, a: F, magic: F) -> F {
        let n = all!(vreinterpretq_s32_f32(magic));
        let n = all!(shift_to_exponent(n));
        let a = all!(vreinterpretq_s32_f32(a));
        let sum = all!(vaddq_s32(a, n));
        all!(vreinterpretq_f32_s32(sum))
    }
    #[inline(always)]
    fn exp_clamped(self, x: F) -> F {
        // SAFETY: (1) NEON, by the build's target.
        unsafe { exp::exp_clamped(x) }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn shift_to_exponent(n: int32x4_t) -> int32x4_t {
    vshlq_n_s32::<23>(n)
}

#[inline]
#[target_feature(enable = "neon")]
fn load_f32(from: &[f32; 4]) -> float32x4_t {
    // SAFETY: (2) (3) a reference to four f32.
    unsafe { vld1q_f32(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_f16(from: &[u16; 4]) -> float32x4_t {
    // SAFETY: (2) (3) a reference to four u16.
    vcvt_f32_f16(vreinterpret_f16_u16(unsafe { vld1_u16(from.as_ptr()) }))
}

impl Lanes for Neon {
    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> F {
        let fours: &[[f32; 4]] = from.as_chunks().0;
        let fours = [&fours[0], &fours[1], &fours[2], &fours[3]];
        all!(load_f32(fours))
    }
    #[inline(always)]
    fn store(self, x: F, to: &mut [f32; 16]) {
        let fours: &mut [[f32; 4]] = to.as_chunks_mut().0;
        for (four, x) in fours.iter_mut().zip(x) {
            // SAFETY: (1) NEON, by the build's target; (2) (3) (4) an exclusive reference to four
            // f32.
            unsafe { vst1q_f32(four.as_mut_ptr(), x) }
        }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; 16]) -> F {
        let fours: &[[u16; 4]] = from.as_chunks().0;
        let fours = [&fours[0], &fours[1], &fours[2], &fours[3]];
        all!(load_f16(fours))
    }
    #[inline(always)]
    fn larger(self, x: F, max: F) -> F {
        all!(vmaxnmq_f32(x, max))
    }
    #[inline(always)]
    fn larger_magnitude(self, x: F, amax: F) -> F {
        let x = self.abs(x);
        all!(vmaxnmq_f32(x, amax))
    }
    /// `fmax` gives NaN where one is NaN, so that finite numbers need no look at each.
    #[inline(always)]
    fn magnitude(self, x: &[[f32; GROUP]]) -> (f32, bool) {
        let mut chunks = x.as_flattened().as_chunks().0.iter();
        let mut amax = match chunks.next() {
            Some(first) => self.abs(self.load(first)),
            None => self.splat(0.0),
        };
        for chunk in chunks {
            let x = self.abs(self.load(chunk));
            amax = all!(vmaxq_f32(x, amax));
        }
        // SAFETY: (1) NEON, by the build's target.
        let largest = unsafe {
            vmaxvq_f32(vmaxq_f32(vmaxq_f32(amax[0], amax[1]), vmaxq_f32(amax[2], amax[3])))
        };
        if largest < f32::INFINITY {
            (largest, true)
        } else {
            (magnitude_of_numbers(self, x), false)
        }
    }
    #[inline(always)]
    fn store_halves(self, x: F, high: &mut [u8; 16], low: &mut [u8; 16]) {
        let x = all!(vreinterpretq_u16_f32(x));
        // SAFETY: (1) NEON, by the build's target; (2) (3) (4) exclusive references to sixteen
        // bytes.
        unsafe {
            // The low sixteen bits of each lane: of them 14 count.
            let (a, b) = (vuzp1q_u16(x[0], x[1]), vuzp1q_u16(x[2], x[3]));
            let (bytes_a, bytes_b) = (vreinterpretq_u8_u16(a), vreinterpretq_u8_u16(b));
            let seven = vdupq_n_u8(127);
            vst1q_u8(low.as_mut_ptr(), vandq_u8(vuzp1q_u8(bytes_a, bytes_b), seven));
            let shifted = vshrn_high_n_u16::<7>(vshrn_n_u16::<7>(a), b);
            vst1q_u8(high.as_mut_ptr(), vandq_u8(shifted, seven));
        }
    }
    #[inline(always)]
    fn quantize_first(
        self,
        x: &[[f32; GROUP]],
        q: &mut [[i8; GROUP]],
        scales: &mut [f32],
        sums: &mut [i32],
    ) -> usize {
        let pairs = x.as_chunks().0.iter().zip(q.as_chunks_mut().0);
        let numbers = scales.as_chunks_mut().0.iter_mut().zip(sums.as_chunks_mut().0);
        let mut done = 0;
        for ((x, q), (scales, sums)) in pairs.zip(numbers) {
            // SAFETY: (1) NEON, by the build's target.
            if !unsafe { groups::two_groups(x, q, scales, sums) } {
                break;
            }
            done += 2;
        }
        done
    }
    #[inline(always)]
    fn quantize_head(self, x: &[[f32; GROUP]], q: &mut [i8]) -> Option<(f32, i32)> {
        let (x, q) = (x.as_array()?, q.as_chunks_mut().0.as_mut_array()?);
        // SAFETY: (1) NEON, by the build's target.
        unsafe { groups::head(x, q) }
    }
    #[inline(always)]
    fn sum_of_rounded(self, _: [F; 2], q: &[[i8; 16]; 2]) -> i32 {
        let [a, b] = [dot::load(bytemuck::cast_ref(&q[0])), dot::load(bytemuck::cast_ref(&q[1]))];
        // SAFETY: (1) NEON, by the build's target.
        unsafe { sum_of_bytes(a, b) }
    }
    #[inline(always)]
    fn sum(self, x: F) -> f32 {
        // SAFETY: (1) NEON, by the build's target.
        unsafe { sum_of_four(vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]))) }
    }
    #[inline(always)]
    fn largest(self, x: F) -> f32 {
        // SAFETY: (1) NEON, by the build's target.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(x[0], x[1]), vmaxnmq_f32(x[2], x[3]))) }
    }
    #[inline(always)]
    fn store_low_bytes(self, x: F, to: &mut [i8; 16]) {
        let x = all!(vreinterpretq_s16_f32(x));
        // SAFETY: (1) NEON, by the build's target; (2) (3) (4) an exclusive reference to sixteen
        // bytes.
        unsafe {
            let low = vreinterpretq_s8_s16(vuzp1q_s16(x[0], x[1]));
            let high = vreinterpretq_s8_s16(vuzp1q_s16(x[2], x[3]));
            vst1q_s8(to.as_mut_ptr(), vuzp1q_s8(low, high));
        }
    }
}

/// Largest magnitude of what is no NaN.
#[cold]
fn magnitude_of_numbers(s: Neon, x: &[[f32; GROUP]]) -> f32 {
    let mut amax = s.splat(0.0);
    for chunk in x.as_flattened().as_chunks().0 {
        amax = s.larger_magnitude(s.load(chunk), amax);
    }
    s.largest(amax)
}

/// The halves of [`crate::math::sum_tree`] from four lanes on.
#[inline]
#[target_feature(enable = "neon")]
fn sum_of_four(x: float32x4_t) -> f32 {
    let two = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    vget_lane_f32::<0>(vpadd_f32(two, two))
}

#[inline]
#[target_feature(enable = "neon")]
fn sum_of_bytes(a: int8x16_t, b: int8x16_t) -> i32 {
    i32::from(vaddvq_s16(vpadalq_s8(vpaddlq_s8(a), b)))
}

impl Dot for Neon {
    /// Four activations for every row, four times.
    type Lhs = [int8x16_t; 4];
    /// In 32 bits; two lanes to a row.
    type Sums = [int32x4_t; 2];
    /// In 16 bits; four lanes to a row.
    type NibbleSums = [int16x8_t; 2];

    #[inline(always)]
    fn lhs(self, q: &[i8; 16]) -> [int8x16_t; 4] {
        // SAFETY: (1) NEON, by the build's target; (2) (3) a reference to 16 bytes.
        let int32x4x4_t(a, b, c, d) = unsafe { vld4q_dup_s32(q.as_ptr().cast()) };
        let fours = [a, b, c, d];
        all!(vreinterpretq_s8_s32(fours))
    }
    #[inline(always)]
    fn zero(self) -> [int32x4_t; 2] {
        // SAFETY: (1) NEON, by the build's target.
        [unsafe { vdupq_n_s32(0) }; 2]
    }
    #[inline(always)]
    fn add(
        self,
        [mut low, mut high]: [int32x4_t; 2],
        w: [int8x16_t; 4],
        lhs: [int8x16_t; 4],
    ) -> [int32x4_t; 2] {
        for j in [0, 2] {
            // SAFETY: (1) NEON, by the build's target.
            unsafe {
                let first = vmull_s8(vget_low_s8(w[j]), vget_low_s8(lhs[j]));
                let pair = vmlal_s8(first, vget_low_s8(w[j + 1]), vget_low_s8(lhs[j + 1]));
                low = vpadalq_s16(low, pair);
                let first = vmull_high_s8(w[j], lhs[j]);
                high = vpadalq_s16(high, vmlal_high_s8(first, w[j + 1], lhs[j + 1]));
            }
        }
        [low, high]
    }
    #[inline(always)]
    fn total(self, [low, high]: [int32x4_t; 2]) -> int32x4_t {
        // SAFETY: (1) NEON, by the build's target.
        unsafe { vpaddq_s32(low, high) }
    }
    #[inline(always)]
    fn nibble_zero(self, _: i32) -> [int16x8_t; 2] {
        // SAFETY: (1) NEON, by the build's target.
        [unsafe { vdupq_n_s16(0) }; 2]
    }
    #[inline(always)]
    fn nibble_add(
        self,
        [mut low, mut high]: [int16x8_t; 2],
        w: [int8x16_t; 4],
        lhs: [int8x16_t; 4],
    ) -> [int16x8_t; 2] {
        for j in 0..4 {
            // SAFETY: (1) NEON, by the build's target.
            unsafe {
                low = vmlal_s8(low, vget_low_s8(w[j]), vget_low_s8(lhs[j]));
                high = vmlal_high_s8(high, w[j], lhs[j]);
            }
        }
        [low, high]
    }
    #[inline(always)]
    fn nibble_total(self, [low, high]: [int16x8_t; 2], offset: i32) -> int32x4_t {
        // SAFETY: (1) NEON, by the build's target.
        unsafe { vsubq_s32(vpaddlq_s16(vpaddq_s16(low, high)), vdupq_n_s32(offset)) }
    }
}

#[target_feature(enable = "neon")]
fn matmul_q8(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    dot::matmul::<_, Q8, 1, 4>(Neon::new(), lhs, 0, records, dst);
}

#[target_feature(enable = "neon")]
fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    dot::matmul::<_, Q4, 2, 2>(Neon::new(), lhs, 0, records, dst);
}

#[target_feature(enable = "neon")]
fn matmul_q3(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    dot::matmul::<_, Q3, 2, 2>(Neon::new(), lhs, 0, records, dst);
}

#[target_feature(enable = "neon")]
fn scores_q8(
    queries: &[i8],
    scales: &[f32],
    keys: &[i8],
    key_scales: &[f32],
    _: Behind<'_>,
    scores: &mut [f32],
) {
    dot::scores_q8(Neon::new(), queries, scales, keys, key_scales, scores);
}

#[target_feature(enable = "neon")]
fn values_q8(high: &[u8], low: &[u8], scale: f32, values: &[i8], _: Behind<'_>, out: &mut [f32]) {
    let (high, low) = (bytemuck::cast_slice(high), bytemuck::cast_slice(low));
    dot::values_q8::<_, 2>(Neon::new(), high, low, scale, values, out, 0);
}
