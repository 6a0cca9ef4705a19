//! What the virtual machines boot from: Debian packages, the root image made of them, the stock
//! kernel, and the initramfs with the guest programs.
pub mod code;
pub mod initramfs;
pub mod kernel;
pub mod packages;
pub mod root;

/// Packages of every root image.
pub const DEFAULT_PACKAGES: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "coreutils",
    "curl",
    "dash",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "libc-bin",
    "mawk",
    "netcat-openbsd",
    "procps",
    "python3",
    "sed",
    "tar",
    "util-linux",
    "wget",
];

/// The package that depends on the newest stock kernel.
pub const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
