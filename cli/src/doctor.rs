//! `trapline doctor`: what this machine offers, and what to do about what is missing.
use crate::command::{find, output, tool};
use crate::launch::MEMORY;
use crate::machine::qemu::{self, has_nested_svm};
use crate::parts::{Repository, has_cargo};
use std::path::Path;

/// One line of the report.
struct Finding {
    subject: &'static str,
    /// Whether Trapline can work with it.
    good: bool,
    text: String,
    /// What to do.
    advice: Option<String>,
}

impl Finding {
    fn good(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, good: true, text: text.into(), advice: None }
    }

    fn bad(subject: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, good: false, text: text.into(), advice: Some(advice.into()) }
    }
}

/// Programs that are needed, and the Debian packages that have them.
const TOOLS: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("mkfs.erofs", "erofs-utils"),
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("tar", "tar"),
];

/// Prints the report; the status is 1 when something is missing.
#[must_use]
pub fn doctor() -> u8 {
    let mut findings = vec![emulator(), virtualization(), processors(), memory(), toolchain()];
    findings.extend(TOOLS.iter().map(|(program, package)| needed(program, package)));
    findings.push(repository());
    findings.push(cache());
    for finding in &findings {
        let mark = if finding.good { "ok     " } else { "missing" };
        println!("{mark}  {:<12} {}", finding.subject, finding.text);
        if let Some(advice) = &finding.advice {
            println!("         {:<12} -> {advice}", "");
        }
    }
    u8::from(findings.iter().any(|finding| !finding.good))
}

fn emulator() -> Finding {
    let version = output(tool(&qemu::program()).arg("--version"));
    match version {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            Finding::good("QEMU", text.lines().next().unwrap_or_default())
        }
        Err(error) => Finding::bad("QEMU", format!("{error:#}"), "apt-get install qemu-system-x86"),
    }
}

fn virtualization() -> Finding {
    let text = if has_nested_svm() {
        "KVM offers it; QEMU will use it"
    } else if Path::new("/dev/kvm").exists() {
        "KVM does not offer it (no kvm_amd with nested=1); QEMU will emulate it"
    } else {
        "no KVM; QEMU will emulate it"
    };
    Finding::good("nested SVM", text)
}

fn processors() -> Finding {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let text = format!("{count}");
    Finding::good("processors", if count < 2 { text + " (two are faster)" } else { text })
}

fn memory() -> Finding {
    match crate::launch::available_memory() {
        Some(bytes) if bytes < MEMORY => Finding::bad(
            "memory",
            format!("{} MiB available, {} MiB needed", bytes >> 20, MEMORY >> 20),
            "end other programs, or use a machine with more memory",
        ),
        Some(bytes) => Finding::good("memory", format!("{} MiB available", bytes >> 20)),
        None => Finding::bad("memory", "unknown", "is /proc mounted?"),
    }
}

fn toolchain() -> Finding {
    if has_cargo() {
        Finding::good("Rust", "cargo found")
    } else {
        Finding::bad("Rust", "no cargo", "install rustup from https://rustup.rs")
    }
}

fn needed(program: &'static str, package: &str) -> Finding {
    match find(program) {
        Some(path) => Finding::good(program, path.display().to_string()),
        None => Finding::bad(program, "not found", format!("apt-get install {package}")),
    }
}

fn repository() -> Finding {
    match Repository::find().and_then(|repository| repository.description("trapline")) {
        Ok(_) => Finding::good("description", "images/trapline.toml is well formed"),
        Err(error) => Finding::bad("description", format!("{error:#}"), "correct the file"),
    }
}

fn cache() -> Finding {
    let advice = "set XDG_CACHE_HOME to a folder with 1 GiB of free space";
    let space = crate::cache::Cache::open().and_then(|cache| {
        let folder = cache.folder("tmp")?;
        let stat = nix::sys::statvfs::statvfs(&folder)?;
        Ok((folder, stat.blocks_available() * stat.fragment_size()))
    });
    match space {
        Ok((folder, free)) if free < 1 << 30 => Finding::bad(
            "cache",
            format!("{} MiB free in {}", free >> 20, folder.display()),
            advice,
        ),
        Ok((folder, free)) => {
            let place = folder.parent().unwrap_or(&folder).display().to_string();
            Finding::good("cache", format!("{place}, {} MiB free", free >> 20))
        }
        Err(error) => Finding::bad("cache", format!("{error:#}"), advice),
    }
}
