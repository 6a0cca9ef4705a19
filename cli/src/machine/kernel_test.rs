//! Runs the kernel with a test or a benchmark as its root program, until it shuts the machine down.
use super::qemu;
use crate::cache::Cache;
use crate::parts::Repository;
use crate::supervise;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the tests get.
const LIMIT: Duration = Duration::from_secs(300);

/// What came out.
#[derive(Clone, Debug)]
pub struct Report {
    /// The kernel's log.
    pub log: String,
    /// Whether the program shut the machine down with code 0.
    pub passed: bool,
    /// If not, what happened.
    pub why: String,
}

/// A program in the place of the root server, and the machine that it runs on.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Native programs that it finds beside itself in the boot archive, by their names.
    pub files: &'static [&'static str],
    /// The system description, for the root server.
    pub system: Option<&'static str>,
    /// Bytes of memory.
    pub memory: u64,
    /// Processors.
    pub processors: u32,
    /// Nanoseconds that every instruction takes, as a power of two; none: they are not counted.
    pub count_instructions: Option<u32>,
    /// The machine's command line.
    pub command_line: &'static str,
    /// Bytes of a file `pattern`: words of eight bytes, each of which is its own offset.
    pub pattern: u64,
    /// Bytes of a disk for swapped pages.
    pub disk: Option<u64>,
}

/// The kernel's tests.
pub const TESTS: Program = Program {
    name: "native-tests",
    files: &["native-child"],
    system: None,
    memory: 512 << 20,
    processors: 2,
    count_instructions: None,
    command_line: "",
    pattern: 0,
    disk: None,
};

/// Those of them that depend on what a quantum is: ten seconds each, by the clock of a machine that takes
/// 64 ns for every instruction.
pub const SHARING: Program = Program {
    processors: 1,
    count_instructions: Some(6),
    command_line: "counted=10000 only=sharing",
    ..TESTS
};

/// The one that needs memory for a page of 1 GiB.
pub const HUGE: Program =
    Program { memory: 2560 << 20, processors: 1, command_line: "huge=1 only=pages-of", ..TESTS };

/// Runs a program until it shuts the machine down.
///
/// # Errors
/// It could not be started.
pub fn run(cache: &Cache, repository: &Repository, program: Program) -> Result<Report> {
    run_until(cache, repository, program, |_, _| false)
}

/// Runs a program until it shuts the machine down, or its log holds what was waited for. Who looks at the log is told the path of the
/// machine's disk, too.
///
/// # Errors
/// It could not be started.
pub fn run_until(
    cache: &Cache,
    repository: &Repository,
    program: Program,
    done: impl Fn(&str, &Path) -> bool,
) -> Result<Report> {
    let folder = cache.scratch("kernel-test")?;
    let archive_path = folder.path().join("archive");
    let Program { name, files, system, memory, processors, .. } = program;
    let Program { count_instructions, command_line, pattern, .. } = program;
    let mut inputs = vec![input("root", &repository.native_program(name))?];
    if let Some(text) = system {
        inputs.push(description(text)?);
    }
    for name in files {
        inputs.push(input(name, &repository.native_program(name))?);
    }
    let words = (0..pattern).step_by(8).flat_map(u64::to_le_bytes);
    inputs.extend((pattern > 0).then(|| contents("pattern", words.collect())));
    let mut out = BufWriter::new(File::create(&archive_path)?);
    archive::write(inputs, &mut out)?;
    out.flush()?;

    let setup = qemu::Setup {
        kind: qemu::Kind::Trapline,
        kernel: repository.kernel(),
        initrd: archive_path,
        command_line: command_line.into(),
        memory,
        processors,
        forwards: Vec::new(),
        disk: program.disk,
        count_instructions,
    };
    let (code, log, why) = until_it_ends(&setup, folder.path(), &done)?;
    // QEMU's debug exit: twice the program's code, plus one.
    let why = match code {
        Some(Some(code)) if code & 1 == 1 && code > 1 => {
            format!("the machine was shut down with code {}", code >> 1)
        }
        _ => why,
    };
    Ok(Report { log, passed: code == Some(Some(1)), why })
}

/// A file of the boot archive.
fn input(name: &str, path: &Path) -> Result<archive::Input<'static>> {
    let file = File::open(path).with_context(|| format!("no {}", path.display()))?;
    Ok(archive::Input {
        name: name.into(),
        length: file.metadata()?.len(),
        large: false,
        from: Box::new(BufReader::new(file)),
    })
}

/// A system description as a file of the boot archive.
fn description(text: &str) -> Result<archive::Input<'static>> {
    let bytes = system::encode(&system::from_text(text)?);
    Ok(contents(system::DESCRIPTION_FILE, bytes))
}

/// Bytes as a file of the boot archive.
fn contents(name: &str, bytes: Vec<u8>) -> archive::Input<'static> {
    let (name, length) = (name.into(), bytes.len() as u64);
    archive::Input { name, length, large: false, from: Box::new(Cursor::new(bytes)) }
}

/// Boots a Linux of its own, without any devices, until it resets the machine.
///
/// # Errors
/// It could not be started.
pub fn linux(
    cache: &Cache,
    kernel: PathBuf,
    initrd: PathBuf,
    command_line: &str,
) -> Result<Report> {
    let folder = cache.scratch("linux-test")?;
    let setup = qemu::Setup {
        kind: qemu::Kind::PlainLinux { root: PathBuf::new() },
        kernel,
        initrd,
        command_line: command_line.into(),
        memory: 512 << 20,
        processors: 1,
        disk: None,
        forwards: Vec::new(),
        count_instructions: Some(0),
    };
    let (code, log, why) = until_it_ends(&setup, folder.path(), &|_, _| false)?;
    Ok(Report { log, passed: code == Some(Some(0)), why })
}

/// QEMU's exit status (none when it was stopped), the log, and what happened in words.
type Ended = (Option<Option<i32>>, String, String);

fn until_it_ends(
    setup: &qemu::Setup,
    folder: &Path,
    done: &dyn Fn(&str, &Path) -> bool,
) -> Result<Ended> {
    let mut command = setup.bare_command(folder)?;
    let disk = folder.join(qemu::DISK);
    if let Some(length) = setup.disk {
        qemu::swap_disk(&mut command, &disk, length)?;
    }
    let mut child = command.spawn().context("can't run QEMU")?;
    let end = Instant::now() + LIMIT;
    let read = || {
        let log = std::fs::read(folder.join("kernel.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    };
    let mut why = format!("the tests did not end within {} s", LIMIT.as_secs());
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        let over = done(&read(), &disk);
        if over || Instant::now() > end || supervise::interrupted().is_some() {
            child.kill()?;
            child.wait()?;
            why = if over { "it was stopped".into() } else { why };
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    supervise::check()?;
    let code = status.map(|status| status.code());
    let why = match code {
        None => why,
        Some(Some(0)) => "the machine was reset".into(),
        Some(code) => format!("QEMU ended with {code:?}"),
    };
    Ok((code, read(), why))
}
