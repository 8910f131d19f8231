//! The exponential of sixteen numbers, [`math::exp_steps`] one by one.
//!
//! `fmla` adds to a register that it overwrites, so a polynomial's coefficients have to be brought
//! anew for each step. A compiler copies them from register to register; here one load brings
//! four.

use core::arch::aarch64::*;
use core::arch::asm;

use crate::math::{self, ROUND_MAGIC};

/// What is added in each step that adds a constant, as four registers, in the order of the steps.
static ADDENDS: [[f32; 16]; 5] = {
    let c = math::EXP_POLYNOMIAL;
    [[ROUND_MAGIC; 16], [c[1]; 16], [c[2]; 16], [c[3]; 16], [c[4]; 16]]
};

/// What is multiplied with.
static FACTORS: [f32; 4] = {
    let [high, low] = math::MINUS_LN_2;
    [core::f32::consts::LOG2_E, high, low, math::EXP_POLYNOMIAL[0]]
};

/// The same instruction for four registers.
macro_rules! four {
    ($name:literal, $($a:literal $b:literal),*; $last:literal) => {
        concat!($($name, " ", $a, ".4s, ", $b, ".4s, ", $last, "\n"),*)
    };
    ($name:literal, $($a:literal $b:literal $c:literal),*) => {
        concat!($($name, " ", $a, ".4s, ", $b, ".4s, ", $c, ".4s\n"),*)
    };
}

/// `e^x` of −88..=88; below −87.3 some positive number below 2^-125.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn exp_clamped([mut a, mut b, mut c, mut d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: (1) by the target features of this function; (2) (3) it reads the five rows of
    // `ADDENDS`.
    unsafe {
        asm!(
            // n + magic
            "ld1 {{v16.4s-v19.4s}}, [{addends}], #64",
            four!("fmla", "v16" "{a:v}", "v17" "{b:v}", "v18" "{c:v}", "v19" "{d:v}"; "{factors:v}.s[0]"),
            // n
            four!("fsub", "v20" "v16", "v21" "v17", "v22" "v18", "v23" "v19"; "{magic:v}.4s"),
            // r, where x was
            four!("fmla", "{a:v}" "v20", "{b:v}" "v21", "{c:v}" "v22", "{d:v}" "v23"; "{factors:v}.s[1]"),
            four!("fmla", "{a:v}" "v20", "{b:v}" "v21", "{c:v}" "v22", "{d:v}" "v23"; "{factors:v}.s[2]"),
            // q
            "ld1 {{v20.4s-v23.4s}}, [{addends}], #64",
            four!("fmla", "v20" "{a:v}", "v21" "{b:v}", "v22" "{c:v}", "v23" "{d:v}"; "{factors:v}.s[3]"),
            "ld1 {{v24.4s-v27.4s}}, [{addends}], #64",
            four!("fmla", "v24" "v20" "{a:v}", "v25" "v21" "{b:v}", "v26" "v22" "{c:v}", "v27" "v23" "{d:v}"),
            "ld1 {{v20.4s-v23.4s}}, [{addends}], #64",
            four!("fmla", "v20" "v24" "{a:v}", "v21" "v25" "{b:v}", "v22" "v26" "{c:v}", "v23" "v27" "{d:v}"),
            "ld1 {{v24.4s-v27.4s}}, [{addends}]",
            four!("fmla", "v24" "v20" "{a:v}", "v25" "v21" "{b:v}", "v26" "v22" "{c:v}", "v27" "v23" "{d:v}"),
            // r + r² q + 1
            four!("fmul", "v20" "{a:v}" "{a:v}", "v21" "{b:v}" "{b:v}", "v22" "{c:v}" "{c:v}", "v23" "{d:v}" "{d:v}"),
            four!("fmla", "{a:v}" "v20" "v24", "{b:v}" "v21" "v25", "{c:v}" "v22" "v26", "{d:v}" "v23" "v27"),
            four!("fadd", "{a:v}" "{a:v}", "{b:v}" "{b:v}", "{c:v}" "{c:v}", "{d:v}" "{d:v}"; "{one:v}.4s"),
            // times 2^n: n is added to the exponent, shifted there by a product
            four!("mla", "{a:v}" "v16", "{b:v}" "v17", "{c:v}" "v18", "{d:v}" "v19"; "{exponent:v}.4s"),
            addends = inout(reg) ADDENDS.as_ptr() => _,
            factors = in(vreg) vld1q_f32(FACTORS.as_ptr()),
            magic = in(vreg) vdupq_n_f32(ROUND_MAGIC),
            one = in(vreg) vdupq_n_f32(1.0),
            exponent = in(vreg) vdupq_n_s32(1 << 23),
            a = inout(vreg) a,
            b = inout(vreg) b,
            c = inout(vreg) c,
            d = inout(vreg) d,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            options(pure, readonly, nostack),
        );
    }
    [a, b, c, d]
}
