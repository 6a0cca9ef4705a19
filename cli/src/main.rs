//! The command `trapline`.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;
use trapline::supervise;

/// Runs unmodified Linux programs whose network calls are carried out in another virtual machine.
#[derive(Parser)]
#[command(name = "trapline", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command in the compute VM.
    Run(trapline::run::Arguments),
    /// Show the main job: trusted curl downloads, untrusted curl gets nowhere.
    Demo {
        /// Print one line per remotely serviced call.
        #[arg(short, long)]
        verbose: bool,
    },
    /// Work with policy files.
    Policy {
        #[command(subcommand)]
        command: trapline::policy::Command,
    },
    /// Say what this machine offers, and what to do about what is missing.
    Doctor,
    /// Show what is in the memory of the machine that was started last, by manager.
    Top(trapline::top::Arguments),
    /// Measure and print costs.
    Bench(trapline::bench::Arguments),
    /// Run all tests, or those of one group.
    Test(trapline::test::Arguments),
    /// Fuzz one of the borders that hostile bytes cross.
    Fuzz(trapline::fuzz::Arguments),
    /// Record a run of the kernel and draw it: the life of a process, and a switch between two.
    Timeline(trapline::timeline::Arguments),
    /// Run a command in a plain Linux on the emulated machine, without Trapline.
    #[command(hide = true)]
    Plain {
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    #[command(name = supervise::SUBCOMMAND, hide = true)]
    Child {
        parent: u32,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Child { parent, command } = &arguments.command {
        return match supervise::become_child(*parent, command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("trapline: {error:#}");
                ExitCode::from(126)
            }
        };
    }
    supervise::enable();
    match supervise::watch_signals().and_then(|()| dispatch(arguments.command)) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let (status, text) = trapline::report(&error);
            if let Some(text) = text {
                eprintln!("trapline: {text}");
            }
            ExitCode::from(status)
        }
    }
}

fn dispatch(command: Command) -> Result<u8> {
    match command {
        Command::Run(arguments) => trapline::run::run(&arguments),
        Command::Demo { verbose } => trapline::demo::demo(verbose),
        Command::Policy { command } => trapline::policy::run(&command),
        Command::Doctor => Ok(trapline::doctor::doctor()),
        Command::Top(arguments) => trapline::top::top(&arguments),
        Command::Bench(arguments) => trapline::bench::bench(&arguments),
        Command::Test(arguments) => trapline::test::test(&arguments),
        Command::Fuzz(arguments) => trapline::fuzz::fuzz(&arguments),
        Command::Timeline(arguments) => trapline::timeline::timeline(&arguments),
        Command::Plain { command } => trapline::run::plain(&command),
        Command::Child { .. } => Ok(0),
    }
}
