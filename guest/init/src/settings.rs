//! Kernel settings, limits, and the list of trusted programs.

use crate::log;
use crate::parameters::Parameters;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use wire::LINKS;

/// Where guest programs live.
pub const PROGRAMS: &str = "/run/trapline";
/// The launcher.
pub const LAUNCHER: &str = "/run/trapline/launcher";
/// The list of trusted programs.
pub const TRUSTED: &str = "/run/trapline/trusted";

const SYSCTLS: [(&str, &str); 4] = [
    // The hypervisor keeps physical addresses of locked pages: they must not be moved.
    ("vm/compact_unevictable_allowed", "0"),
    ("vm/compaction_proactiveness", "0"),
    // A lost delegate must not stop the machine, a broken kernel must.
    ("kernel/panic_on_oops", "1"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

/// Applies them all; a setting that this kernel lacks is reported.
pub fn apply() {
    for (name, value) in SYSCTLS {
        if let Err(error) = std::fs::write(Path::new("/proc/sys").join(name), value) {
            log::error(format_args!("{name}: {error}"));
        }
    }
    let free = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, free) {
        log::error(format_args!("memory lock limit: {error}"));
    }
    // Descriptors: what a login session on a common distribution has.
    let files = Rlimit {
        current: Some(1024),
        maximum: getrlimit(Resource::Nofile).maximum.max(Some(1 << 19)),
    };
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        log::error(format_args!("descriptor limit: {error}"));
    }
}

/// Writes down which programs are trusted, and puts the launcher in front of them.
pub fn trust(parameters: &Parameters) {
    let mut list = Vec::new();
    for path in &parameters.trust {
        list.extend_from_slice(path.as_os_str().as_bytes());
        list.push(b'\n');
    }
    let mut outcomes = vec![
        (TRUSTED.to_owned(), std::fs::write(TRUSTED, list)),
        (LINKS.to_owned(), std::fs::create_dir_all(LINKS)),
    ];
    let names = parameters.trust.iter().filter_map(|path| path.file_name());
    for name in names.chain([std::ffi::OsStr::new("trusted")]) {
        let link = Path::new(LINKS).join(name);
        outcomes.push((link.display().to_string(), symlink(LAUNCHER, link)));
    }
    for (what, outcome) in outcomes {
        if let Err(error) = outcome {
            log::error(format_args!("{what}: {error}"));
        }
    }
}
