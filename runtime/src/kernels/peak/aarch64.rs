//! 64-bit ARM: NEON, with dotprod, with i8mm.

use core::arch::aarch64::*;
use core::arch::asm;
use core::hint::black_box;

use super::Table;
use crate::kernels::aarch64::asm::{sdot_lane, smmla};
use crate::memory::Line;

pub(super) static NEON: Table = Table {
    read,
    multiply_i8: smlal,
    multiply_f32: fmla,
    instruction_i8: "smlal",
    instruction_f32: "fmla",
};

pub(super) static DOTPROD: Table = Table { multiply_i8: sdot, instruction_i8: "sdot", ..NEON };

pub(super) static I8MM: Table =
    Table { multiply_i8: matrix_products, instruction_i8: "smmla", ..NEON };

/// Sums that are under way together: more than two multipliers times their latency.
const CHAINS: usize = 12;

fn add_all(sums: &[i32]) -> u64 {
    sums.iter().map(|&sum| sum as u64).sum()
}

#[target_feature(enable = "neon")]
fn read(lines: &[Line]) -> u64 {
    let mut sums = [vdupq_n_u64(0); 16];
    let (fours, rest) = lines.as_chunks::<4>();
    for four in fours {
        let quarters: &[[u64; 2]; 16] = bytemuck::cast_ref(four);
        for (sum, quarter) in sums.iter_mut().zip(quarters) {
            // SAFETY: (2) (3) a reference to two numbers.
            *sum = veorq_u64(*sum, unsafe { vld1q_u64(quarter.as_ptr()) });
        }
    }
    let sums: [u64; 32] = bytemuck::cast(sums);
    let rest: &[u64] = bytemuck::cast_slice(rest);
    sums.iter().chain(rest).fold(0, |a, b| a ^ b)
}

/// Adds products of the low or of the high eight bytes to sums of 16 bits. Always executed: the
/// compiler would take the products out of a loop that gives it the same operands.
macro_rules! smlal_now {
    ($instruction:literal, $width:literal, $sums:expr, $a:expr, $b:expr) => {{
        let mut sums = $sums;
        // SAFETY: (1) NEON, by the build's target; (4) it works on registers alone.
        unsafe {
            asm!(
                concat!($instruction, " {sums:v}.8h, {a:v}.", $width, ", {b:v}.", $width),
                sums = inout(vreg) sums,
                a = in(vreg) $a,
                b = in(vreg) $b,
                options(nomem, nostack, preserves_flags),
            );
        }
        sums
    }};
}

/// As for nibbles, which is the fastest way that NEON has: eight products are added in 16 bits
/// before they are widened to 32.
#[target_feature(enable = "neon")]
fn smlal(rounds: u32) -> u64 {
    const CHAINS: usize = 8;
    let ones = black_box(vdupq_n_s8(1));
    let mut sums = [vdupq_n_s32(0); CHAINS];
    for _ in 0..rounds {
        let mut narrow = [vdupq_n_s16(0); CHAINS];
        for _ in 0..4 {
            for narrow in &mut narrow {
                *narrow = smlal_now!("smlal", "8b", *narrow, ones, ones);
            }
            for narrow in &mut narrow {
                *narrow = smlal_now!("smlal2", "16b", *narrow, ones, ones);
            }
        }
        for (sum, narrow) in sums.iter_mut().zip(narrow) {
            *sum = vpadalq_s16(*sum, narrow);
        }
    }
    add_all(&bytemuck::cast::<_, [i32; 4 * CHAINS]>(sums))
}

#[target_feature(enable = "neon,dotprod")]
fn sdot(rounds: u32) -> u64 {
    let ones = black_box(vdupq_n_s8(1));
    let mut sums = [vdupq_n_s32(0); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sdot_lane::<0>(*sum, ones, ones);
        }
    }
    add_all(&bytemuck::cast::<_, [i32; 4 * CHAINS]>(sums))
}

#[target_feature(enable = "neon,i8mm")]
fn matrix_products(rounds: u32) -> u64 {
    let ones = black_box(vdupq_n_s8(1));
    let mut sums = [vdupq_n_s32(0); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = smmla(*sum, ones, ones);
        }
    }
    add_all(&bytemuck::cast::<_, [i32; 4 * CHAINS]>(sums))
}

#[target_feature(enable = "neon")]
fn fmla(rounds: u32) -> u64 {
    let ones = black_box(vdupq_n_f32(1.0));
    let mut sums = [vdupq_n_f32(0.0); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = vfmaq_f32(*sum, ones, ones);
        }
    }
    // Whole numbers, for they count.
    let sums: [f32; 4 * CHAINS] = bytemuck::cast(sums);
    sums.iter().map(|&sum| sum as u64).sum()
}
