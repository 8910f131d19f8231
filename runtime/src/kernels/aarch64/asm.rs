//! Instructions that `core::arch` has no stable functions for.

use core::arch::aarch64::*;
use core::arch::asm;

/// Adds to each of four lanes the sum of the products of its four signed bytes with the four
/// bytes of lane `LANE` of `b`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels) fn sdot_lane<const LANE: i32>(
    mut sums: int32x4_t,
    a: int8x16_t,
    b: int8x16_t,
) -> int32x4_t {
    // SAFETY: (1) by the target features of this function; (4) it works on registers alone.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Adds to a 2×2 matrix the product of 2×8 signed bytes with the transpose of 2×8 others.
#[cfg(feature = "bench")]
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(in crate::kernels) fn smmla(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: (1) by the target features of this function; (4) it works on registers alone.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
