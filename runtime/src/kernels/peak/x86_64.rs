//! x86-64 with AVX2, and with AVX-512 VNNI.

use core::arch::asm;
use core::arch::x86_64::*;
use core::hint::black_box;

use super::Table;
use crate::memory::Line;

pub(super) static AVX2: Table = Table {
    read: read_avx2,
    multiply_i8: maddubs,
    multiply_f32: fmadd_avx2,
    instruction_i8: "vpmaddubsw ymm",
    instruction_f32: "vfmadd ymm",
};

pub(super) static AVX512VNNI: Table = Table {
    read: read_avx512,
    multiply_i8: dpbusd,
    multiply_f32: fmadd_avx512,
    instruction_i8: "vpdpbusd zmm",
    instruction_f32: "vfmadd zmm",
};

/// Sums that are under way together: more than two multipliers times their latency.
const CHAINS: usize = 12;

fn xor_all(words: &[u64]) -> u64 {
    words.iter().fold(0, |a, b| a ^ b)
}

#[target_feature(enable = "avx2")]
fn read_avx2(lines: &[Line]) -> u64 {
    let mut sums = [_mm256_setzero_si256(); 8];
    let (fours, rest) = lines.as_chunks::<4>();
    for four in fours {
        let halves: &[[u8; 32]; 8] = bytemuck::cast_ref(four);
        for (sum, half) in sums.iter_mut().zip(halves) {
            // SAFETY: (2) (3) a reference to 32 bytes, any alignment will do.
            *sum = _mm256_xor_si256(*sum, unsafe { _mm256_loadu_si256(half.as_ptr().cast()) });
        }
    }
    let sums: [u64; 32] = bytemuck::cast(sums);
    xor_all(&sums) ^ xor_all(bytemuck::cast_slice(rest))
}

#[target_feature(enable = "avx512f")]
fn read_avx512(lines: &[Line]) -> u64 {
    let mut sums = [_mm512_setzero_si512(); 8];
    let (eights, rest) = lines.as_chunks::<8>();
    for eight in eights {
        for (sum, line) in sums.iter_mut().zip(eight) {
            // SAFETY: (2) (3) a reference to 64 bytes, any alignment will do.
            let line = unsafe { _mm512_loadu_si512(core::ptr::from_ref(line).cast()) };
            *sum = _mm512_xor_si512(*sum, line);
        }
    }
    let sum = sums.into_iter().fold(_mm512_setzero_si512(), |a, b| _mm512_xor_si512(a, b));
    let halves = [_mm512_extracti64x4_epi64::<0>(sum), _mm512_extracti64x4_epi64::<1>(sum)];
    xor_all(&bytemuck::cast::<_, [u64; 8]>(halves)) ^ xor_all(bytemuck::cast_slice(rest))
}

/// Products of unsigned and signed bytes, pairs of them added in 16 bits. Always executed: the
/// compiler would take the instruction out of a loop that gives it the same operands.
#[inline]
#[target_feature(enable = "avx2")]
fn maddubs_now(a: __m256i, b: __m256i) -> __m256i {
    let pairs;
    // SAFETY: (1) by the target features of this function; (4) it works on registers alone.
    unsafe {
        asm!(
            "vpmaddubsw {pairs}, {a}, {b}",
            pairs = lateout(ymm_reg) pairs,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(nomem, nostack, preserves_flags),
        );
    }
    pairs
}

/// As for nibbles, which is the fastest way that AVX2 has: eight products are added in 16 bits
/// before they are widened to 32.
#[target_feature(enable = "avx2")]
fn maddubs(rounds: u32) -> u64 {
    const CHAINS: usize = 4;
    let ones = black_box(_mm256_set1_epi8(1));
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    for _ in 0..rounds {
        let mut narrow = [maddubs_now(ones, ones); CHAINS];
        for narrow in &mut narrow[1..] {
            *narrow = maddubs_now(ones, ones);
        }
        for _ in 1..8 {
            for narrow in &mut narrow {
                *narrow = _mm256_add_epi16(*narrow, maddubs_now(ones, ones));
            }
        }
        for (sum, narrow) in sums.iter_mut().zip(narrow) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
        }
    }
    bytemuck::cast::<_, [i32; 8 * CHAINS]>(sums).iter().map(|&sum| sum as u64).sum()
}

#[target_feature(enable = "avx2,avx512f,avx512vnni")]
fn dpbusd(rounds: u32) -> u64 {
    let ones = black_box(_mm512_set1_epi8(1));
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, ones, ones);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_epi32(sum) as u64).sum()
}

#[target_feature(enable = "avx2,fma")]
fn fmadd_avx2(rounds: u32) -> u64 {
    let ones = black_box(_mm256_set1_ps(1.0));
    let mut sums = [_mm256_setzero_ps(); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(ones, ones, *sum);
        }
    }
    bytemuck::cast::<_, [f32; 8 * CHAINS]>(sums).iter().map(|&sum| sum as u64).sum()
}

#[target_feature(enable = "avx512f")]
fn fmadd_avx512(rounds: u32) -> u64 {
    let ones = black_box(_mm512_set1_ps(1.0));
    let mut sums = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(ones, ones, *sum);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum) as u64).sum()
}
