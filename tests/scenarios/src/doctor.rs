//! `trapline doctor` on a machine that has everything.
use crate::rig::{LIMIT, trapline, within};
use anyhow::{Result, ensure};

/// The scenario.
pub fn run() -> Result<()> {
    let output = within(trapline()?.arg("doctor"), LIMIT)?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}");
    for word in ["QEMU", "nested SVM", "memory", "mkfs.erofs"] {
        ensure!(text.contains(word), "no word about {word}: {text}");
    }
    Ok(())
}
