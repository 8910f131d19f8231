//! Elementary functions that give the same bits on every target.
//!
//! `core` has no `exp`, no `sqrt` and no fused multiply-add, and those of C libraries differ from
//! each other in the last bit. So these are ours: each is a fixed sequence of IEEE operations,
//! written once over [`Simd`] and run on one number ([`One`], the specification) or on the lanes
//! of a vector register.
#![allow(clippy::excessive_precision)]

/// Operations that every target rounds alike, on one number or on sixteen lanes.
///
/// The value of the type is the proof that the CPU has the instructions; see the constructors of
/// its implementations.
pub trait Simd: Copy {
    /// One number per lane.
    type F: Copy;
    /// The same number in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: the second when one is NaN
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: the second when one is NaN
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `min(max(a, low), high)`: `low` for a NaN; neither limit is zero.
    #[inline(always)]
    fn clamp(self, a: Self::F, low: f32, high: f32) -> Self::F {
        self.min(self.max(a, self.splat(low)), self.splat(high))
    }
    /// `max(a, low)`: `low` for a NaN; it is not zero.
    #[inline(always)]
    fn at_least(self, a: Self::F, low: f32) -> Self::F {
        self.max(a, self.splat(low))
    }
    /// Sign bit cleared
    fn abs(self, a: Self::F) -> Self::F;
    /// `if a < b { x } else { y }`
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// `a · 2^n` by adding `n` to the exponent bits, where `magic` is `n + ROUND_MAGIC`; the
    /// result must be a normal number.
    fn ldexp_magic(self, a: Self::F, magic: Self::F) -> Self::F;
    /// `e^x` of −88..=88; below −87.3 some positive number below 2^-125.
    #[inline(always)]
    fn exp_clamped(self, x: Self::F) -> Self::F {
        exp_steps(self, x)
    }
}

/// Adding this rounds to an integer, ties to even, and leaves that integer in the low bits:
/// 1.5 · 2^23, for magnitudes below 2^22.
pub const ROUND_MAGIC: f32 = 12_582_912.0;

/// One number: the specification.
#[derive(Clone, Copy, Debug)]
pub struct One;

impl Simd for One {
    type F = f32;
    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        fma(a, b, c)
    }
    #[inline(always)]
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    #[inline(always)]
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    #[inline(always)]
    fn abs(self, a: f32) -> f32 {
        a.abs()
    }
    #[inline(always)]
    fn select_lt(self, a: f32, b: f32, x: f32, y: f32) -> f32 {
        if a < b { x } else { y }
    }
    #[inline(always)]
    fn ldexp_magic(self, a: f32, magic: f32) -> f32 {
        f32::from_bits(a.to_bits().wrapping_add(magic.to_bits() << 23))
    }
}

/// `a * b + c` with one rounding, on any target.
///
/// The product of two f32 is exact in f64. Their sum with `c` is rounded to odd (Boldo and
/// Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to
/// odd", 2008), which makes the second rounding, to f32, the only one that shows.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(all(feature = "std", any(target_feature = "fma", target_arch = "aarch64")))]
    return a.mul_add(b, c);
    #[cfg(all(
        not(feature = "std"),
        target_arch = "aarch64",
        target_feature = "neon",
        target_endian = "little"
    ))]
    return crate::kernels::aarch64::fma(a, b, c);
    #[allow(unreachable_code)]
    fma_by_f64(a, b, c)
}

#[inline(always)]
#[cfg_attr(any(target_feature = "fma", target_arch = "aarch64"), allow(dead_code))]
fn fma_by_f64(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = product + c;
    // Knuth's two-sum: what the addition lost, exactly.
    let c_part = sum - product;
    let lost = (product - (sum - c_part)) + (c - c_part);
    let bits = sum.to_bits();
    // Where something was lost and the last bit is even, step towards the exact value.
    let inexact = lost != 0.0 && sum.is_finite() && bits & 1 == 0;
    let towards_larger_magnitude = (lost > 0.0) == (sum > 0.0);
    let step = if towards_larger_magnitude { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact { step } else { bits }) as f32
}

/// Correctly rounded square root of a number that is not negative.
pub fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(all(
        not(feature = "std"),
        target_arch = "aarch64",
        target_feature = "neon",
        target_endian = "little"
    ))]
    return crate::kernels::aarch64::sqrt(x);
    #[allow(unreachable_code)]
    sqrt_by_bits(x)
}

