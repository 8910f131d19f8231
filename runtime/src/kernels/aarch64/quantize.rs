//! Quantization of finite numbers, two groups or a whole head at a time.

use core::arch::aarch64::*;

use crate::kernels::scalar::{TINY, group_scale};
use crate::math::ROUND_MAGIC;
use crate::quant::tile::GROUP;

/// Thirty-two numbers.
type Group = [float32x4_t; 8];

#[inline]
#[target_feature(enable = "neon")]
fn load(x: &[f32; GROUP]) -> Group {
    let mut group = [vdupq_n_f32(0.0); 8];
    for (out, four) in group.iter_mut().zip(x.as_chunks::<4>().0) {
        // SAFETY: (2) (3) a reference to four f32.
        *out = unsafe { vld1q_f32(four.as_ptr()) };
    }
    group
}

/// Largest magnitudes in four lanes: NaN where one is NaN, as `fmax` has it.
#[inline]
#[target_feature(enable = "neon")]
fn magnitudes(x: &Group) -> float32x4_t {
    let mut max = [vdupq_n_f32(0.0); 4];
    for i in 0..4 {
        max[i] = vmaxq_f32(vabsq_f32(x[i]), vabsq_f32(x[i + 4]));
    }
    vmaxq_f32(vmaxq_f32(max[0], max[1]), vmaxq_f32(max[2], max[3]))
}

/// Rounds numbers that are multiplied with lane `LANE` of `inverses`, none of which is more than
/// 127 then; returns their sums in eight lanes.
#[inline]
#[target_feature(enable = "neon")]
fn round<const LANE: i32>(x: Group, inverses: float32x4_t, q: &mut [i8; GROUP]) -> int16x8_t {
    let mut pairs = [vdupq_n_s8(0); 4];
    for i in 0..4 {
        let a = vaddq_f32(vmulq_laneq_f32::<LANE>(x[2 * i], inverses), vdupq_n_f32(ROUND_MAGIC));
        let b =
            vaddq_f32(vmulq_laneq_f32::<LANE>(x[2 * i + 1], inverses), vdupq_n_f32(ROUND_MAGIC));
        let low = vuzp1q_s16(vreinterpretq_s16_f32(a), vreinterpretq_s16_f32(b));
        pairs[i] = vreinterpretq_s8_s16(low);
    }
    let (a, b) = (vuzp1q_s8(pairs[0], pairs[1]), vuzp1q_s8(pairs[2], pairs[3]));
    let (first, second) = q.split_at_mut(16);
    // SAFETY: (2) (3) (4) exclusive references to sixteen bytes each.
    unsafe {
        vst1q_s8(first.as_mut_ptr(), a);
        vst1q_s8(second.as_mut_ptr(), b);
    }
    vpadalq_s8(vpaddlq_s8(a), b)
}

/// Two groups, if all their numbers are finite: else nothing is done, and the answer is no.
///
/// Not four: the compiler would keep all of their numbers, which takes more registers than there
/// are.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn two_groups(
    x: &[[f32; GROUP]; 2],
    q: &mut [[i8; GROUP]; 2],
    scales: &mut [f32; 2],
    sums: &mut [i32; 2],
) -> bool {
    let (a, b) = (load(&x[0]), load(&x[1]));
    let amax = vpmaxq_f32(magnitudes(&a), magnitudes(&b));
    let amax = vpmax_f32(vget_low_f32(amax), vget_high_f32(amax));
    // Not so for a NaN.
    let finite = vmaxv_f32(amax) < f32::INFINITY;
    if !finite {
        return false;
    }
    // As `group_scale` has it.
    let tiny = vclt_f32(amax, vdup_n_f32(TINY));
    let scale = vmul_f32(amax, vdup_n_f32(1.0 / 127.0));
    let inverse = vdiv_f32(vdup_n_f32(127.0), amax);
    let scale = vreinterpret_f32_u32(vbic_u32(vreinterpret_u32_f32(scale), tiny));
    let inverse = vreinterpret_f32_u32(vbic_u32(vreinterpret_u32_f32(inverse), tiny));
    let inverse = vcombine_f32(inverse, inverse);
    let [q_a, q_b] = q;
    let both = vpaddq_s16(round::<0>(a, inverse, q_a), round::<1>(b, inverse, q_b));
    let both = vpadd_s16(vget_low_s16(both), vget_high_s16(both));
    // SAFETY: (2) (3) (4) exclusive references to two numbers each.
    unsafe {
        vst1_f32(scales.as_mut_ptr(), scale);
        vst1_s32(sums.as_mut_ptr(), vpaddl_s16(both));
    }
    true
}

/// One group of 64 numbers, if they are finite: its scale and sum.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn head(x: &[[f32; GROUP]; 2], q: &mut [[i8; GROUP]; 2]) -> Option<(f32, i32)> {
    let (a, b) = (load(&x[0]), load(&x[1]));
    let amax = vmaxvq_f32(vmaxq_f32(magnitudes(&a), magnitudes(&b)));
    let finite = amax < f32::INFINITY;
    if !finite {
        return None;
    }
    let (scale, inverse) = group_scale(amax);
    let inverses = vdupq_n_f32(inverse);
    let [q_a, q_b] = q;
    let sums = vaddq_s16(round::<0>(a, inverses, q_a), round::<0>(b, inverses, q_b));
    Some((scale, i32::from(vaddvq_s16(sums))))
}
