//! Ends QEMU with an exit code (`-semihosting`).

/// `SYS_EXIT_EXTENDED` of Arm's semihosting, which takes a code on either architecture.
pub fn end(ok: bool) -> ! {
    let application_exit = 0x20026_usize;
    let block = [application_exit, usize::from(!ok)];
    loop {
        // SAFETY: the debugger that this calls reads the block and ends the program.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            core::arch::asm!("hlt #0xf000", inout("x0") 0x20_usize => _, in("x1") &block)
        };
        // SAFETY: as above.
        #[cfg(target_arch = "arm")]
        unsafe {
            core::arch::asm!("bkpt #0xab", inout("r0") 0x20_usize => _, in("r1") &block)
        };
    }
}