/// Square root digit by digit, for targets where `core` has none.
#[cfg_attr(any(feature = "std", target_arch = "aarch64"), allow(dead_code))]
fn sqrt_by_bits(x: f32) -> f32 {
    if x == 0.0 || !x.is_finite() || x < 0.0 {
        return if x < 0.0 { f32::NAN } else { x };
    }
    // x = m · 2^e with an even e and 2^48 <= m < 2^50, so that the root has 25 bits.
    let bits = x.to_bits();
    let (mut mantissa, mut exponent) = (u64::from(bits & 0x7f_ffff), (bits >> 23) as i32);
    if exponent == 0 {
        exponent = 1;
    } else {
        mantissa |= 0x80_0000;
    }
    exponent -= 150;
    let shift = mantissa.leading_zeros() as i32 - 15;
    mantissa <<= shift;
    exponent -= shift;
    if exponent % 2 != 0 {
        mantissa <<= 1;
        exponent -= 1;
    }
    let mut root = 0u64;
    for bit in (0..25).rev() {
        let trial = root | 1 << bit;
        if trial * trial <= mantissa {
            root = trial;
        }
    }
    // One bit more than an f32 holds; a rest makes it odd for the final rounding. The root of an
    // f32 is never halfway between two others.
    let sticky = u64::from(root * root != mantissa);
    let value = (root << 1 | sticky) as f32;
    let half_exponent = exponent / 2 - 1;
    value * f32::from_bits(((half_exponent + 127) as u32) << 23)
}

/// `e^x`, relative error below 1.5 · 2^-23 (tested against f64).
///
/// Inputs are clamped to −88..=88; below −87.3, where results would be subnormal, it is 0.
/// Cody and Waite's reduction to `x = n·ln 2 + r`, and a polynomial for `e^r` fitted on
/// |r| ≤ ln 2 / 2.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    zero_if_tiny(s, x, s.exp_clamped(s.clamp(x, -88.0, 88.0)))
}

/// [`exp`] of numbers that are not above 88, or NaN.
#[inline(always)]
pub fn exp_of_small<S: Simd>(s: S, x: S::F) -> S::F {
    zero_if_tiny(s, x, s.exp_clamped(s.at_least(x, -88.0)))
}

/// `1 + exp(x)`: what [`exp`] takes for zero is below 2^-125 here, and is lost in the sum as well.
#[inline(always)]
fn one_plus_exp<S: Simd>(s: S, x: S::F) -> S::F {
    s.add(s.splat(1.0), s.exp_clamped(s.clamp(x, -88.0, 88.0)))
}

/// e^-88 is subnormal, and what [`Simd::exp_clamped`] makes of it is not used.
#[inline(always)]
fn zero_if_tiny<S: Simd>(s: S, x: S::F, exp: S::F) -> S::F {
    s.select_lt(x, s.splat(-87.3), s.splat(0.0), exp)
}

/// −ln 2 in two parts, the first of few bits.
pub(crate) const MINUS_LN_2: [f32; 2] = [-0.693_359_375, 2.121_944_4e-4];

/// `(e^r − 1 − r) / r²` for |r| ≤ ln 2 / 2, from the highest power down.
pub(crate) const EXP_POLYNOMIAL: [f32; 5] =
    [0.001_395_048_6, 0.008_368_887_9, 0.041_666_206, 0.166_665_18, 0.5];

/// [`Simd::exp_clamped`] step by step.
#[inline(always)]
pub(crate) fn exp_steps<S: Simd>(s: S, x: S::F) -> S::F {
    let magic = s.fma(x, s.splat(core::f32::consts::LOG2_E), s.splat(ROUND_MAGIC));
    let n = s.sub(magic, s.splat(ROUND_MAGIC));
    let r = s.fma(n, s.splat(MINUS_LN_2[0]), x);
    let r = s.fma(n, s.splat(MINUS_LN_2[1]), r);
    let mut q = s.splat(EXP_POLYNOMIAL[0]);
    for &c in &EXP_POLYNOMIAL[1..] {
        q = s.fma(q, r, s.splat(c));
    }
    let p = s.add(s.fma(s.mul(r, r), q, r), s.splat(1.0));
    s.ldexp_magic(p, magic)
}

/// `x / (1 + e^-x)` (SiLU).
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    s.div(x, one_plus_exp(s, s.sub(s.splat(0.0), x)))
}

/// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))` (Hugging Face's `gelu_new`).
///
/// Since `0.5 (1 + tanh u) = 1 / (1 + e^-2u)`, one exponential and one division do.
#[inline(always)]
pub fn gelu_new<S: Simd>(s: S, x: S::F) -> S::F {
    let cubic = s.fma(s.mul(x, x), s.splat(0.044_715), s.splat(1.0));
    // 2 √(2/π)
    let minus_2u = s.mul(s.mul(s.splat(-1.595_769_1), x), cubic);
    s.div(x, one_plus_exp(s, minus_2u))
}

/// `0.5 x (1 + erf(x / √2))` (Hugging Face's `gelu`).
///
/// `erfc(t) = u · exp(P(u) − t²)` with `u = 1 / (1 + t/2)`, the form of Numerical Recipes'
/// `erfc`, with a polynomial of our own fit on 0 ≤ t ≤ 9.
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let t = s.mul(s.abs(x), s.splat(core::f32::consts::FRAC_1_SQRT_2));
    let u = s.div(s.splat(1.0), s.fma(t, s.splat(0.5), s.splat(1.0)));
    let mut p = s.splat(0.133_384_35);
    for c in [
        -0.617_430_27,
        1.006_220_5,
        -0.494_003_47,
        -0.249_297_43,
        0.092_080_899,
        0.003_332_127_4,
        0.393_273_47,
        0.997_848_57,
        -1.265_408_8,
    ] {
        p = s.fma(p, u, s.splat(c));
    }
    let minus_t2 = s.mul(s.sub(s.splat(0.0), t), t);
    let erfc = s.mul(u, exp(s, s.add(minus_t2, p)));
    let one_plus_erf = s.select_lt(x, s.splat(0.0), erfc, s.sub(s.splat(2.0), erfc));
    s.mul(s.mul(s.splat(0.5), x), one_plus_erf)
}

/// `max(x, 0)`
#[inline(always)]
pub fn relu<S: Simd>(s: S, x: S::F) -> S::F {
    s.max(x, s.splat(0.0))
}

/// Natural logarithm of a positive, normal number, within 1 ulp.
///
/// FreeBSD's `e_log.c` (Sun Microsystems 1993) in plain f64 operations: `x = 2^k (1 + f)`, and a
/// polynomial in `f / (2 + f)`.
pub fn ln(x: f64) -> f64 {
    debug_assert!(x.is_normal() && x > 0.0);
    // Bits of √2/2 above the point where the mantissa is taken to begin.
    const SHIFT: u64 = 0x3ff0_0000_0000_0000 - 0x3fe6_a09e_667f_3bcd;
    let bits = x.to_bits().wrapping_add(SHIFT);
    let k = (bits >> 52) as i32 - 1023;
    let f = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) + 0x3fe6_a09e_667f_3bcd) - 1.0;
    let s = f / (2.0 + f);
    let (z, half) = (s * s, 0.5 * f * f);
    let mut r = 0.0;
    for c in [
        1.479819860511658591e-01,
        1.531383769920937332e-01,
        1.818357216161805012e-01,
        2.222219843214978396e-01,
        2.857142874366239149e-01,
        3.999999999940941908e-01,
        6.666666666666735130e-01,
    ] {
        r = (r + c) * z;
    }
    let k = f64::from(k);
    s * (half + r) + k * 1.90821492927058770002e-10 - half + f + k * 6.93147180369123816490e-01
}

/// `x^y` for a positive, normal `x` and a result within 2^±1000, with some ulp of error.
///
/// `e^(y ln x)`, the exponential as in FreeBSD's `e_exp.c` (Sun Microsystems 1993).
pub fn powf(x: f64, y: f64) -> f64 {
    let exponent = y * ln(x);
    debug_assert!(exponent.abs() < 693.0);
    // Rounds to an integer as `ROUND_MAGIC` does in f32.
    let magic = 6_755_399_441_055_744.0;
    let n = exponent * core::f64::consts::LOG2_E + magic - magic;
    let high = exponent - n * 6.93147180369123816490e-01;
    let low = n * 1.90821492927058770002e-10;
    let r = high - low;
    let z = r * r;
    let mut p = 0.0;
    for c in [
        4.13813679705723846039e-08,
        -1.65339022054652515390e-06,
        6.61375632143793436117e-05,
        -2.77777777770155933842e-03,
        1.66666666666666019037e-01,
    ] {
        p = (p + c) * z;
    }
    let c = r - p;
    let power = 1.0 + (r * c / (2.0 - c) - low + high);
    power * f64::from_bits(((1023 + n as i64) as u64) << 52)
}

