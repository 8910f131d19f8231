//! Weights asked for well ahead of the product of one token, on CPUs that need it. Products of several
//! tokens ask for the next record where this says so.
//!
//! Zen 4 fetches a matrix ahead by itself, at the speed of plain loads, and whoever asks for more
//! than 256 bytes ahead slows it down. Zen 5 reads 1.7 times as fast, but only when it is asked:
//! see `docs/performance.md`.

use core::arch::x86_64::*;
use core::sync::atomic::{AtomicU8, Ordering};

use super::prefetch_line;
use crate::quant::tile::{self, ROWS};

/// How far ahead. On Zen 5 8 KB are up to 3 % faster where all comes from memory, 12 KB up to 7 % where half
/// of it is in the cache.
const BYTES: usize = 10 << 10;

/// Zen 5's. Later ones are taken to be alike.
const FAMILY: u32 = 0x1a;

/// Whether this CPU needs it.
#[inline]
pub(in crate::kernels) fn is_needed() -> bool {
    static ANSWER: Answer = Answer::unknown();
    #[cfg(test)]
    if let Some(needed) = tests::DECIDED.get() {
        return needed;
    }
    ANSWER.get(is_zen5)
}

/// Asked for once: in a virtual machine it takes microseconds.
struct Answer(AtomicU8);

impl Answer {
    const NO: u8 = 1;
    const YES: u8 = 2;

    const fn unknown() -> Self {
        Self(AtomicU8::new(0))
    }

    #[inline]
    fn get(&self, ask: fn() -> bool) -> bool {
        match self.0.load(Ordering::Relaxed) {
            Self::YES => true,
            Self::NO => false,
            _ => {
                let answer = ask();
                self.0.store(if answer { Self::YES } else { Self::NO }, Ordering::Relaxed);
                answer
            }
        }
    }
}

#[cold]
fn is_zen5() -> bool {
    if cfg!(miri) {
        return false;
    }
    let vendor = __cpuid(0);
    let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    name.as_flattened() == b"AuthenticAMD" && family(__cpuid(1).eax) >= FAMILY
}

/// The family in the first register of leaf 1 (AMD64 Architecture Programmer's Manual, volume 3,
/// appendix E.3.1).
const fn family(signature: u32) -> u32 {
    let (base, extended) = (signature >> 8 & 0xf, signature >> 20 & 0xff);
    if base == 0xf { base + extended } else { base }
}

/// Asks for what the product of one token will read: while a group is multiplied, for as many bytes as it
/// takes with its block scales.
///
/// Whatever the product reads itself, lines are asked for evenly and in the order of their addresses, and
/// none is left out: the hardware takes that up and fetches on. Asked for weights and for scales where
/// each of them is read, it gives 33 instead of 41 GB/s.
pub(super) struct Ahead {
    next: *const u8,
}

impl Ahead {
    /// [`BYTES`] behind the beginning of a record. Asks for as much as its row scales take.
    #[inline(always)]
    pub(super) fn of(record: &[u8]) -> Self {
        let next = record.as_ptr().wrapping_add(BYTES);
        prefetch_line(next);
        Self { next: next.wrapping_add(tile::ROW_SCALES_BYTES) }
    }

    /// For a line of a group's weights, or of a row, where it is read. With AVX-512 in q8, 47 GB/s are read that way
    /// and 37 if all lines of a group are asked for before one is read; for the slower AVX2 it is all the same.
    #[inline(always)]
    pub(super) fn ask_line(&self, line: usize) {
        prefetch_line(self.next.wrapping_add(64 * line));
    }

    /// For what a group's block scales take: for a line, of which the next group takes the rest.
    #[inline(always)]
    pub(super) fn end_group(&mut self, weights: usize) {
        self.ask_line(weights / 64);
        self.next = self.next.wrapping_add(weights + ROWS);
    }

    /// For all that a group takes.
    #[inline(always)]
    pub(super) fn ask_group(&mut self, weights: usize) {
        for line in 0..weights / 64 {
            self.ask_line(line);
        }
        self.end_group(weights);
    }
}

/// Rows of a head's cache, of whole lines, that are read one after the other, and what is read behind
/// them. They are asked for in the same way, line by line where a line is read.
pub(super) struct Rows {
    rows: *const u8,
    behind: *const u8,
    row: usize,
    len: usize,
}

impl Rows {
    /// How far ahead, but no further than there are rows.
    const BYTES: usize = 8 << 10;

    /// Rows of so many bytes.
    #[inline(always)]
    pub(super) fn new(rows: &[u8], row: usize, behind: &[i8]) -> Self {
        // Where there is nothing behind them, what is in the cache already is asked for.
        let behind = if behind.is_empty() { rows.as_ptr() } else { behind.as_ptr().cast() };
        Self { rows: rows.as_ptr(), behind, row, len: rows.len() }
    }

    /// What to ask for with the lines of the `i`-th row.
    #[inline(always)]
    pub(super) fn behind(&self, i: usize) -> Ahead {
        let at = i * self.row + Self::BYTES.min(self.len);
        let next = match at.checked_sub(self.len) {
            None => self.rows.wrapping_add(at),
            Some(at) => self.behind.wrapping_add(at),
        };
        Ahead { next }
    }
}

#[cfg(test)]
pub(in crate::kernels) mod tests {
    use core::cell::Cell;

    use super::*;

    std::thread_local! {
        /// What this thread takes for the answer, whatever the CPU is.
        pub(in crate::kernels) static DECIDED: Cell<Option<bool>> = const { Cell::new(None) };
    }

    #[test]
    fn families() {
        // Signatures of Zen 5 (9005), Zen 4 (9004), Zen 3 (7003), and of Intel's Sapphire Rapids.
        let signatures = [0x00b0_0f21, 0x00a1_0f11, 0x00a0_0f11, 0x000c_06f8];
        assert_eq!(signatures.map(family), [0x1a, 0x19, 0x19, 6]);
    }

    #[test]
    fn the_cpu_is_asked_once() {
        for (ask, expected) in [((|| true) as fn() -> bool, true), (|| false, false)] {
            let answer = Answer::unknown();
            assert_eq!(answer.get(ask), expected);
            assert_eq!(answer.get(|| panic!("asked twice")), expected);
        }
    }
}
