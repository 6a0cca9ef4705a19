//! QEMU's command line.
use crate::supervise;
use anyhow::{Result, bail};
use hostlink::Stream;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// The emulator that is used: `$TRAPLINE_QEMU`, or [`QEMU`].
#[must_use]
pub fn program() -> String {
    std::env::var("TRAPLINE_QEMU").unwrap_or_else(|_| QEMU.to_owned())
}

/// Features of the EPYC model that QEMU's emulation lacks; naming them avoids its warnings.
const NOT_EMULATED: &[&str] = &[
    "rdseed",
    "sha-ni",
    "fxsr-opt",
    "misalignsse",
    "3dnowprefetch",
    "osvw",
    "topoext",
    "nrip-save",
    "xsavec",
];

/// A TCP port of this machine that leads to a port inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// Port on the host's loopback address.
    pub host: u16,
    /// Port of the trusted server.
    pub guest: u16,
}

impl std::str::FromStr for Forward {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text
            .split_once(':')
            .and_then(|(host, guest)| Some((host.parse().ok()?, guest.parse().ok()?)));
        match parsed {
            Some((host, guest)) if guest != 0 => Ok(Self { host, guest }),
            _ => bail!("'{text}' is not HOSTPORT:PORT"),
        }
    }
}

impl Forward {
    /// Checks that the host's port is free, and chooses one for port 0.
    ///
    /// # Errors
    /// The port is in use.
    pub fn resolve(self) -> Result<Self> {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, self.host)) {
            Ok(listener) => Ok(Self { host: listener.local_addr()?.port(), ..self }),
            Err(error) => bail!("port {} of this machine can't be used: {error}", self.host),
        }
    }
}

/// What kind of machine it is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Trapline with both VMs; all streams share one console.
    Trapline,
    /// A Linux of its own on the emulated machine, without Trapline, with this root image. For
    /// comparison, and to try images.
    PlainLinux {
        /// The root image.
        root: PathBuf,
    },
}

/// What is to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What kind of machine.
    pub kind: Kind,
    /// The kernel.
    pub kernel: PathBuf,
    /// The boot archive, or the initramfs of a plain Linux.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Processors.
    pub processors: u32,
    /// Forwarded ports.
    pub forwards: Vec<Forward>,
    /// Bytes of an empty disk, which is gone when the machine ends.
    pub disk: Option<u64>,
    /// Every instruction takes so many nanoseconds, as a power of two: slow, but exact. With 0 it is one tick
    /// of the time-stamp counter.
    pub count_instructions: Option<u32>,
}

impl Setup {
    /// Which streams have a socket of their own (`None`: the socket of the frames).
    #[must_use]
    pub fn streams(&self) -> Vec<Option<Stream>> {
        match self.kind {
            Kind::Trapline => vec![None],
            Kind::PlainLinux { .. } => {
                vec![Some(Stream::ConsoleService), Some(Stream::AgentService)]
            }
        }
    }

    /// The command, with its sockets in `sockets` and its logs in `logs`.
    ///
    /// # Errors
    /// A log can't be made.
    pub fn command(&self, sockets: &Path, logs: &Path) -> Result<Command> {
        let mut command = self.bare_command(logs)?;
        command.args(["-device", "virtio-serial-pci,disable-legacy=on"]);
        for (number, _) in self.streams().iter().enumerate() {
            let path = transport_path(sockets, number);
            command.arg("-chardev").arg(option(&format!("socket,id=link{number},path="), &path));
            command.args(["-device", &format!("virtconsole,chardev=link{number}")]);
        }
        command.args(["-netdev", &self.netdev()]);
        command.args(["-device", "virtio-net-pci,disable-legacy=on,netdev=net,romfile="]);
        if let Some(length) = self.disk {
            swap_disk(&mut command, &sockets.join(DISK), length)?;
        }
        if let Kind::PlainLinux { root } = &self.kind {
            plain_devices(&mut command, root)?;
        }
        Ok(command)
    }

