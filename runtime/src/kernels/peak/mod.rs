//! What a CPU gives at most: loops that do nothing but read, or nothing but multiply and add.
//!
//! They are what the kernels are measured against, so each uses the instructions of its set that
//! are fastest at the one thing, and returns a number that it cannot have without doing all of it.

use super::Kernels;
use crate::isa::Isa;
use crate::memory::Line;

#[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
mod aarch64;
#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    target_feature = "sse2",
    feature = "std"
))]
mod amx;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86_64;

type Read = unsafe fn(&[Line]) -> u64;
type Multiply = unsafe fn(u32) -> u64;

/// The loops of an instruction set.
struct Table {
    read: Read,
    multiply_i8: Multiply,
    multiply_f32: Multiply,
    instruction_i8: &'static str,
    instruction_f32: &'static str,
}

/// The loops of a set of kernels' instructions; see [`Kernels::peak`].
#[derive(Clone, Copy)]
pub struct Peak {
    table: &'static Table,
}

impl core::fmt::Debug for Peak {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Table { instruction_i8, instruction_f32, .. } = self.table;
        f.debug_tuple("Peak").field(instruction_i8).field(instruction_f32).finish()
    }
}

impl Kernels {
    /// What this CPU gives at most with the instructions of these kernels.
    pub fn peak(&self) -> Peak {
        let table = match self.isa() {
            Isa::Scalar => &scalar::TABLE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &x86_64::AVX2,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => &x86_64::AVX512VNNI,
            #[cfg(all(
                target_arch = "x86_64",
                target_pointer_width = "64",
                target_feature = "sse2",
                feature = "std"
            ))]
            Isa::Amx => &amx::TABLE,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
            Isa::Neon => &aarch64::NEON,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
            Isa::Dotprod => &aarch64::DOTPROD,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
            Isa::I8mm => &aarch64::I8MM,
            // There are no kernels for instructions of other architectures.
            _ => &scalar::TABLE,
        };
        Peak { table }
    }
}

impl Peak {
    /// Most rounds of one call: sums stay exact.
    pub const MAX_ROUNDS: u32 = 1 << 20;

    /// Reads every byte once, front to back. Returns the exclusive or of all 64-bit numbers, so
    /// that none may be left out.
    pub fn read(&self, lines: &[Line]) -> u64 {
        // SAFETY: (1) this was made from kernels that prove the CPU.
        unsafe { (self.table.read)(lines) }
    }

    /// Multiplies bytes and adds the products to integers, all in registers: some hundred at a time, with AMX some ten thousand,
    /// `rounds` times. Returns how many multiply-adds these were, as the registers counted them.
    ///
    /// # Panics
    /// If there are more than [`Self::MAX_ROUNDS`] rounds.
    pub fn multiply_i8(&self, rounds: u32) -> u64 {
        assert!(rounds <= Self::MAX_ROUNDS);
        // SAFETY: (1) this was made from kernels that prove the CPU; (2) rounds were checked.
        unsafe { (self.table.multiply_i8)(rounds) }
    }

    /// The same with f32 and fused multiply-adds.
    ///
    /// # Panics
    /// If there are more than [`Self::MAX_ROUNDS`] rounds.
    pub fn multiply_f32(&self, rounds: u32) -> u64 {
        assert!(rounds <= Self::MAX_ROUNDS);
        // SAFETY: (1) this was made from kernels that prove the CPU; (2) rounds were checked.
        unsafe { (self.table.multiply_f32)(rounds) }
    }

    /// What [`Self::multiply_i8`] multiplies with, for reports.
    pub fn instruction_i8(&self) -> &'static str {
        self.table.instruction_i8
    }

    /// What [`Self::multiply_f32`] multiplies with, for reports.
    pub fn instruction_f32(&self) -> &'static str {
        self.table.instruction_f32
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn sets() -> impl Iterator<Item = Kernels> {
        Isa::available().filter_map(Kernels::for_isa)
    }

    #[test]
    fn every_byte_is_read() {
        let mut lines = Vec::new();
        for n in 0..70u64 {
            let words: &[u64] = bytemuck::cast_slice(&lines);
            let expected = words.iter().fold(0, |a, b| a ^ b);
            for kernels in sets() {
                assert_eq!(kernels.peak().read(&lines), expected, "{kernels:?}, {n} lines");
            }
            let word = |i: u64| (8 * n + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            lines.push(bytemuck::cast(core::array::from_fn::<_, 8, _>(|i| word(i as u64))));
        }
    }

    #[test]
    fn multiply_adds_are_counted() {
        for kernels in sets() {
            let peak = kernels.peak();
            for multiply in [Peak::multiply_i8, Peak::multiply_f32] {
                let one = multiply(&peak, 1);
                assert!(one > 0, "{kernels:?}");
                for rounds in [0, 2, 1000, Peak::MAX_ROUNDS] {
                    let expected = one * u64::from(rounds);
                    assert_eq!(multiply(&peak, rounds), expected, "{kernels:?}, {rounds}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "rounds <= ")]
    fn too_many_rounds_are_refused() {
        sets().next().unwrap().peak().multiply_f32(Peak::MAX_ROUNDS + 1);
    }
}
