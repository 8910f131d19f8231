//! Raspberry Pi 3 (BCM2837): PL011 on pins 8 and 10, lamp on GPIO 21 (pin 40).
//!
//! On the board itself `config.txt` needs `enable_uart=1` and `dtoverlay=disable-bt`.

use core::convert::Infallible;
use core::ops::Range;

use embedded_hal::digital::{ErrorType, OutputPin};

pub use super::aarch64::Timer;
pub use super::pl011::Uart;
use super::{Board, Register};

/// Peripherals, and all above: not memory.
pub const DEVICES: Range<u64> = 0x3f00_0000..0x1_0000_0000;
const GPIO: usize = 0x3f20_0000;
const UART0: usize = 0x3f20_1000;

pub fn board() -> Board {
    // GPIO 14 is the UART's, GPIO 21 an output.
    let [select1, select2] = [Register(GPIO + 4), Register(GPIO + 8)];
    select1.write(select1.read() & !(7 << 12) | 4 << 12);
    select2.write(select2.read() & !(7 << 3) | 1 << 3);
    let mut uart = Uart::new(UART0);
    uart.set_up(48_000_000);
    Board { uart, pin: Pin, timer: Timer }
}

/// GPIO 21.
pub struct Pin;

impl ErrorType for Pin {
    type Error = Infallible;
}

impl OutputPin for Pin {
    fn set_high(&mut self) -> Result<(), Infallible> {
        Register(GPIO + 0x1c).write(1 << 21);
        Ok(())
    }

    fn set_low(&mut self) -> Result<(), Infallible> {
        Register(GPIO + 0x28).write(1 << 21);
        Ok(())
    }
}
