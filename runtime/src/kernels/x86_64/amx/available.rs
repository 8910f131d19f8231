//! Whether the CPU has AMX, and the system lets this process use it.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

use crate::kernels::x86_64::ahead::Answer;

/// Whether this CPU has AMX for bytes, and the system lets this process use it. The first answer is kept.
///
/// See [`crate::isa::Isa::Amx`] for what asking does to the process.
pub(crate) fn is_available() -> bool {
    static ANSWER: Answer = Answer::unknown();
    ANSWER.get(|| u8::from(!cfg!(miri) && has_instructions() && is_permitted())) == 1
}

/// AMX-TILE and AMX-INT8 (Intel, Software Developer's Manual, volume 2, `CPUID`).
fn has_instructions() -> bool {
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8
}

/// Linux wants to be asked for the registers, once in a process, for all its threads
/// (`Documentation/arch/x86/xstate.rst`). One that does not know the question says no, and so does one where a
/// thread has an alternate signal stack that is too small for the registers.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XTILEDATA: u64 = 18;
    let result: u64;
    // SAFETY: (1) part of every x86-64; (2) the call takes numbers and touches no memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Other systems are untried.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    /// As the system lists them.
    #[test]
    fn the_right_bits_are_looked_at() {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has = |name| cpu.split_ascii_whitespace().any(|word| word == name);
        if has("flags") {
            assert_eq!(has_instructions(), has("amx_tile") && has("amx_int8"));
        }
    }
}
