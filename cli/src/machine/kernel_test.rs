//! Runs the kernel with a test or a benchmark as its root program, until it shuts the machine down.
use super::qemu;
use crate::cache::Cache;
use crate::parts::Repository;
use crate::supervise;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
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
    /// Bytes of memory.
    pub memory: u64,
    /// Processors.
    pub processors: u32,
    /// One tick of the time-stamp counter per instruction.
    pub count_instructions: bool,
    /// The machine's command line.
    pub command_line: &'static str,
}

/// The kernel's tests.
pub const TESTS: Program = Program {
    name: "native-tests",
    memory: 512 << 20,
    processors: 2,
    count_instructions: false,
    command_line: "",
};

/// Those of them that depend on what a quantum is.
pub const SHARING: Program = Program {
    processors: 1,
    count_instructions: true,
    command_line: "counted=1 only=sharing",
    ..TESTS
};

/// Runs a program until it shuts the machine down.
///
/// # Errors
/// It could not be started.
pub fn run(cache: &Cache, repository: &Repository, program: Program) -> Result<Report> {
    let folder = cache.scratch("kernel-test")?;
    let archive_path = folder.path().join("archive");
    let Program { name, memory, processors, count_instructions, command_line } = program;
    let program = repository.native_program(name);
    let file = File::open(&program).with_context(|| format!("no {}", program.display()))?;
    let input = archive::Input {
        name: "root".into(),
        length: file.metadata()?.len(),
        large: false,
        from: Box::new(BufReader::new(file)),
    };
    let mut out = BufWriter::new(File::create(&archive_path)?);
    archive::write(vec![input], &mut out)?;
    out.flush()?;

    let setup = qemu::Setup {
        kind: qemu::Kind::Trapline,
        kernel: repository.kernel(),
        initrd: archive_path,
        command_line: command_line.into(),
        memory,
        processors,
        forwards: Vec::new(),
        disk: None,
        count_instructions,
    };
    let (code, log, why) = until_it_ends(&setup, folder.path())?;
    // QEMU's debug exit: twice the program's code, plus one.
    let why = match code {
        Some(Some(code)) if code & 1 == 1 && code > 1 => {
            format!("the machine was shut down with code {}", code >> 1)
        }
        _ => why,
    };
    Ok(Report { log, passed: code == Some(Some(1)), why })
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
        count_instructions: true,
    };
    let (code, log, why) = until_it_ends(&setup, folder.path())?;
    Ok(Report { log, passed: code == Some(Some(0)), why })
}

/// QEMU's exit status (none when it was stopped), the log, and what happened in words.
type Ended = (Option<Option<i32>>, String, String);

fn until_it_ends(setup: &qemu::Setup, folder: &Path) -> Result<Ended> {
    let mut command = setup.bare_command(folder)?;
    let mut child = command.spawn().context("can't run QEMU")?;
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > end || supervise::interrupted().is_some() {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    supervise::check()?;
    let log = std::fs::read(folder.join("kernel.log")).unwrap_or_default();
    let code = status.map(|status| status.code());
    let why = match code {
        None => format!("the tests did not end within {} s", LIMIT.as_secs()),
        Some(Some(0)) => "the machine was reset".into(),
        Some(code) => format!("QEMU ended with {code:?}"),
    };
    Ok((code, String::from_utf8_lossy(&log).into_owned(), why))
}
