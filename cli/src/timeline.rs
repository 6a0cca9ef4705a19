//! `trapline timeline`: a run of the kernel, recorded by its trace rings, as pictures and as a file for
//! trace viewers. The pictures are those with which limited direct execution is explained in textbooks
//! (*Operating Systems: Three Easy Pieces*, chapter 6), made from what really happened.
mod events;
mod export;
mod figure;
mod picture;

pub use events::{Event, Kind, Story, stories};
pub use export::export;
pub use figure::{Column, Row, life, switch};

use crate::cache::Cache;
use crate::machine::kernel_test::{self, Program};
use crate::parts::Repository;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Options of `trapline timeline`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Folder for life.svg, switch.svg and trace.json
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Read the trace of an earlier run from its log instead of running anything
    #[arg(long)]
    log: Option<PathBuf>,
}

/// One processor, on which every instruction takes one tick of the time-stamp counter.
const PROGRAM: Program = Program {
    name: "native-timeline",
    files: &[],
    system: None,
    memory: 512 << 20,
    processors: 1,
    count_instructions: Some(0),
    command_line: "",
    pattern: 0,
    disk: None,
};

/// Records a run (or reads one) and writes its pictures.
///
/// # Errors
/// What can't be run, read or written.
pub fn timeline(arguments: &Arguments) -> Result<u8> {
    let log = match &arguments.log {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("can't read {}", path.display()))?,
        None => record()?,
    };
    let stories = stories(&log)?;
    if stories.is_empty() {
        bail!("no trace in the log");
    }
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("can't make the folder {}", arguments.out.display()))?;
    let story = |name: &str| stories.iter().find(|story| story.name == name);
    if let Some(story) = story("life") {
        let title = "Limited direct execution: the start, and the life of a process";
        write(&arguments.out.join("life.svg"), &picture::draw(title, &life(story)?))?;
    }
    if let Some(story) = story("switch") {
        let title =
            "Limited direct execution: the timer takes the processor from A and gives it to B";
        write(&arguments.out.join("switch.svg"), &picture::draw(title, &switch(story)?))?;
    }
    write(&arguments.out.join("trace.json"), &serde_json::to_string_pretty(&export(&stories))?)?;
    Ok(0)
}

fn record() -> Result<String> {
    let repository = Repository::find()?;
    let progress = Progress::new(false);
    repository.build(false, &progress)?;
    progress.step("recording a run of the kernel");
    let report = kernel_test::run(&Cache::open()?, &repository, PROGRAM)?;
    if !report.passed {
        bail!("{}:\n{}", report.why, report.log.trim_end());
    }
    Ok(report.log)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests;
