//! Whether the CPU has AMX, and the system lets this process use it.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU8, Ordering};

/// Whether this CPU has AMX for bytes, and the system lets this process use it. Asked for once: the
/// answer stays the same.
pub(crate) fn is_available() -> bool {
    const UNKNOWN: u8 = 0;
    const NO: u8 = 1;
    const YES: u8 = 2;
    static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);
    let known = ANSWER.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return known == YES;
    }
    let answer = !cfg!(miri) && has_instructions() && is_permitted();
    ANSWER.store(if answer { YES } else { NO }, Ordering::Relaxed);
    answer
}

/// AMX-TILE and AMX-INT8 (Intel, Software Developer's Manual, volume 2, `CPUID`).
fn has_instructions() -> bool {
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8
}

/// Linux wants to be asked for the registers, once in a process, for all its threads
/// (`Documentation/arch/x86/xstate.rst`). One that does not know the question says no.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XTILEDATA: usize = 18;
    let result: usize;
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
