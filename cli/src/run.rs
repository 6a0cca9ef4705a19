//! `trapline run`: one command in the compute VM.
use crate::cache::Cache;
use crate::launch::{self, Options};
use crate::machine::session::{self, NotRun, Own};
use crate::machine::{Machine, Note, Observer, Vm};
use crate::progress::Progress;
use anyhow::{Result, anyhow};
use clap::ValueEnum;
use hostlink::relay::Form;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A VM's console on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Console {
    /// The compute VM.
    Compute,
    /// The service VM.
    Service,
}

/// Options of `trapline run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Trust this program (a name, or an absolute path in the root image) with the default rules
    #[arg(long, value_name = "PROGRAM")]
    trust: Vec<String>,
    /// Trust the programs of this file, by its rules (doc/policy.md)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Add a Debian package, with what it depends on, to the root image
    #[arg(long, value_name = "DEBIAN-PACKAGE")]
    package: Vec<String>,
    /// Lead a TCP port of this machine's loopback address to a trusted server
    #[arg(long, value_name = "HOSTPORT:PORT")]
    forward: Vec<crate::machine::qemu::Forward>,
    /// Memory of the compute VM, such as 512M or 1G
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    memory: Option<u64>,
    /// How much of the compute VM's memory is in RAM; the rest is compressed there, or on a disk
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    resident: Option<u64>,
    /// Show this VM's kernel console
    #[arg(long)]
    console: Option<Console>,
    /// Print one line per remotely serviced call
    #[arg(short, long)]
    verbose: bool,
    /// Form of interception
    #[arg(long, value_parser = form, default_value = "stub", hide = true)]
    form: Form,
    /// Further words of the machine's command line
    #[arg(long, hide = true)]
    word: Vec<String>,
    /// Run the command in the service VM
    #[arg(long, hide = true)]
    in_service: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

fn memory_size(text: &str) -> Result<u64> {
    system::parse_size(text).ok_or_else(|| anyhow!("'{text}' is no size such as 512M"))
}

fn form(text: &str) -> Result<Form> {
    Form::from_name(text).ok_or_else(|| anyhow!("'{text}' is no form of interception"))
}

/// Shows notes: lines above the progress line, a console as it is.
#[must_use]
pub fn shower(progress: &Progress, console: Option<Vm>) -> Observer {
    let progress = progress.clone();
    Arc::new(move |note| match note {
        Note::Line(text) | Note::Call(text) => progress.line(&text),
        Note::Console(vm, bytes) if Some(vm) == console => {
            // Nobody to tell when standard error is closed.
            let _ = std::io::stderr().write_all(&bytes);
        }
        Note::Console(..) => {}
    })
}

/// Carries `trapline run` out: the status is that of the command.
///
/// # Errors
/// What can't be built, started, or reached.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let progress = Progress::new(arguments.verbose);
    let cache = Cache::open()?;
    let options = Options {
        trust: arguments.trust.clone(),
        policy: arguments.policy.clone(),
        packages: arguments.package.clone(),
        forwards: arguments.forward.clone(),
        memory: arguments.memory.unwrap_or(launch::COMPUTE_MEMORY),
        resident: arguments.resident,
        verbose: arguments.verbose,
        form: arguments.form,
        bench: false,
        words: arguments.word.clone(),
        count_instructions: false,
    };
    let images = launch::prepare(&cache, &options.packages, &progress)?;
    let console = arguments.console.map(|console| match console {
        Console::Compute => Vm::Compute,
        Console::Service => Vm::Service,
    });
    let observer = shower(&progress, console);
    let machine = launch::boot(&cache, &images, &options, &progress, observer)?;
    launch::wait_for_both(&machine, &options, &progress)?;
    let vm = if arguments.in_service { Vm::Service } else { Vm::Compute };
    progress
        .step(format!("running the command, {:.1} s after power-on", machine.age().as_secs_f64()));
    progress.done();
    foreground(&machine, vm, &arguments.command)
}

/// Runs a command in a plain Linux.
///
/// # Errors
/// As for [`run`].
pub fn plain(command: &[OsString]) -> Result<u8> {
    let progress = Progress::new(true);
    let cache = Cache::open()?;
    let images = launch::prepare_for(&cache, &[], true, &progress)?;
    progress.step("booting a plain Linux");
    let machine = launch::boot_plain(&cache, &images, shower(&progress, None))?;
    machine.wait_ready(Vm::Service)?;
    progress.step("ready");
    progress.done();
    foreground(&machine, Vm::Service, command)
}

/// Runs a command with this process's own standard input, output and error.
fn foreground(machine: &Machine, vm: Vm, command: &[OsString]) -> Result<u8> {
    let command = session::command(command.iter().map(|word| word.as_bytes()));
    let mut session = machine.exec(vm, command)?;
    session.feed(std::io::stdin())?;
    match session.wait(machine, &mut Own, None) {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Ok(1),
        Err(error) => match error.downcast_ref::<NotRun>() {
            Some(not_run) => {
                eprintln!("trapline: {not_run}");
                Ok(not_run.status())
            }
            None => Err(error),
        },
    }
}
