//! Weights asked for well ahead of the product of one token, on CPUs that need it. Products of several
//! tokens ask for the next record where this says so.
//!
//! Zen 4 fetches a matrix ahead by itself, at the speed of plain loads, and whoever asks for more
//! than 256 bytes ahead slows it down. Zen 5 reads 1.7 times as fast, but only when it is asked:
//! see `docs/performance.md`.

use core::arch::x86_64::*;
use core::sync::atomic::{AtomicU8, Ordering};

/// How far ahead: the best of 256 bytes to 16 KB on Zen 5, where 6 KB are 3 % slower and 12 KB 10 %.
const BYTES: usize = 8192;

/// Zen 5's. Later ones are taken to be alike.
const FAMILY: u32 = 0x1a;

/// Whether this CPU needs it.
#[inline]
pub(super) fn is_needed() -> bool {
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

/// Asks for as many bytes as a part of a record has, at [`BYTES`] behind its beginning. All parts of
/// a record have to be asked for: what is left out is waited for later.
#[inline(always)]
pub(super) fn ask(part: &[u8]) {
    for line in part.chunks_exact(64) {
        // SAFETY: (1) part of every x86-64; (2) prefetching does not access memory, and the
        // address is made without promising that anything is there.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(BYTES).cast()) }
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
