//! What can't work ends soon, with one clear message that names the thing.
use crate::rig::{command_fails_saying, fails_saying, images, trapline};
use anyhow::{Context, Result, ensure};
use std::net::TcpListener;
use trapline::cache::Cache;

/// A package that Debian does not have.
pub fn unknown_package() -> Result<()> {
    fails_saying(
        &["run", "--package", "no-such-package", "--", "true"],
        &["there is no Debian package 'no-such-package'"],
    )?;
    fails_saying(&["run", "--package", "--x", "--", "true"], &["--x"])
}

/// A trusted program that the image does not hold.
pub fn unknown_program() -> Result<()> {
    fails_saying(
        &["run", "--trust", "no-such-program", "--", "true"],
        &["there is no program 'no-such-program'"],
    )
}

/// A forwarded port that another program has.
pub fn port_in_use() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    fails_saying(
        &["run", "--forward", &format!("{port}:80"), "--", "true"],
        &[&format!("port {port}")],
    )?;
    fails_saying(&["run", "--forward", "80", "--", "true"], &["HOSTPORT:PORT"])
}

/// Sizes that are none, or more than there is.
pub fn memory() -> Result<()> {
    fails_saying(&["run", "--memory", "much", "--", "true"], &["'much' is no size"])?;
    fails_saying(&["run", "--memory", "1K", "--", "true"], &["--memory must be"])?;
    fails_saying(&["run", "--memory", "9999G", "--", "true"], &["--memory must be"])?;
    for resident in ["1M", "65M", "2G"] {
        fails_saying(&["run", "--resident", resident, "--", "true"], &["--resident must be"])?;
    }
    Ok(())
}

/// No emulator in any folder of programs.
pub fn missing_qemu() -> Result<()> {
    let mut command = trapline()?;
    command.env("TRAPLINE_QEMU", "qemu-system-nowhere").env("TRAPLINE_NO_INSTALL", "1");
    command_fails_saying(command.args(["run", "--", "true"]), &["qemu-system-nowhere is missing"])
}

/// A system description with a mistake: the place is named.
pub fn malformed_description() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, "[[programs]]\nname = 3\n")?;
    let mut command = trapline()?;
    command.env("TRAPLINE_SYSTEM", &path).args(["run", "--", "true"]);
    command_fails_saying(&mut command, &["bad.toml", "line 2"])
}

/// A damaged boot archive, and a damaged kernel: found on the machine, or before.
pub fn damaged_archive() -> Result<()> {
    let cache = Cache::open()?;
    let images = images(&cache)?;
    let folder = tempfile::tempdir()?;
    let broken = folder.path().join("vmlinuz");
    let mut bytes = std::fs::read(&images.kernel.image)?;
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&broken, &bytes)?;
    let error = trapline::image::kernel::check_image(&broken).err().context("was accepted")?;
    ensure!(error.to_string().contains("is damaged"), "{error:#}");
    Ok(())
}

/// A guest that does not boot in time.
pub fn never_boots() -> Result<()> {
    let mut command = trapline()?;
    command.env("TRAPLINE_BOOT_LIMIT", "1").args(["run", "--", "true"]);
    command_fails_saying(&mut command, &["within 1 s"])
}
