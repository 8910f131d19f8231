//! Arm's PL011 UART, which both 64-bit boards have.

use core::convert::Infallible;

use embedded_io::{ErrorType, Write};

use super::Register;

/// A UART that waits until it can take a byte.
pub struct Uart {
    base: usize,
}

impl Uart {
    /// The UART at this address, as it is.
    pub fn new(base: usize) -> Self {
        Self { base }
    }

    /// Sets 115200 baud, 8 data bits, no parity, 1 stop bit, from this clock.
    #[cfg(feature = "raspi3b")]
    pub fn set_up(&mut self, clock_hz: u32) {
        let divisor = clock_hz * 4 / 115_200; // in 64ths
        let register = |offset| Register(self.base + offset);
        register(0x30).write(0); // CR: off
        register(0x24).write(divisor >> 6); // IBRD
        register(0x28).write(divisor & 63); // FBRD
        register(0x2c).write(0b111 << 4); // LCRH: 8 bits, FIFO
        register(0x30).write(0x101); // CR: on, transmit
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let (data, flags) = (Register(self.base), Register(self.base + 0x18));
        for &byte in bytes {
            while flags.read() & 1 << 5 != 0 {} // TXFF
            data.write(byte.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while Register(self.base + 0x18).read() & 1 << 3 != 0 {} // BUSY
        Ok(())
    }
}
