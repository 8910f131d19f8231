//! What QEMU does for the program (`-semihosting`): a line on its standard error, and an exit code.

use core::fmt::{Arguments, Write};

/// A call of Arm's semihosting.
fn call(operation: usize, argument: *const ()) {
    // SAFETY: the debugger that this calls reads what the argument points to.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("hlt #0xf000", inout("x0") operation => _, in("x1") argument)
    };
    // SAFETY: as above.
    #[cfg(target_arch = "arm")]
    unsafe {
        core::arch::asm!("bkpt #0xab", inout("r0") operation => _, in("r1") argument)
    };
}

/// Writes a line, apart from what goes to the UART.
pub fn note(text: Arguments<'_>) {
    struct Line([u8; 80], usize);
    impl Write for Line {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            for &byte in text.as_bytes() {
                *self.0.get_mut(self.1).ok_or(core::fmt::Error)? = byte;
                self.1 += 1;
            }
            Ok(())
        }
    }
    let mut line = Line([0; 80], 0);
    // SYS_WRITE0 takes a text that ends with NUL; one that does not fit is left out.
    if write!(line, "{text}\n\0").is_ok() {
        call(0x04, (&raw const line.0).cast());
    }
}

/// `SYS_EXIT_EXTENDED`, which takes a code on either architecture.
pub fn end(ok: bool) -> ! {
    let application_exit = 0x20026_usize;
    let block = [application_exit, usize::from(!ok)];
    loop {
        call(0x20, (&raw const block).cast());
    }
}
