//! From options to a running machine.
use crate::cache::{Cache, Key};
use crate::image::{self, initramfs};
use crate::machine::qemu::{self, Forward, Kind, Setup};
use crate::machine::{Machine, Observer, Vm, backlog};
use crate::parts::Repository;
use crate::progress::Progress;
use crate::{command, policy, supervise};
use anyhow::{Context, Result, bail};
use hostlink::relay::Form;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Memory of the compute VM unless it is given.
pub const COMPUTE_MEMORY: u64 = 512 << 20;
/// Memory of the service VM.
pub const SERVICE_MEMORY: u64 = 384 << 20;
/// Least memory in which a VM gets anything done.
const LEAST_RESIDENT: u64 = 64 << 20;
/// Memory of the machine above that of its VMs, the boot archive included.
const OWN_MEMORY: u64 = 1664 << 20;

/// Processors of the emulated machine: one for each virtual machine, and the first, which must not
/// run guests (`doc/decisions/emulator-faults.md`).
const PROCESSORS: u32 = 3;

/// Memory of the whole machine with the default options.
pub const MEMORY: u64 = COMPUTE_MEMORY + SERVICE_MEMORY + OWN_MEMORY;

/// What a machine is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Trusted programs, as the user names them.
    pub trust: Vec<String>,
    /// File with rules for trusted programs.
    pub policy: Option<PathBuf>,
    /// Further Debian packages in the root image.
    pub packages: Vec<String>,
    /// Ports of this machine that lead into the VMs.
    pub forwards: Vec<Forward>,
    /// Bytes of memory of the compute VM.
    pub memory: u64,
    /// Bytes of that which are in the machine's own memory; the rest is kept elsewhere.
    pub resident: Option<u64>,
    /// A line for each remotely serviced call.
    pub verbose: bool,
    /// Form of interception.
    pub form: Form,
    /// Programs inside may change the form.
    pub bench: bool,
    /// Further words of the machine's command line.
    pub words: Vec<String>,
    /// One tick of the time-stamp counter per instruction: slow, but exact.
    pub count_instructions: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trust: Vec::new(),
            policy: None,
            packages: Vec::new(),
            forwards: Vec::new(),
            memory: COMPUTE_MEMORY,
            resident: None,
            verbose: false,
            form: Form::Stub,
            bench: false,
            words: Vec::new(),
            count_instructions: false,
        }
    }
}

/// Everything that a machine boots from.
pub struct Images {
    /// The repository it is built from.
    pub repository: Repository,
    /// Stock kernel.
    pub kernel: image::kernel::Kernel,
    /// Root image and the list of its files.
    pub root: image::root::Image,
    /// Initramfs with the guest programs.
    pub initramfs: PathBuf,
}

/// Builds what is stale and fetches what is missing.
///
/// # Errors
/// What is missing, by name.
pub fn prepare(cache: &Cache, packages: &[String], progress: &Progress) -> Result<Images> {
    prepare_for(cache, packages, false, progress)
}

/// As [`prepare`], and with `plain` only what [`boot_plain`] needs.
///
/// # Errors
/// As for [`prepare`].
pub fn prepare_for(
    cache: &Cache,
    packages: &[String],
    plain: bool,
    progress: &Progress,
) -> Result<Images> {
    need_tools()?;
    let repository = Repository::find()?;
    repository.build(plain, progress)?;
    supervise::check()?;
    let root = image::root::image(cache, packages, progress)?;
    let kernel = image::kernel::stock(cache, progress)?;
    supervise::check()?;
    progress.step("packing initramfs and boot archive");
    let initramfs = initramfs::image(cache, &kernel, &repository.guest(), &repository.modules()?)?;
    Ok(Images { repository, kernel, root, initramfs })
}

fn need_tools() -> Result<()> {
    let program = qemu::program();
    match command::find(&program) {
        Some(_) => Ok(()),
        None => bail!("{program} is missing; install the Debian package qemu-system-x86"),
    }
}

/// Boots Trapline; returns as soon as it is powered on.
///
/// # Errors
/// Options that can't be met, or QEMU's own reasons.
pub fn boot(
    cache: &Cache,
    images: &Images,
    options: &Options,
    progress: &Progress,
    observer: Observer,
) -> Result<Machine> {
    let policy = policy::compile(&images.root, options.policy.as_deref(), &options.trust)?;
    let memory = options.resident.unwrap_or(options.memory) + SERVICE_MEMORY + OWN_MEMORY;
    check_memory(options, memory)?;
    let forwards =
        options.forwards.iter().map(|forward| forward.resolve()).collect::<Result<Vec<_>>>()?;
    let setup = Setup {
        kind: Kind::Trapline,
        kernel: images.repository.kernel(),
        initrd: archive(cache, images, &policy.encode())?,
        command_line: command_line(options, &policy::names(&policy)?)?,
        memory,
        // One thread for all processors is free of that fault, and the fewer there are the better.
        processors: if options.count_instructions { PROCESSORS - 1 } else { PROCESSORS },
        forwards: forwards.clone(),
        disk: options.resident.map(|_| swap_disk(options.memory)),
        count_instructions: options.count_instructions.then_some(0),
    };
    progress.step("starting the machine");
    let machine = Machine::start(cache, &setup, observer)?;
    if let Err(error) = backlog::lengthen(machine.process(), &forwards) {
        progress.line(&format!("forwarded ports take few connections at once: {error:#}"));
    }
    for (asked, forward) in options.forwards.iter().zip(&forwards) {
        if asked.host == 0 {
            progress.line(&format!("port {} leads to port {}", forward.host, forward.guest));
        }
    }
    Ok(machine)
}

