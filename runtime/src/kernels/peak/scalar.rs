//! Plain Rust.

use core::hint::black_box;

use super::Table;
use crate::math;
use crate::memory::Line;

pub(super) static TABLE: Table = Table {
    read,
    multiply_i8,
    multiply_f32,
    instruction_i8: "plain Rust",
    instruction_f32: "plain Rust",
};

fn read(lines: &[Line]) -> u64 {
    let words: &[[u64; 8]] = bytemuck::cast_slice(lines);
    let mut sums = [0; 8];
    for words in words {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum ^= word;
        }
    }
    sums.iter().fold(0, |a, b| a ^ b)
}

fn multiply_i8(rounds: u32) -> u64 {
    let (a, b) = ([1i8; 64], [1i8; 64]);
    let mut total = 0;
    for _ in 0..rounds {
        // Read anew each time: else all rounds would become one multiplication.
        let products = black_box(&a).iter().zip(black_box(&b));
        total += products.map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>() as u64;
    }
    total
}

fn multiply_f32(rounds: u32) -> u64 {
    let (a, b) = (black_box(1.0), black_box(1.0));
    let mut sums = [0.0; 8];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = math::fma(a, b, *sum);
        }
    }
    sums.iter().map(|&sum| sum as u64).sum()
}
