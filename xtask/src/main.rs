//! Builds what cargo alone can't: the kernel and the native programs, which need compiler flags
//! and link scripts of their own, and boot archives made of them.
#![forbid(unsafe_code)]

mod build;
mod pack;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Build tool of Trapline.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build kernel and native programs into target-native/.
    Build {
        /// Only these packages (`kernel`, `root`, `vmm`, …); all without any.
        packages: Vec<String>,
    },
    /// Pack a boot archive.
    Pack {
        /// Where to.
        #[arg(long)]
        out: PathBuf,
        /// System description (TOML); goes in as `system`.
        #[arg(long)]
        system: Option<PathBuf>,
        /// NAME=PATH for each further file, in order; `+` before NAME aligns it to 2 MiB.
        files: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Build { packages } => build::build(&packages),
        Command::Pack { out, system, files } => pack::pack(&out, system.as_deref(), &files),
    }
}
