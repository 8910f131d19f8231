//! AVX2 with FMA and F16C: sixteen output rows in two registers, four inputs of each in one lane.
//!
//! `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs in 16 bits. The nibbles of q4
//! are unsigned as they are, and a whole group of 32 fits 16 bits: 8 · 2 · 15 · 127 = 30480. With one
//! token q8 weights give their sign to the activations first: 2 · 128 · 127 fits, so nothing
//! saturates. With several they are multiplied in 16 bits, see `tiles`. For many tokens all weights are
//! unpacked beforehand, see `many`.

mod attention;
pub(in crate::kernels) mod many;
mod matmul;
mod tiles;

use core::arch::x86_64::*;

use super::{halves_max, halves_sum};
use crate::format::Encoding;
use crate::isa::Isa;
use crate::kernels::generic::{self, Lanes};
use crate::kernels::{Columns, FloatLhs, Table};
use crate::math::Simd;
use crate::quant::tile::{self, ROWS};
use attention::{scores_q8, values_q8};
use matmul::{matmul_q3, matmul_q4, matmul_q8};

/// Proof that the CPU has the instructions: made only in functions that require them.
#[derive(Clone, Copy)]
struct Avx2(());

kernel_table!(Isa::Avx2, "avx2,fma,f16c", Avx2(()), tokens = 5);

/// A method whose instructions the token promises, on both halves.
macro_rules! both {
    ($f:ident($($x:ident),*)) => {
        // SAFETY: (1) the token is made only in functions with these target features.
        unsafe { [$f($($x[0]),*), $f($($x[1]),*)] }
    };
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    #[inline(always)]
    fn splat(self, x: f32) -> [__m256; 2] {
        // SAFETY: (1) the token is made only in functions with these target features.
        [unsafe { _mm256_set1_ps(x) }; 2]
    }
    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: [__m256; 2]) -> [__m256; 2] {
        let sign = self.splat(-0.0);
        both!(_mm256_andnot_ps(sign, a))
    }
    #[inline(always)]
    fn select_lt(
        self,
        a: [__m256; 2],
        b: [__m256; 2],
        x: [__m256; 2],
        y: [__m256; 2],
    ) -> [__m256; 2] {
        // No closure here nor below: it would lack the target features, and its intrinsics would
        // become calls.
        // SAFETY: (1) the token is made only in functions with these target features.
        let mask = unsafe {
            [_mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])]
        };
        both!(_mm256_blendv_ps(y, x, mask))
    }
    #[inline(always)]
    fn ldexp_magic(self, a: [__m256; 2], magic: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: (1) the token is made only in functions with these target features.
        let n = unsafe {
            [
                _mm256_slli_epi32::<23>(_mm256_castps_si256(magic[0])),
                _mm256_slli_epi32::<23>(_mm256_castps_si256(magic[1])),
            ]
        };
        let bits = both!(_mm256_castps_si256(a));
        let sum = both!(_mm256_add_epi32(bits, n));
        both!(_mm256_castsi256_ps(sum))
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [__m256; 2] {
        // SAFETY: (1) by the token; (2) (3) a reference to sixteen f32, any alignment will do.
        unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from[8..].as_ptr())] }
    }
    #[inline(always)]
    fn store(self, x: [__m256; 2], to: &mut [f32; 16]) {
        // SAFETY: (1) by the token; (2) (3) (4) an exclusive reference to sixteen f32.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), x[1]);
        }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; 16]) -> [__m256; 2] {
        // SAFETY: (1) by the token; (2) (3) a reference to sixteen u16, any alignment will do.
        unsafe {
            let half = |i: usize| _mm256_cvtph_ps(_mm_loadu_si128(from[i..].as_ptr().cast()));
            [half(0), half(8)]
        }
    }
    #[inline(always)]
    fn sum(self, x: [__m256; 2]) -> f32 {
        // SAFETY: (1) the token is made only in functions with these target features.
        unsafe { halves_sum(_mm256_add_ps(x[0], x[1])) }
    }
    #[inline(always)]
    fn largest(self, x: [__m256; 2]) -> f32 {
        // SAFETY: (1) the token is made only in functions with these target features.
        unsafe { halves_max(_mm256_max_ps(x[0], x[1])) }
    }
    #[inline(always)]
    fn store_low_bytes(self, x: [__m256; 2], to: &mut [i8; 16]) {
        // SAFETY: (1) by the token; (2) (3) (4) an exclusive reference to sixteen bytes.
        unsafe {
            let bits = [_mm256_castps_si256(x[0]), _mm256_castps_si256(x[1])];
            _mm_storeu_si128(to.as_mut_ptr().cast(), low_bytes(bits));
        }
    }
    #[inline(always)]
    fn store_halves(self, x: [__m256; 2], high: &mut [u8; 16], low: &mut [u8; 16]) {
        // SAFETY: (1) by the token; (2) (3) (4) exclusive references to sixteen bytes.
        unsafe {
            let bits = [_mm256_castps_si256(x[0]), _mm256_castps_si256(x[1])];
            let mask = _mm_set1_epi8(127);
            let shifted = [_mm256_srli_epi32::<7>(bits[0]), _mm256_srli_epi32::<7>(bits[1])];
            let high_bits = _mm_and_si128(low_bytes(shifted), mask);
            let low_bits = _mm_and_si128(low_bytes(bits), mask);
            _mm_storeu_si128(high.as_mut_ptr().cast(), high_bits);
            _mm_storeu_si128(low.as_mut_ptr().cast(), low_bits);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(from: &[u8; 32]) -> __m256i {
    // SAFETY: (2) (3) a reference to 32 bytes, any alignment will do.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Four activations in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(four: &[i8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_ne_bytes(four.map(|x| x as u8)))
}

/// Sixteen bytes of block scales.
#[inline]
#[target_feature(enable = "avx2")]
fn load_scales(from: &[u8; ROWS]) -> __m128i {
    // SAFETY: (2) (3) a reference to 16 bytes, any alignment will do.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Products of signed bytes, four to a lane.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_signed(w: __m256i, a: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// The low byte of each lane.
#[inline]
#[target_feature(enable = "avx2")]
fn low_bytes(x: [__m256i; 2]) -> __m128i {
    let low = _mm256_set1_epi32(255);
    let words = _mm256_packus_epi32(_mm256_and_si256(x[0], low), _mm256_and_si256(x[1], low));
    // Lanes 0 to 3, 8 to 11, 4 to 7, 12 to 15.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
    _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
}
