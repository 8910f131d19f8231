//! Activations of sixteen groups quantized at once.

use core::arch::x86_64::*;

use crate::kernels::scalar::TINY;
use crate::math::ROUND_MAGIC;
use crate::quant::tile::GROUP;

/// Groups that are quantized together: their maxima, scales and sums are the lanes of a register.
pub(super) const AT_ONCE: usize = 16;

/// Quantizes sixteen groups, unless one of their numbers is not finite: then it is as if nothing had
/// been done, and the answer is no.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn quantize(
    x: &[[f32; GROUP]; AT_ONCE],
    q: &mut [[i8; GROUP]; AT_ONCE],
    scales: &mut [f32; AT_ONCE],
    sums: &mut [i32; AT_ONCE],
) -> bool {
    // SAFETY: (2) (3) (4) loads and stores are of sixteen f32, i32 or i8 that are borrowed.
    unsafe {
        let mut largest = [_mm512_setzero_si512(); AT_ONCE];
        for (largest, x) in largest.iter_mut().zip(x) {
            let sign = _mm512_set1_epi32(i32::MIN);
            let [a, b] = halves(x);
            let (a, b) = (_mm512_andnot_si512(sign, a), _mm512_andnot_si512(sign, b));
            // As integers, magnitudes are in the same order; what is not finite is the largest.
            *largest = _mm512_max_epu32(a, b);
        }
        let largest = reduce::<Largest>(largest);
        let infinity = _mm512_set1_epi32(f32::INFINITY.to_bits() as i32);
        if _mm512_cmpge_epu32_mask(largest, infinity) != 0 {
            return false;
        }
        let largest = _mm512_castsi512_ps(largest);
        let some = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(largest, _mm512_set1_ps(TINY));
        let scale = _mm512_maskz_mul_ps(some, largest, _mm512_set1_ps(1.0 / 127.0));
        _mm512_storeu_ps(scales.as_mut_ptr(), scale);
        let mut inverses = [0.0f32; AT_ONCE];
        let inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(127.0), largest);
        _mm512_storeu_ps(inverses.as_mut_ptr(), inverse);

        let magic = _mm512_set1_ps(ROUND_MAGIC);
        let mut sum = [_mm512_setzero_si512(); AT_ONCE];
        for i in 0..AT_ONCE {
            let inverse = _mm512_set1_ps(inverses[i]);
            let [a, b] = halves(&x[i]);
            let (a, b) = (_mm512_castsi512_ps(a), _mm512_castsi512_ps(b));
            // No number times 127 / the largest rounds to more than 127.
            let a = _mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(a, inverse), magic));
            let b = _mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(b, inverse), magic));
            let (low, high) = q[i].split_at_mut(GROUP / 2);
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(a));
            _mm_storeu_si128(high.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(b));
            sum[i] = _mm512_add_epi32(a, b);
        }
        // The bits of a rounded number are those of the magic one, plus the integer.
        let of_magic = (GROUP as i32).wrapping_mul(ROUND_MAGIC.to_bits() as i32);
        let sum = _mm512_sub_epi32(reduce::<Sum>(sum), _mm512_set1_epi32(of_magic));
        _mm512_storeu_si512(sums.as_mut_ptr().cast(), sum);
        true
    }
}

/// A group's bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(x: &[f32; GROUP]) -> [__m512i; 2] {
    // SAFETY: (2) (3) a reference to 32 f32, any alignment will do.
    unsafe {
        let x = x.as_ptr();
        [_mm512_loadu_si512(x.cast()), _mm512_loadu_si512(x.add(GROUP / 2).cast())]
    }
}

/// An operation whose order does not matter.
trait Operation {
    fn of(a: __m512i, b: __m512i) -> __m512i;
}

struct Largest;
struct Sum;

impl Operation for Largest {
    #[inline(always)]
    fn of(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: (1) called from functions with these target features only.
        unsafe { _mm512_max_epu32(a, b) }
    }
}

impl Operation for Sum {
    #[inline(always)]
    fn of(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: (1) called from functions with these target features only.
        unsafe { _mm512_add_epi32(a, b) }
    }
}

/// What each register's lanes come to together, in the lane of its number.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce<O: Operation>(x: [__m512i; 16]) -> __m512i {
    let mut fours = [_mm512_setzero_si512(); 4];
    for i in 0..4 {
        let [a, b, c, d] = [x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]];
        let ab = O::of(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = O::of(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        fours[i] = O::of(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    }
    // Each quarter of a register holds something of its four.
    let [a, b, c, d] = fours;
    let ab = O::of(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
    let cd = O::of(_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
    O::of(_mm512_shuffle_i32x4::<0x88>(ab, cd), _mm512_shuffle_i32x4::<0xdd>(ab, cd))
}
