//! The kernel's log: a 16550 on COM1.
use super::lock::SpinLock;
use super::port::{inb, outb};
use core::fmt;

const COM1: u16 = 0x3f8;
/// Line status register: transmitter holding register empty.
const LSR: u16 = COM1 + 5;
const LSR_EMPTY: u8 = 1 << 5;
/// Depth of the transmit FIFO.
const FIFO: usize = 16;

/// Serialises lines of several processors.
static PORT: SpinLock<()> = SpinLock::new(());

/// 115200 baud, 8 data bits, no parity, FIFO on, no interrupts.
pub fn init() {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
        outb(COM1 + register, value);
    }
}

fn send(bytes: &[u8]) {
    for chunk in bytes.chunks(FIFO) {
        // A machine without COM1 reads 0xff here, so that this cannot hang.
        let mut patience = 1_000_000;
        while inb(LSR) & LSR_EMPTY == 0 && patience > 0 {
            patience -= 1;
        }
        for byte in chunk {
            outb(COM1, *byte);
        }
    }
}

/// Writes bytes as they are.
pub fn write(bytes: &[u8]) {
    let _guard = PORT.lock();
    send(bytes);
}

/// Formats into a buffer first, so that a line costs few port accesses.
struct Line {
    bytes: [u8; 256],
    used: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            if self.used == self.bytes.len() {
                send(&self.bytes);
                self.used = 0;
            }
            self.bytes[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

/// Writes formatted text; see [`log!`](crate::log).
pub fn print(arguments: fmt::Arguments<'_>) {
    let _guard = PORT.lock();
    let mut line = Line { bytes: [0; 256], used: 0 };
    let _ = fmt::write(&mut line, arguments);
    send(&line.bytes[..line.used]);
}

/// Takes the port from whoever holds it: only for the last words of a panic.
pub fn seize() {
    PORT.seize();
}

/// One line of the kernel's own log.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => {
        $crate::machine::serial::print(format_args!("kernel: {}\n", format_args!($($argument)*)))
    };
}