/// Sum of sixteen lanes in one fixed order: halves are added, 8, 4, 2, 1.
#[inline(always)]
pub fn sum_tree(mut lanes: [f32; 16]) -> f32 {
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Largest of sixteen lanes, in the order of [`sum_tree`].
#[inline(always)]
pub fn max_tree(mut lanes: [f32; 16]) -> f32 {
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] = One.max(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(from: f32, to: f32) -> impl Iterator<Item = f32> {
        let steps = 200_000;
        (0..=steps).map(move |i| from + (to - from) * (i as f32 / steps as f32))
    }

    #[test]
    fn exp_is_within_its_bound() {
        let mut worst = 0.0f64;
        for x in samples(-87.2, 88.0) {
            let exact = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(One, x)) - exact) / exact).abs());
        }
        assert!(worst < 1.5 / f64::from(1 << 23), "{worst}");
        assert_eq!(exp(One, 0.0), 1.0);
        assert_eq!(exp(One, -100.0), 0.0);
        assert_eq!(exp(One, f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn shorter_forms_of_exp_give_the_same_bits() {
        let all = (0..1u64 << 32).step_by(4099).map(|bits| f32::from_bits(bits as u32));
        // A signalling NaN, which no operation returns, is another matter.
        let all = all.filter(|x| !x.is_nan() || x.to_bits() & 1 << 22 != 0);
        for x in samples(-90.0, -86.0).chain(samples(-1.0, 1.0)).chain(all) {
            let (plus, e) = (one_plus_exp(One, x), exp(One, x));
            assert_eq!(plus.to_bits(), (1.0 + e).to_bits(), "{x}");
            if x <= 88.0 || x.is_nan() {
                assert_eq!(exp_of_small(One, x).to_bits(), e.to_bits(), "{x}");
            }
        }
    }

    #[test]
    fn logarithms_and_powers_are_close_to_those_of_std() {
        for x in samples(1e-3, 5000.0).map(f64::from) {
            let exact = x.ln();
            assert!((ln(x) - exact).abs() <= 3e-16 * exact.abs().max(1e-3), "{x}");
            for y in [-10.0, -0.7, 0.0, 0.6, 1.0, 2.0, 10.0] {
                let exact = x.powf(y);
                assert!((powf(x, y) - exact).abs() <= 2e-14 * exact, "{x}^{y}");
            }
        }
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(powf(1.0, -3.5), 1.0);
        assert_eq!(powf(40.0, 2.0) as f32, 1600.0);
    }

    #[test]
    fn activations_are_close_to_f64() {
        // erf by its Taylor series, good below 3.
        let erf = |x: f64| {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * core::f64::consts::FRAC_2_SQRT_PI
        };
        for x in samples(-4.0, 4.0) {
            let d = f64::from(x);
            let tanh = (0.7978845608028654 * (d + 0.044715 * d * d * d)).tanh();
            assert!((f64::from(gelu_new(One, x)) - 0.5 * d * (1.0 + tanh)).abs() < 5e-7, "{x}");
            let exact = 0.5 * d * (1.0 + erf(d / 2f64.sqrt()));
            assert!((f64::from(gelu(One, x)) - exact).abs() < 5e-7, "{x}");
            assert!((f64::from(silu(One, x)) - d / (1.0 + (-d).exp())).abs() < 5e-7, "{x}");
        }
        for f in [gelu_new::<One>, gelu::<One>, silu::<One>] {
            assert_eq!(f(One, 50.0), 50.0);
            assert!(f(One, -50.0).abs() < 1e-20);
        }
    }

    #[test]
    fn emulated_fma_and_sqrt_round_once() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 32) as u32
        };
        for i in 0..2_000_000u32 {
            // Exponents near each other, so that all bits matter; and any bits at all.
            let mut number = |i: u32| {
                let bits = next();
                let near = bits & 0x80ff_ffff | 0x3f00_0000;
                f32::from_bits(if i.is_multiple_of(4) { bits } else { near })
            };
            let (a, b, c) = (number(i), number(i), number(i + 1));
            let (ours, std) = (fma_by_f64(a, b, c), a.mul_add(b, c));
            assert!(
                ours.to_bits() == std.to_bits() || ours.is_nan() && std.is_nan(),
                "{a} {b} {c}"
            );
            let (ours, std) = (sqrt_by_bits(a.abs()), a.abs().sqrt());
            assert!(ours.to_bits() == std.to_bits() || ours.is_nan() && std.is_nan(), "{a}");
        }
        assert_eq!(sqrt_by_bits(f32::from_bits(1)), f32::from_bits(1).sqrt());
    }
}
