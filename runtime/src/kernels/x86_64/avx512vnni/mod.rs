//! AVX-512 with VNNI: sixteen output rows in one register, four inputs of each in one lane.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes. The nibbles of q4 are unsigned as they are;
//! q8 weights become unsigned by flipping the sign bit, which adds 128. What that adds to a sum is
//! taken off again with the sum of the activations, exactly.

mod attention;
pub(super) mod matmul;
mod quantize;

use core::arch::x86_64::*;

use super::{halves_max, halves_sum};
use crate::format::Encoding;
use crate::isa::Isa;
use crate::kernels::generic::{self, Lanes};
use crate::kernels::{Columns, FloatLhs, Table};
use crate::math::Simd;
use crate::quant::tile::{self, GROUP, ROWS};
use attention::{scores_q8, values_q8};
use matmul::{matmul_q3, matmul_q4, matmul_q8};

/// Proof that the CPU has the instructions: made only in functions that require them.
#[derive(Clone, Copy)]
struct Avx512(());

kernel_table!(
    Isa::Avx512Vnni,
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
    Avx512(()),
    tokens = 12
);

/// A method whose instructions the token promises.
macro_rules! op {
    ($($call:tt)*) => {
        // SAFETY: (1) the token is made only in functions with these target features.
        unsafe { $($call)* }
    };
}

impl Simd for Avx512 {
    type F = __m512;
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        op!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        op!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        op!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x))
    }
    #[inline(always)]
    fn ldexp_magic(self, a: __m512, magic: __m512) -> __m512 {
        op!(_mm512_castsi512_ps(_mm512_add_epi32(
            _mm512_castps_si512(a),
            _mm512_slli_epi32::<23>(_mm512_castps_si512(magic))
        )))
    }
}

impl Lanes for Avx512 {
    #[inline(always)]
    fn quantize_first(
        self,
        x: &[[f32; GROUP]],
        q: &mut [[i8; GROUP]],
        scales: &mut [f32],
        sums: &mut [i32],
    ) -> usize {
        let numbers = scales.as_chunks_mut().0.iter_mut().zip(sums.as_chunks_mut().0);
        let mut done = 0;
        for ((x, q), (scales, sums)) in x.as_chunks().0.iter().zip(q.as_chunks_mut().0).zip(numbers)
        {
            if !op!(quantize::quantize(x, q, scales, sums)) {
                break;
            }
            done += quantize::AT_ONCE;
        }
        done
    }
    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512 {
        // SAFETY: (1) by the token; (2) (3) a reference to sixteen f32, any alignment will do.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, x: __m512, to: &mut [f32; 16]) {
        // SAFETY: (1) by the token; (2) (3) (4) an exclusive reference to sixteen f32.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; 16]) -> __m512 {
        // SAFETY: (1) by the token; (2) (3) a reference to sixteen u16, any alignment will do.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        op!(halves_sum(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x))))
    }
    #[inline(always)]
    fn largest(self, x: __m512) -> f32 {
        op!(halves_max(_mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x))))
    }
    #[inline(always)]
    fn store_halves(self, x: __m512, high: &mut [u8; 16], low: &mut [u8; 16]) {
        // SAFETY: (1) by the token; (2) (3) (4) exclusive references to sixteen bytes.
        unsafe {
            let (bits, mask) = (_mm512_castps_si512(x), _mm512_set1_epi32(127));
            let high_bits = _mm512_and_si512(_mm512_srli_epi32::<7>(bits), mask);
            let low_bits = _mm512_and_si512(bits, mask);
            _mm_storeu_si128(high.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(high_bits));
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(low_bits));
        }
    }
    #[inline(always)]
    fn store_low_bytes(self, x: __m512, to: &mut [i8; 16]) {
        // SAFETY: (1) by the token; (2) (3) (4) an exclusive reference to sixteen bytes.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_castps_si512(x));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(from: &[u8; 64]) -> __m512i {
    // SAFETY: (2) (3) a reference to 64 bytes, any alignment will do.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_ps(from: &[u8; 64]) -> __m512 {
    _mm512_castsi512_ps(load(from))
}

/// Four activations in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(four: &[i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_ne_bytes(four.map(|x| x as u8)))
}

/// Sixteen bytes of block scales.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_scales(from: &[u8; ROWS]) -> __m128i {
    // SAFETY: (2) (3) a reference to 16 bytes, any alignment will do.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}
