//! Lines for the kernel's log.
use core::fmt::{Arguments, Write};

struct Line {
    bytes: [u8; 512],
    used: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

impl Line {
    fn flush(&mut self) {
        // A log that can't be written must not stop the program.
        let _ = crate::sys::log(&self.bytes[..self.used]);
        self.used = 0;
    }
}

/// Writes a line to the kernel's log; use `log!`.
pub fn print(arguments: Arguments<'_>) {
    let mut line = Line { bytes: [0; 512], used: 0 };
    let _ = line.write_fmt(arguments);
    let _ = line.write_str("\n");
    line.flush();
}
