//! A 16550 serial port that only sends: good enough for a kernel's early console. It has no
//! interrupt.
use alloc::vec::Vec;
use core::ops::Range;

/// Its ports.
pub const PORTS: Range<u16> = 0x3f8..0x400;
/// Output is handed on when a line is complete, or so many bytes have come together.
const ENOUGH: usize = 120;

/// Line status: transmitter empty, holding register empty.
const LINE_STATUS: u8 = 0x60;
/// Divisor latch access, in the line-control register.
const LATCH: u8 = 0x80;
/// Modem control: loop back to the modem status.
const LOOP: u8 = 0x10;
/// Modem status of a connected line: carrier, data set ready, clear to send.
const CONNECTED: u8 = 0xb0;

/// The port's registers.
#[derive(Clone, Debug, Default)]
pub struct Serial {
    interrupts: u8,
    fifo: bool,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: [u8; 2],
    sent: Vec<u8>,
}

impl Serial {
    /// The guest reads a register (offset from the first port).
    #[must_use]
    pub fn read(&self, offset: u16) -> u8 {
        match (offset, self.line_control & LATCH != 0) {
            (0, true) => self.divisor[0],
            (1, true) => self.divisor[1],
            (1, false) => self.interrupts,
            // No interrupt pending; whether the buffers are on.
            (2, _) => 1 | if self.fifo { 0xc0 } else { 0 },
            (3, _) => self.line_control,
            (4, _) => self.modem_control,
            (5, _) => LINE_STATUS,
            (6, _) => self.modem_status(),
            (7, _) => self.scratch,
            _ => 0,
        }
    }

    /// The guest writes a register.
    pub fn write(&mut self, offset: u16, value: u8) {
        match (offset, self.line_control & LATCH != 0) {
            (0, true) => self.divisor[0] = value,
            (1, true) => self.divisor[1] = value,
            (0, false) if self.modem_control & LOOP == 0 => self.sent.push(value),
            (1, false) => self.interrupts = value & 0xf,
            (2, _) => self.fifo = value & 1 != 0,
            (3, _) => self.line_control = value,
            (4, _) => self.modem_control = value & 0x1f,
            (7, _) => self.scratch = value,
            _ => {}
        }
    }

    fn modem_status(&self) -> u8 {
        let control = self.modem_control;
        if control & LOOP == 0 {
            return CONNECTED;
        }
        // RTS, DTR, OUT1, OUT2 come back as CTS, DSR, RI, DCD.
        control << 3 & 0x10 | control << 5 & 0x20 | control << 4 & 0xc0
    }

    /// What was sent, once there is a line or much of it; with `all`, whatever there is.
    pub fn take(&mut self, all: bool) -> Option<Vec<u8>> {
        let ready = self.sent.len() >= ENOUGH || self.sent.last() == Some(&b'\n');
        let some = all && !self.sent.is_empty();
        (ready || some).then(|| core::mem::take(&mut self.sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole() {
        let mut serial = Serial::default();
        serial.write(3, 0x83);
        serial.write(0, 1);
        serial.write(3, 0x03);
        for byte in b"ok" {
            serial.write(0, *byte);
        }
        assert_eq!(serial.take(false), None);
        serial.write(0, b'\n');
        assert_eq!(serial.take(false), Some(b"ok\n".to_vec()));
        assert_eq!(serial.take(true), None);
    }

    #[test]
    fn looks_like_a_16550_to_a_driver() {
        let mut serial = Serial::default();
        assert_eq!(serial.read(5), LINE_STATUS);
        serial.write(2, 1);
        assert_eq!(serial.read(2) & 0xc0, 0xc0);
        serial.write(4, LOOP | 0x0a);
        assert_eq!(serial.read(6), 0x90, "RTS and OUT2 loop back");
        serial.write(0, b'x');
        assert_eq!(serial.take(true), None, "loop-back sends nothing");
        serial.write(7, 0x5a);
        assert_eq!(serial.read(7), 0x5a);
    }

    #[test]
    fn much_output_does_not_pile_up() {
        let mut serial = Serial::default();
        (0..ENOUGH).for_each(|_| serial.write(0, b'.'));
        assert_eq!(serial.take(false).map(|bytes| bytes.len()), Some(ENOUGH));
    }
}
