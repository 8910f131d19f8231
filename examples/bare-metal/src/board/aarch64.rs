//! Start-up of a 64-bit Arm CPU: one core, EL1, FPU, stack, an identity map with caches on.
//!
//! Without the map all memory is taken for a device: atomics and unaligned access are not allowed
//! there and every access goes to DRAM.

use core::arch::{asm, global_asm};

use embedded_hal::delay::DelayNs;

use super::{start, stop, this};

global_asm!(
    r#"
.section .text.boot
.global _start
_start:
    mrs     x0, mpidr_el1           // one core works, the others sleep
    tst     x0, #0xff
    b.ne    9f
    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.ne    1f
    mov     x0, #(1 << 31)          // from EL2, where a Raspberry Pi starts, to EL1
    msr     hcr_el2, x0
    mov     x0, #0x33ff
    msr     cptr_el2, x0
    mov     x0, #3
    msr     cnthctl_el2, x0
    msr     cntvoff_el2, xzr
    mov     x0, #0x3c5
    msr     spsr_el2, x0
    adr     x0, 1f
    msr     elr_el2, x0
    eret
1:  mov     x0, #(3 << 20)          // FPU and NEON
    msr     cpacr_el1, x0
    adrp    x0, vectors
    add     x0, x0, :lo12:vectors
    msr     vbar_el1, x0
    isb
    adrp    x0, __stack_top
    add     x0, x0, :lo12:__stack_top
    mov     sp, x0
    adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __bss_end
    add     x1, x1, :lo12:__bss_end
2:  cmp     x0, x1
    b.eq    3f
    stp     xzr, xzr, [x0], #16
    b       2b
3:  bl      {rust_start}
9:  wfe
    b       9b

.balign 2048
vectors:
.rept 16
    bl      {exception}
    .balign 128
.endr
"#,
    rust_start = sym rust_start,
    exception = sym exception,
);

extern "C" fn rust_start() -> ! {
    turn_caches_on();
    start()
}

/// Nothing is meant to interrupt the program, so every exception is a mistake.
extern "C" fn exception() -> ! {
    let (why, at, address): (u64, u64, u64);
    // SAFETY: reading these registers has no effect.
    unsafe {
        asm!("mrs {}, esr_el1", "mrs {}, elr_el1", "mrs {}, far_el1",
            out(reg) why, out(reg) at, out(reg) address, options(nomem, nostack));
    }
    stop(format_args!("exception: esr {why:#x}, at {at:#x}, address {address:#x}"))
}

/// A table of the map, read by the CPU.
#[repr(C, align(4096))]
struct Table([u64; 512]);
/// Four entries of 1 GB, of which the first is cut into 512 of 2 MB.
static mut GIGABYTES: Table = Table([0; 512]);
static mut FIRST: Table = Table([0; 512]);

/// Maps the first 4 GB to themselves, memory cached and the board's devices not.
fn turn_caches_on() {
    const MEGABYTE: u64 = 1 << 20;
    let block = |address: u64| {
        let device = this::DEVICES.contains(&address);
        // Valid, accessed; memory is inner shareable with attributes 0, devices have attributes 1
        // and are not executable.
        let attributes = if device { 1 << 10 | 1 << 2 | 1 << 54 } else { 1 << 10 | 3 << 8 };
        address | attributes | 1
    };
    // SAFETY: one core, no interrupts: nothing else uses the tables, and the map that is turned on
    // leaves every address what it is.
    unsafe {
        let (gigabytes, first) = (&raw mut GIGABYTES.0, &raw mut FIRST.0);
        for i in 0..512 {
            (*first)[i] = block(2 * MEGABYTE * i as u64);
        }
        for i in 0..4 {
            (*gigabytes)[i] = block(1024 * MEGABYTE * i as u64);
        }
        (*gigabytes)[0] = first as u64 | 0b11;
        asm!(
            "dsb sy",
            "msr mair_el1, {mair}",
            "msr tcr_el1, {tcr}",
            "msr ttbr0_el1, {table}",
            "tlbi vmalle1",
            "dsb nsh",
            "isb",
            "mrs {tcr}, sctlr_el1",
            "orr {tcr}, {tcr}, {on}",
            "msr sctlr_el1, {tcr}",
            "isb",
            // 0: write-back memory. 1: device, nGnRE.
            mair = in(reg) 0x04ff_u64,
            // 32 bits of address, walks cached, pages of 4 KB, no second table.
            tcr = inout(reg) 32_u64 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 => _,
            table = in(reg) gigabytes,
            // Map, data cache, instruction cache.
            on = in(reg) 1_u64 | 1 << 2 | 1 << 12,
        );
    }
}

/// The CPU's own counter.
pub struct Timer;

impl DelayNs for Timer {
    fn delay_ns(&mut self, ns: u32) {
        let frequency: u64;
        // SAFETY: reading this register has no effect.
        unsafe { asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack)) };
        let ticks = (u64::from(ns) * frequency).div_ceil(1_000_000_000);
        let start = count();
        while count() - start <= ticks {}
    }
}

fn count() -> u64 {
    let count;
    // SAFETY: reading this register has no effect.
    unsafe { asm!("isb", "mrs {}, cntpct_el0", out(reg) count, options(nomem, nostack)) };
    count
}