/// Waits until commands can be run.
///
/// # Errors
/// What did not come up.
pub fn wait_for_both(machine: &Machine, options: &Options, progress: &Progress) -> Result<()> {
    progress.step("starting the servers");
    machine.wait_up()?;
    progress.step("booting the VMs");
    machine.wait_ready(Vm::Service)?;
    progress.step("booting the compute VM");
    machine.wait_ready(Vm::Compute)?;
    if !options.trust.is_empty() || options.policy.is_some() {
        progress.step("waiting for the dispatcher");
        machine.wait_service()?;
    }
    Ok(())
}

/// Bytes of a disk that all of a VM's memory fits on: a place of nine sectors for each page.
const fn swap_disk(memory: u64) -> u64 {
    memory / 4096 * 9 * 512
}

fn check_memory(options: &Options, total: u64) -> Result<()> {
    if !(128 << 20..=3 << 30).contains(&options.memory) {
        bail!("--memory must be between 128M and 3G");
    }
    if let Some(resident) = options.resident
        && (!(LEAST_RESIDENT..=options.memory).contains(&resident)
            || !resident.is_multiple_of(2 << 20))
    {
        bail!("--resident must be between 64M and --memory, in steps of 2M");
    }
    if let Some(available) = available_memory()
        && available < total
    {
        bail!(
            "not enough memory: the machine needs {} MiB, {} MiB are available",
            total >> 20,
            available >> 20
        );
    }
    Ok(())
}

/// Bytes of memory that this machine can still give away.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok()?.checked_mul(1024)
}

fn command_line(options: &Options, trusted: &str) -> Result<String> {
    let mut words = vec![
        format!("form={}", options.form.name()),
        format!("memory.compute={}M", options.memory >> 20),
        format!("memory.service={}M", SERVICE_MEMORY >> 20),
    ];
    if let Some(resident) = options.resident {
        words.push(format!("resident.compute={}M", resident >> 20));
    }
    if !trusted.is_empty() {
        words.push(format!("linux.compute=trapline.trust={trusted}"));
    }
    // The guests' date.
    if let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) {
        words.push(format!("epoch={}", now.as_secs()));
    }
    if options.verbose {
        words.push("verbose=1".into());
    }
    if options.bench {
        words.push("bench=1".into());
    }
    words.extend(options.words.iter().cloned());
    let line = words.join(" ");
    // The boot information page has room for 2048 bytes.
    if line.len() > 2000 {
        bail!("too many trusted programs");
    }
    Ok(line)
}

/// The boot archive: programs, description, policy, kernel, initramfs and root image.
///
/// # Errors
/// A file that can't be read, or a description with a mistake.
pub fn archive(cache: &Cache, images: &Images, policy: &[u8]) -> Result<PathBuf> {
    let description = images.repository.description("trapline")?;
    let native = images.repository.native(&description);
    let description = system::encode(&description);
    let mut key = Key::new("archive", 3);
    key.bytes(&description).bytes(policy);
    for (name, path) in &native {
        key.text(name).file(path)?;
    }
    // These are named by what they are made of.
    for path in [&images.kernel.image, &images.initramfs, &images.root.image] {
        key.text(&path.display().to_string());
    }
    cache.file("archive", &key, |made| {
        let mut inputs = Vec::new();
        for (number, (name, path)) in native.iter().enumerate() {
            inputs.push(input(name, path, false)?);
            if number == 0 {
                inputs.push(small(system::DESCRIPTION_FILE, &description));
                inputs.push(small(::policy::FILE, policy));
            }
        }
        inputs.push(input("vmlinuz", &images.kernel.image, true)?);
        inputs.push(input("initrd", &images.initramfs, true)?);
        inputs.push(input("root.erofs", &images.root.image, true)?);
        let mut out = BufWriter::new(File::create(made)?);
        archive::write(inputs, &mut out).context("can't pack the boot archive")?;
        out.flush()?;
        let file = out.get_ref();
        Ok(file.set_len(aligned_length(file.metadata()?.len()))?)
    })
}

/// QEMU puts the archive's end this far below the end of low memory, which is a multiple of 2 MiB: room
/// for ACPI tables, and the rounding of its start.
const BELOW_END: u64 = 0x2_9000;

/// The next length with which the archive begins at a multiple of 2 MiB: then its large files can be
/// mapped in pages of that size.
const fn aligned_length(length: u64) -> u64 {
    (length + BELOW_END).next_multiple_of(2 << 20) - BELOW_END
}

fn small<'a>(name: &str, bytes: &'a [u8]) -> archive::Input<'a> {
    let length = bytes.len() as u64;
    archive::Input { name: name.into(), length, large: false, from: Box::new(bytes) }
}

fn input(name: &str, path: &Path, large: bool) -> Result<archive::Input<'static>> {
    let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let length = file.metadata()?.len();
    Ok(archive::Input { name: name.into(), length, large, from: Box::new(BufReader::new(file)) })
}

/// Boots a plain Linux with the same kernel, initramfs and root image on the emulated machine
/// itself; its agent is that of a service VM.
///
/// # Errors
/// As for [`boot`].
pub fn boot_plain(cache: &Cache, images: &Images, observer: Observer) -> Result<Machine> {
    let setup = Setup {
        kind: Kind::PlainLinux { root: images.root.image.clone() },
        kernel: images.kernel.image.clone(),
        initrd: images.initramfs.clone(),
        command_line: "console=hvc0 quiet panic=-1 trapline.role=service trapline.agent=/dev/hvc1"
            .into(),
        memory: 1 << 30,
        processors: 2,
        forwards: Vec::new(),
        disk: None,
        count_instructions: None,
    };
    Machine::start(cache, &setup, observer)
}
