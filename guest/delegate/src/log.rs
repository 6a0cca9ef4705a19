//! Messages for whoever reads the service VM's console. Without locks: a fork may come at any time.

use rustix::fs::{Mode, OFlags, open};
use std::fmt::Display;

/// Writes one line to the kernel's log (priority "error"), or to standard error.
pub fn error(text: impl Display) {
    let id = rustix::process::getpid();
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    let line = format!("trapline-delegate[{id}]: {text}");
    let sent = open("/dev/kmsg", flags, Mode::empty())
        .and_then(|log| rustix::io::write(&log, format!("<3>{line}").as_bytes()));
    if sent.is_err() {
        // There is nowhere left to report a failure of this.
        let _ = rustix::io::write(rustix::stdio::stderr(), format!("{line}\n").as_bytes());
    }
}
