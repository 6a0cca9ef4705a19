//! I/O ports.
use core::arch::asm;

/// Reads a port of the machine's own fixed devices.
pub fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: callers name ports of the UART, the timer and the debug device, which do not touch
    // memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// Writes a port of the machine's own fixed devices.
pub fn outb(port: u16, value: u8) {
    // SAFETY: as in `inb`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Writes 32 bits.
pub fn outl(port: u16, value: u32) {
    // SAFETY: as in `inb`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) };
}
