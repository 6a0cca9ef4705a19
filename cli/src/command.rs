//! Running programs of the host and saying clearly when that fails.
use anyhow::{Context, Result, bail};
use std::process::{Command, Output, Stdio};

/// Runs a command to its end without input; its output is returned, and shown when it fails.
///
/// # Errors
/// The program is missing, or ends with a status other than zero.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't run {name} (is it installed? see ./trapline doctor)"))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        let said = said.trim();
        bail!("{name} failed ({status}){}{said}", if said.is_empty() { "" } else { ": " });
    }
    Ok(stdout)
}

/// Where a program is found in `PATH` or the folders of system programs.
#[must_use]
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(Into::into))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A command that is found even where `PATH` lacks the system programs' folders.
#[must_use]
pub fn tool(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| program.into()))
}
