//! QEMU's `virt` machine: PL011 UART, PL061 GPIO.

use core::convert::Infallible;
use core::ops::Range;

use embedded_hal::digital::{ErrorType, OutputPin};

pub use super::aarch64::Timer;
pub use super::pl011::Uart;
use super::{Board, Register};

/// All below RAM.
pub const DEVICES: Range<u64> = 0..0x4000_0000;
const UART0: usize = 0x0900_0000;
const GPIO: usize = 0x0903_0000;

pub fn board() -> Board {
    Register(GPIO + 0x400).write(1); // DIR: line 0 is an output
    Board { uart: Uart::new(UART0), pin: Pin, timer: Timer }
}

/// Line 0.
pub struct Pin;

impl Pin {
    fn set(&mut self, level: u32) {
        // DATA: bits 2 to 9 of the address say which lines are written.
        Register(GPIO + (1 << 2)).write(level);
    }
}

impl ErrorType for Pin {
    type Error = Infallible;
}

impl OutputPin for Pin {
    fn set_high(&mut self) -> Result<(), Infallible> {
        self.set(1);
        Ok(())
    }

    fn set_low(&mut self) -> Result<(), Infallible> {
        self.set(0);
        Ok(())
    }
}
