//! Arm's MPS2 board with a Cortex-M7 (AN500): CMSDK UART, lamp 0, counter of the FPGA.

use core::convert::Infallible;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{ErrorType, OutputPin};
use embedded_io::Write;

use super::{Board, Register, stop};

const UART0: usize = 0x4000_4000;
const FPGA: usize = 0x4002_8000;
const CLOCK_HZ: u32 = 25_000_000;

/// cortex-m-rt has set up stack, memory and FPU.
#[cortex_m_rt::entry]
fn entry() -> ! {
    super::start()
}

#[cortex_m_rt::exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    stop(format_args!("hard fault: {frame:?}"))
}

pub fn board() -> Board {
    Register(UART0 + 0x10).write(CLOCK_HZ / 115_200); // BAUDDIV
    Register(UART0 + 0x08).write(1); // CTRL: transmit
    Register(FPGA + 0x1c).write(CLOCK_HZ / 1_000_000 - 1); // PRESCALE: one count is 1 µs
    Board { uart: Uart, pin: Pin, timer: Timer }
}

/// CMSDK UART 0, which waits until it can take a byte.
pub struct Uart;

impl embedded_io::ErrorType for Uart {
    type Error = Infallible;
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for &byte in bytes {
            self.flush()?;
            Register(UART0).write(byte.into()); // DATA
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while Register(UART0 + 4).read() & 1 != 0 {} // STATE: the buffer is full
        Ok(())
    }
}

/// Lamp 0.
pub struct Pin;

impl ErrorType for Pin {
    type Error = Infallible;
}

impl OutputPin for Pin {
    fn set_high(&mut self) -> Result<(), Infallible> {
        Register(FPGA).write(1);
        Ok(())
    }

    fn set_low(&mut self) -> Result<(), Infallible> {
        Register(FPGA).write(0);
        Ok(())
    }
}

/// Counts microseconds.
pub struct Timer;

impl DelayNs for Timer {
    fn delay_ns(&mut self, ns: u32) {
        let counter = Register(FPGA + 0x18);
        let start = counter.read();
        while counter.read().wrapping_sub(start) <= ns.div_ceil(1000) {}
    }
}
