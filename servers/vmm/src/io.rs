//! Ports: the devices', the serial port, the registers to power off and to reset. Behind all
//! others there is nothing.
use crate::end::End;
use crate::monitor::Monitor;
use abi::vcpu::{VcpuState, reg};
use linuxboot::acpi::{
    RESET_PORT, RESET_VALUE, SLEEP_CONTROL_PORT, SLEEP_ENABLE, SLEEP_STATUS_PORT,
};
use platform::delivery::{self, GENERAL_PROTECTION};
use platform::serial;

/// Keyboard controller's command port, and the command that resets a PC.
const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u32 = 0xfe;
/// Reset control register of PC chipsets, and its bit that does it.
const RESET_CONTROL: u16 = 0xcf9;
const RESET_CONTROL_GO: u32 = 1 << 2;

/// EXITINFO1 of an I/O exit (AMD APM volume 2, section 15.10.2).
#[derive(Clone, Copy)]
struct Access(u64);

impl Access {
    fn is_input(self) -> bool {
        self.0 & 1 != 0
    }

    fn is_string(self) -> bool {
        self.0 & 1 << 2 != 0
    }

    /// Bytes.
    fn width(self) -> u8 {
        match self.0 >> 4 & 7 {
            1 => 1,
            2 => 2,
            _ => 4,
        }
    }

    fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    fn mask(self) -> u64 {
        (1 << (u32::from(self.width()) * 8)) - 1
    }
}

impl Monitor {
    /// IN or OUT; `next` is the address of the next instruction.
    pub fn io_exit(&mut self, info: u64, next: u64, state: &mut VcpuState) {
        let access = Access(info);
        if access.is_string() {
            // No driver of these devices uses them, and this processor does not say where the
            // data is.
            self.report(format_args!("string I/O at port {:#x}", access.port()));
            delivery::raise(state, GENERAL_PROTECTION, Some(0));
            return;
        }
        let accumulator = state.regs.r[reg::RAX];
        if access.is_input() {
            let value = u64::from(self.port_read(access.port(), access.width())) & access.mask();
            // Four bytes clear the upper half, fewer keep the rest.
            let kept = if access.width() == 4 { 0 } else { accumulator & !access.mask() };
            state.regs.r[reg::RAX] = kept | value;
        } else {
            let value = (accumulator & access.mask()) as u32;
            self.port_write(access.port(), access.width(), value);
        }
        state.rip = next;
        state.interrupt_shadow = 0;
    }

    fn port_read(&mut self, port: u16, width: u8) -> u32 {
        match port {
            _ if serial::PORTS.contains(&port) => {
                self.serial.read(port - serial::PORTS.start).into()
            }
            SLEEP_CONTROL_PORT | SLEEP_STATUS_PORT => 0,
            _ if self.devices.owns_port(port) => self.devices.port_read(port, width),
            _ => u32::MAX,
        }
    }

    fn port_write(&mut self, port: u16, width: u8, value: u32) {
        match port {
            _ if serial::PORTS.contains(&port) => {
                self.serial.write(port - serial::PORTS.start, value as u8);
                self.flush_serial(false);
            }
            SLEEP_CONTROL_PORT if value & u32::from(SLEEP_ENABLE) != 0 => {
                self.end(&End::PoweredOff);
            }
            RESET_PORT if value == RESET_VALUE.into() => self.end(&End::Reset),
            KEYBOARD_COMMAND if value == KEYBOARD_RESET => self.end(&End::Reset),
            RESET_CONTROL if width == 1 && value & RESET_CONTROL_GO != 0 => self.end(&End::Reset),
            _ if self.devices.owns_port(port) => self.devices.port_write(port, width, value),
            _ => {}
        }
    }
}
