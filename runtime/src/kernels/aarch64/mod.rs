//! Kernels for 64-bit ARM.
//!
//! A tile of sixteen output rows by four inputs is four registers, each the four inputs of four
//! rows. [`dot`] holds what the sets share; they differ in the instruction that multiplies bytes.
//! Where many tokens are multiplied at once, [`panel`] does it.

use core::arch::aarch64::*;

pub(in crate::kernels) mod asm;
mod attention;
mod dot;
pub(super) mod dotprod;
mod exp;
pub(super) mod i8mm;
pub(super) mod neon;
mod panel;
mod quantize;

/// `a * b + c` with one rounding, for builds where `core` has none.
#[cfg_attr(feature = "std", allow(dead_code))]
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    // SAFETY: (1) this module is compiled only for targets that have NEON.
    unsafe { vget_lane_f32::<0>(vfma_f32(vdup_n_f32(c), vdup_n_f32(a), vdup_n_f32(b))) }
}

/// Correctly rounded square root, for builds where `core` has none.
#[cfg_attr(feature = "std", allow(dead_code))]
#[inline(always)]
pub(crate) fn sqrt(x: f32) -> f32 {
    // SAFETY: (1) this module is compiled only for targets that have NEON.
    unsafe { vget_lane_f32::<0>(vsqrt_f32(vdup_n_f32(x))) }
}
