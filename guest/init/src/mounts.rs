//! The root file system: an EROFS image on persistent memory below a layer in RAM, and what every
//! Linux has besides.

use crate::log;
use crate::parameters::Parameters;
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use std::ffi::CString;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a device may take to appear after its module has been loaded.
const DEVICE_PATIENCE: Duration = Duration::from_secs(10);

/// What stopped the boot.
pub type Failure = String;

fn failed(what: &str) -> impl FnOnce(Errno) -> Failure + '_ {
    move |error| format!("{what}: {error}")
}

fn directory(path: &str) -> Result<(), Failure> {
    match mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(format!("mkdir {path}: {error}")),
    }
}

/// Mounts a file system without a device.
fn virtual_fs(kind: &str, at: &str, flags: MountFlags, options: &str) -> Result<(), Failure> {
    directory(at)?;
    let options = CString::new(options).map_err(|_| format!("mount {at}: bad options"))?;
    mount(kind, at, kind, flags, options.as_c_str())
        .map_err(|e| format!("mount {kind} on {at}: {e}"))
}

/// `/proc`, `/sys` and `/dev` of the initramfs; they move along into the real root later.
pub fn early() -> Result<(), Failure> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    virtual_fs("proc", "/proc", quiet, "")?;
    virtual_fs("sysfs", "/sys", quiet, "")?;
    // The initramfs itself has nodes below /dev; the real thing covers them.
    virtual_fs("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755")
}

/// Tries again until it works or the patience with devices is over; then the last error counts.
pub fn patiently<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let end = Instant::now() + DEVICE_PATIENCE;
    loop {
        let outcome = attempt();
        if outcome.is_ok() || Instant::now() > end {
            return outcome;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a device node exists.
pub fn await_device(path: &Path) -> Result<(), Failure> {
    patiently(|| path.metadata()).map(drop).map_err(|error| format!("{}: {error}", path.display()))
}

fn lower(parameters: &Parameters) -> Result<(), Failure> {
    let device = &parameters.root;
    await_device(device)?;
    directory("/lower")?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV;
    let with_dax = mount(device, "/lower", "erofs", flags, c"dax=always");
    let Err(error) = with_dax else { return Ok(()) };
    log::notice(format_args!("{}: no DAX ({error}), pages are copied", device.display()));
    mount(device, "/lower", "erofs", flags, None)
        .map_err(|e| format!("mount erofs from {}: {e}", device.display()))
}

/// Assembles the new root below `/root` and makes it the root directory.
pub fn root(parameters: &Parameters) -> Result<(), Failure> {
    lower(parameters)?;
    virtual_fs(
        "tmpfs",
        "/layer",
        MountFlags::NODEV,
        &format!("mode=0755,size={}", parameters.upper),
    )?;
    directory("/layer/upper")?;
    directory("/layer/work")?;
    virtual_fs(
        "overlay",
        "/root",
        MountFlags::NODEV,
        "lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work",
    )?;
    for name in ["proc", "sys", "dev"] {
        let target = format!("/root/{name}");
        directory(&target)?;
        mount_move(format!("/{name}"), target.as_str()).map_err(failed("mount --move"))?;
    }
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    virtual_fs("tmpfs", "/root/run", plain, "mode=0755")?;
    virtual_fs("tmpfs", "/root/tmp", plain, "mode=1777")?;
    directory("/root/etc")?;
    directory("/root/run/lock")?;
    bring_programs()?;
    std::env::set_current_dir("/root").map_err(|e| format!("chdir /root: {e}"))?;
    mount_move(".", "/").map_err(failed("mount --move /root /"))?;
    rustix::process::chroot(".").map_err(failed("chroot"))?;
    std::env::set_current_dir("/").map_err(|e| format!("chdir /: {e}"))?;
    devices()
}

/// `/run/trapline`: the programs of the initramfs stay visible.
fn bring_programs() -> Result<(), Failure> {
    const FROM: &str = "/trapline";
    const TO: &str = "/root/run/trapline";
    directory(FROM)?;
    directory(TO)?;
    mount_bind(FROM, TO).map_err(|e| format!("bind {FROM} to {TO}: {e}"))
}

/// What lies below `/dev` and is no device of a driver.
fn devices() -> Result<(), Failure> {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC;
    virtual_fs("devpts", "/dev/pts", plain, "mode=0620,gid=5,ptmxmode=0666")?;
    virtual_fs("tmpfs", "/dev/shm", plain | MountFlags::NODEV, "mode=1777")?;
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ];
    for (target, link) in links {
        if let Err(error) = symlink(target, link)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            log::error(format_args!("{link}: {error}"));
        }
    }
    Ok(())
}
