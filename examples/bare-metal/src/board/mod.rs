//! The board: its start-up code, and what the firmware uses of it.
//!
//! Each board gives `Uart` ([`embedded_io::Write`]), `Pin` ([`embedded_hal::digital::OutputPin`]),
//! `Timer` ([`embedded_hal::delay::DelayNs`]) and `Board::take`. Yours has them in its HAL crate.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(feature = "mps2-an500")]
mod mps2_an500;
#[cfg(any(feature = "raspi3b", feature = "virt"))]
mod pl011;
#[cfg(feature = "raspi3b")]
mod raspi3b;
#[cfg(feature = "semihosting")]
mod semihosting;
#[cfg(feature = "semihosting")]
mod stack;
#[cfg(feature = "virt")]
mod virt;

use core::fmt::Write;
use core::panic::PanicInfo;

#[cfg(feature = "mps2-an500")]
use mps2_an500 as this;
#[cfg(feature = "raspi3b")]
use raspi3b as this;
#[cfg(feature = "virt")]
use virt as this;

use this::{Pin, Timer, Uart};

/// What the firmware has.
pub struct Board {
    /// The serial port, 115200 baud.
    pub uart: Uart,
    /// A lamp.
    pub pin: Pin,
    /// Time that can be waited for.
    pub timer: Timer,
}

/// Where start-up code ends: the FPU is on, memory is as the program expects it.
fn start() -> ! {
    #[cfg(feature = "semihosting")]
    stack::paint();
    if let Err(error) = crate::main(this::board()) {
        stop(format_args!("error: {error}"));
    }
    #[cfg(feature = "semihosting")]
    semihosting::note(format_args!("stack: {} bytes used", stack::used()));
    end(true)
}

/// Tells on the serial port why there is no going on.
fn stop(why: core::fmt::Arguments<'_>) -> ! {
    struct Text(Uart);
    impl Write for Text {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            let Ok(()) = embedded_io::Write::write_all(&mut self.0, text.as_bytes());
            Ok(())
        }
    }
    let _ = writeln!(Text(this::board().uart), "\n{why}");
    end(false)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    stop(format_args!("{info}"))
}

#[cfg(feature = "semihosting")]
use semihosting::end;

/// Sleeps for good.
#[cfg(not(feature = "semihosting"))]
fn end(_ok: bool) -> ! {
    loop {
        // SAFETY: waiting for an event has no other effect.
        unsafe { core::arch::asm!("wfe", options(nomem, nostack)) };
    }
}

/// A register of the board.
#[derive(Clone, Copy)]
struct Register(usize);

impl Register {
    fn read(self) -> u32 {
        // SAFETY: the boards' files name registers of 32 bits that are there.
        unsafe { (self.0 as *const u32).read_volatile() }
    }

    fn write(self, value: u32) {
        // SAFETY: as above; none of them reaches into the program's memory.
        unsafe { (self.0 as *mut u32).write_volatile(value) }
    }
}
