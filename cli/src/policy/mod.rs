//! Policies: from their text to what the relay gets. `doc/policy.md` is the reference.
mod text;

#[cfg(test)]
mod tests;

pub use text::{At, Draft, Libraries, Source};

use crate::image::code::Code;
use crate::image::root::Image;
use anyhow::{Context, Result};
use policy::{Policy, Program, extents};
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

/// Programs of the initramfs, which are in no root image.
const OWN_PROGRAMS: &str = "/run/trapline/";

/// The policy of a run: a file's programs, then those of `--trust` with default rules.
///
/// # Errors
/// A mistake in the file, or a program that the root image does not hold.
pub fn compile(image: &Image, file: Option<&Path>, trust: &[String]) -> Result<Policy> {
    let mut policy = Policy::default();
    let code = Code::open(image)?;
    if let Some(file) = file {
        let source = Source::open(file)?;
        for mut draft in source.parse()? {
            draft.program.path = image
                .resolve(&draft.path.value)
                .map_err(|error| source.error(&draft.path.place, error))?;
            policy.programs.push(verified(&code, &source, draft)?);
        }
    }
    for path in image.resolve_all(trust)? {
        let listed = policy.programs.iter().any(|p| p.path == path);
        if listed {
            let file = file.map(|f| f.display().to_string()).unwrap_or_default();
            return Err(anyhow::anyhow!("{path} has rules in {file}: leave --trust out"));
        }
        let mut program = Program::with_defaults(&path);
        fill(&code, &mut program)?;
        policy.programs.push(program);
    }
    if policy.programs.iter().any(|p| p.code.verify && p.code.image_libraries) {
        policy.libraries = code.libraries()?;
    }
    Ok(policy)
}

/// What the program's own pages are.
fn fill(code: &Code, program: &mut Program) -> Result<()> {
    program.code.verify &= !program.path.starts_with(OWN_PROGRAMS);
    if program.code.verify {
        let parts = code.program(&program.path)?;
        program.code.own = parts.own;
        program.code.libraries = parts.loader;
    }
    Ok(())
}

/// The program of a file, with its code looked up and its sum compared.
fn verified(code: &Code, source: &Source, draft: Draft) -> Result<Program> {
    let mut program = draft.program;
    fill(code, &mut program).map_err(|error| source.error(&draft.path.place, error))?;
    if let Some(expected) = draft.sha256 {
        let sum = code.sha256(&program.path);
        let sum = sum.map_err(|error| source.error(&expected.place, error))?;
        if sum != expected.value {
            let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
            let message = format!("the SHA-256 sum of {} in the root image is {sum}", program.path);
            return Err(source.error(&expected.place, message));
        }
    }
    if let Libraries::Files(files) = draft.libraries {
        let mut all = std::mem::take(&mut program.code.libraries);
        for file in files {
            let found = code.library(&file.value);
            all.extend(found.map_err(|error| source.error(&file.place, error))?);
        }
        program.code.libraries = extents::join(all);
    }
    Ok(program)
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
