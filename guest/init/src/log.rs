//! Messages of init: to the kernel's log, and so to the console; to standard error before
//! `/dev/kmsg` exists.

use rustix::fs::{Mode, OFlags, open};
use std::fmt::Display;

/// Kernel log levels (`syslog(2)`); what is below 4 is shown even on a `quiet` console.
const ERROR: u8 = 3;
const NOTICE: u8 = 5;

fn write(level: u8, text: &dyn Display) {
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    let sent = open("/dev/kmsg", flags, Mode::empty()).and_then(|log| {
        rustix::io::write(&log, format!("<{level}>trapline-init: {text}").as_bytes())
    });
    if sent.is_err() {
        // There is nowhere left to report a failure of this.
        let _ = rustix::io::write(
            rustix::stdio::stderr(),
            format!("trapline-init: {text}\n").as_bytes(),
        );
    }
}

/// Something went wrong; the boot goes on.
pub fn error(text: impl Display) {
    write(ERROR, &text);
}

/// Worth knowing.
pub fn notice(text: impl Display) {
    write(NOTICE, &text);
}

/// Nothing can be done any more: says why and powers the machine off.
pub fn fatal(text: impl Display) -> ! {
    write(ERROR, &format_args!("fatal: {text}"));
    power_off()
}

/// Writes what is unwritten and powers the machine off.
pub fn power_off() -> ! {
    rustix::fs::sync();
    let outcome = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    error(format_args!("power off: {outcome:?}"));
    // The end of process 1 is a kernel panic: the machine ends one way or the other.
    std::process::exit(1)
}
