//! The freestanding builds, and the static one of the guest programs.
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiler flags of everything freestanding: no unwinder, no red zone (interrupts), no SSE (the
/// kernel does not switch FPU state for native programs).
const COMMON: &[&str] = &[
    "-Cpanic=abort",
    "-Crelocation-model=static",
    "-Cno-redzone=yes",
    "-Ctarget-feature=-sse,-sse2",
    "-Cforce-unwind-tables=no",
    // Ciphers would find SSE out at run time, and use it.
    "--cfg=chacha20_force_soft",
    "--cfg=poly1305_force_soft",
];

/// The native programs.
pub const NATIVE: &[&str] = &[
    "root",
    "anon",
    "image",
    "swap",
    "shared",
    "device",
    "vmm",
    "relay",
    "net",
    "link",
    "native-tests",
];

/// The Linux programs that run inside the VMs.
pub const GUEST: &[&str] = &[
    "trapline-init",
    "trapline-launcher",
    "trapline-delegate",
    "trapline-bench",
    "trapline-probe",
];

/// Folder of the workspace.
pub fn workspace() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("xtask has no parent folder")?.to_path_buf())
}

/// Builds the packages named, or all.
pub fn build(packages: &[String]) -> Result<()> {
    let wanted = |name: &str| packages.is_empty() || packages.iter().any(|p| p == name);
    let known = |name: &str| name == "kernel" || NATIVE.contains(&name) || GUEST.contains(&name);
    if let Some(unknown) = packages.iter().find(|p| !known(p.as_str())) {
        bail!("'{unknown}' is neither the kernel nor a native or guest program");
    }
    if wanted("kernel") {
        freestanding(&["kernel"], "kernel", &["-Ccode-model=kernel".into()])?;
    }
    let guest: Vec<&str> = GUEST.iter().copied().filter(|n| wanted(n)).collect();
    if !guest.is_empty() {
        // Static, as they run from the initramfs, before there is a root file system.
        cargo(&guest, "guest", "guest", &["-Ctarget-feature=+crt-static".into()])?;
    }
    let native: Vec<&str> = NATIVE.iter().copied().filter(|n| wanted(n)).collect();
    if !native.is_empty() {
        let script = workspace()?.join("rt/native.ld");
        let link = [
            "-Ccode-model=small".to_owned(),
            "-Clink-arg=-nostdlib".to_owned(),
            "-Clink-arg=-nostartfiles".to_owned(),
            "-Clink-arg=-static".to_owned(),
            "-Clink-arg=-no-pie".to_owned(),
            "-Clink-arg=-Wl,--build-id=none,-z,max-page-size=4096,--gc-sections".to_owned(),
            format!("-Clink-arg=-Wl,-T,{}", script.display()),
        ];
        freestanding(&native, "programs", &link)?;
    }
    Ok(())
}

fn freestanding(packages: &[&str], folder: &str, flags: &[String]) -> Result<()> {
    let mut all: Vec<String> = COMMON.iter().map(|f| (*f).to_owned()).collect();
    all.extend_from_slice(flags);
    cargo(packages, folder, "native", &all)
}

fn cargo(packages: &[&str], folder: &str, profile: &str, flags: &[String]) -> Result<()> {
    let workspace = workspace()?;
    let mut all = flags.to_vec();
    // Paths of the build machine don't belong into images.
    all.push(format!("--remap-path-prefix={}=.", workspace.display()));
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command
        .current_dir(&workspace)
        // `--target` keeps the flags away from build scripts and procedural macros.
        .args(["build", "--profile", profile, "--target", "x86_64-unknown-linux-gnu"])
        .arg("--target-dir")
        .arg(workspace.join("target-native").join(folder))
        .env("CARGO_ENCODED_RUSTFLAGS", all.join("\u{1f}"))
        .env_remove("RUSTFLAGS");
    for package in packages {
        command.args(["-p", package]);
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("building {} failed", packages.join(", "));
    }
    Ok(())
}
