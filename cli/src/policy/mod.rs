//! Policies: from their text to what the relay gets. `doc/policy.md` is the reference.
mod text;

#[cfg(test)]
mod tests;

pub use text::{At, Draft, Libraries, Source};

use crate::image::root::Image;
use anyhow::{Context, Result};
use policy::{Policy, Program};
use std::path::{Path, PathBuf};

/// `trapline policy`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Say what is wrong with a policy file, or what it allows.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// Carries `trapline policy` out.
///
/// # Errors
/// What is wrong with the file.
pub fn run(command: &Command) -> Result<u8> {
    let Command::Check { file } = command;
    let drafts = Source::open(file)?.parse()?;
    for draft in &drafts {
        println!("{}", summary(&draft.program));
    }
    println!("{}: {} trusted programs, no mistake found", file.display(), drafts.len());
    Ok(0)
}

/// One line about a program's rules.
fn summary(program: &Program) -> String {
    let code = match (program.code.verify, program.code.jit) {
        (false, _) => "known by its path alone",
        (true, true) => "verified, makes code at run time",
        (true, false) => "verified",
    };
    format!(
        "{}: {code}; {} rules for peers, {} for listening, {} files",
        program.path,
        program.connect.len(),
        program.listen.len(),
        program.files.len()
    )
}

/// The policy of a run: a file's programs, then those of `--trust` with default rules.
///
/// # Errors
/// A mistake in the file, or a program that the root image does not hold.
pub fn compile(image: &Image, file: Option<&Path>, trust: &[String]) -> Result<Policy> {
    let mut policy = Policy::default();
    if let Some(file) = file {
        let source = Source::open(file)?;
        for mut draft in source.parse()? {
            draft.program.path = image
                .resolve(&draft.path.value)
                .map_err(|error| source.error(&draft.path.place, error))?;
            policy.programs.push(draft.program);
        }
    }
    for path in image.resolve_all(trust)? {
        let listed = policy.programs.iter().any(|p| p.path == path);
        if listed {
            let file = file.map(|f| f.display().to_string()).unwrap_or_default();
            return Err(anyhow::anyhow!("{path} has rules in {file}: leave --trust out"));
        }
        let mut program = Program::with_defaults(&path);
        program.code.verify = false;
        policy.programs.push(program);
    }
    Ok(policy)
}

/// The names that the compute VM's launcher needs.
///
/// # Errors
/// A path that cannot stand in a list.
pub fn names(policy: &Policy) -> Result<String> {
    let plain = |path: &&str| !path.contains([':', ' ', ',', '"']) && path.is_ascii();
    let path = |program: &'_ Program| {
        Some(program.path.as_str())
            .filter(plain)
            .map(str::to_owned)
            .with_context(|| format!("'{}' holds letters that cannot be passed on", program.path))
    };
    Ok(policy.programs.iter().map(path).collect::<Result<Vec<_>>>()?.join(":"))
}