    /// The command without virtio devices.
    ///
    /// # Errors
    /// A log can't be made.
    pub fn bare_command(&self, logs: &Path) -> Result<Command> {
        let mut command = supervise::child(&program());
        if let Some(shift) = self.count_instructions {
            command.args(emulation("single")).args(["-icount", &format!("shift={shift}")]);
        } else {
            command.args(accelerator(self.svm_needed()));
        }
        command.args(["-machine", "q35", "-nodefaults", "-display", "none", "-no-reboot"]);
        command.args(["-name", "trapline", "-smp", &self.processors.to_string()]);
        let hotplug = if self.svm_needed() { "" } else { ",maxmem=8G" };
        command.args(["-m", &format!("{}M{hotplug}", self.memory >> 20)]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        command.args(["-append", &self.command_line]);
        command.arg("-serial").arg(option("file:", &logs.join("kernel.log")));
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        // For whoever works on Trapline: a debugger's port, a log of exceptions.
        let more = std::env::var("TRAPLINE_QEMU_OPTIONS").unwrap_or_default();
        command.args(more.split_ascii_whitespace());
        let log = std::fs::File::create(logs.join("qemu.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn svm_needed(&self) -> bool {
        matches!(self.kind, Kind::Trapline)
    }

    fn netdev(&self) -> String {
        self.forwards.iter().fold("user,id=net".to_owned(), |text, forward| {
            format!("{text},hostfwd=tcp:127.0.0.1:{}-:{}", forward.host, forward.guest)
        })
    }
}

/// Name of the disk's file, beside the sockets.
pub const DISK: &str = "disk";

/// A disk with an empty, sparse file behind it. Errors go to the driver, they don't stop the machine.
///
/// # Errors
/// The file can't be made.
pub fn swap_disk(command: &mut Command, path: &Path, length: u64) -> Result<()> {
    std::fs::File::create(path)?.set_len(length)?;
    let drive =
        "if=none,id=swap,format=raw,cache=unsafe,discard=ignore,werror=report,rerror=report,file=";
    command.arg("-drive").arg(option(drive, path));
    command.args(["-device", "virtio-blk-pci,disable-legacy=on,drive=swap"]);
    Ok(())
}

/// A root image on virtio-pmem, and a source of random numbers, as in the VMs.
fn plain_devices(command: &mut Command, root: &Path) -> Result<()> {
    let length = std::fs::metadata(root)?.len();
    let file = option("memory-backend-file,id=root,share=off,readonly=on,mem-path=", root);
    let mut object = file;
    object.push(format!(",size={length}"));
    command.arg("-object").arg(object);
    command.args(["-device", "virtio-pmem-pci,memdev=root", "-device", "virtio-rng-pci"]);
    Ok(())
}

/// An option with a path; QEMU wants commas doubled.
fn option(prefix: &str, path: &Path) -> std::ffi::OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = prefix.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    std::ffi::OsString::from_vec(bytes)
}

/// The socket of a link.
#[must_use]
pub fn transport_path(sockets: &Path, number: usize) -> PathBuf {
    sockets.join(format!("link{number}"))
}

/// Off, since the kernel switches FPU state by FXSAVE and QEMU 7.2 ignores the XSETBV intercept:
/// a guest that turned XSAVE on would share the AVX registers with others.
const NOT_WANTED: &str = "xsave";

fn accelerator(svm: bool) -> Vec<String> {
    if svm && has_nested_svm() {
        return ["-accel", "kvm", "-cpu", "host"].map(str::to_owned).to_vec();
    }
    emulation("multi")
}

/// Emulation with one thread per processor (`multi`), or one for all (`single`).
fn emulation(threads: &str) -> Vec<String> {
    let mut cpu = "EPYC".to_owned();
    for feature in NOT_EMULATED.iter().chain([&NOT_WANTED]) {
        cpu.push_str(&format!(",{feature}=off"));
    }
    vec!["-accel".into(), format!("tcg,thread={threads}"), "-cpu".into(), cpu]
}

/// True where KVM can run guests that use SVM themselves. A `/dev/kvm` alone does not say that.
#[must_use]
pub fn has_nested_svm() -> bool {
    let nested = std::fs::read_to_string("/sys/module/kvm_amd/parameters/nested");
    let on = nested.is_ok_and(|text| matches!(text.trim(), "1" | "Y"));
    on && std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read_and_nonsense_is_refused() {
        assert_eq!("8080:80".parse::<Forward>().ok(), Some(Forward { host: 8080, guest: 80 }));
        for bad in ["", "80", "80:", ":80", "80:0", "70000:1", "1:2:3", "a:b"] {
            assert!(bad.parse::<Forward>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_used_port_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let host = listener.local_addr().expect("bound").port();
        let error = Forward { host, guest: 80 }.resolve().unwrap_err().to_string();
        assert!(error.contains(&host.to_string()), "{error}");
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(option("path=", Path::new("/a,b")), "path=/a,,b");
    }
}
