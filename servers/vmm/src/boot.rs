//! Loads the guest's kernel.
use alloc::format;
use alloc::string::{String, ToString};
use linuxboot::{Boot, Loaded};
use platform::clock::Clock;
use platform::cpuid;
use rt::{GuestRam, Shared};

/// Date at which guests start when nobody tells the date: 1 January 2026.
const EPOCH: u64 = 1_767_225_600;

/// What every guest is told: kernel messages go to the serial port until `hvc0` is there, and a
/// kernel that panics resets its machine, which ends it.
///
/// The other words save time: one serial port to look for, no self-tests of ciphers.
const COMMAND_LINE: &str = "console=ttyS0 console=hvc0 quiet panic=-1 reboot=acpi \
     8250.nr_uarts=1 cryptomgr.notests";

/// Words for guests of an emulated processor, which has no speculation to protect against.
const EMULATED: &str = " mitigations=off";

/// The guest's clock after power-on.
pub fn clock() -> Clock {
    let config = rt::config();
    Clock::new(config.tsc_khz, 0, config.number("epoch").unwrap_or(EPOCH))
}

/// Lays kernel and initial RAM disk out in guest RAM.
pub fn load(role: &str, ram: &GuestRam) -> Result<Loaded, String> {
    let Some(kernel) = Shared::region("kernel") else {
        return Err("the boot archive has no kernel for it".to_string());
    };
    let initrd = Shared::region("initrd");
    let line = command_line(role);
    let boot = Boot { kernel: &kernel, initrd: initrd.as_ref(), command_line: line.as_bytes() };
    linuxboot::load(ram, &boot).map_err(|error| error.to_string())
}

fn command_line(role: &str) -> String {
    let config = rt::config();
    let mut line = config.parameter("cmdline").unwrap_or(COMMAND_LINE).to_string();
    if cpuid::is_emulated(cpuid::host) {
        line.push_str(EMULATED);
    }
    line.push_str(&format!(" trapline.role={role}"));
    if let Some(extra) = config.parameter("cmdline_extra") {
        // Words of the machine's command line hold no blanks: semicolons stand for them.
        line.push(' ');
        line.push_str(&extra.replace(';', " "));
    }
    line
}
