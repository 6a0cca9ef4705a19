//! The initramfs that both virtual machines boot from: our static programs and the modules that
//! reach the root image. `guest/README.md` says what init expects.
use super::kernel::Kernel;
use crate::cache::{Cache, Key};
use anyhow::{Context, Result, bail};
use cpio::newc::{self, ModeFileType};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The guest programs, as files on the host.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `/init`.
    pub init: PathBuf,
    /// Name below `/trapline`, and the file.
    pub others: Vec<(String, PathBuf)>,
}

/// Node of `/dev` that must be there before devtmpfs is.
const NODES: &[(&str, u32, u32)] = &[("dev/console", 5, 1), ("dev/null", 1, 3)];

/// One line of the module list: name, then the role and parameters as init wants them.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ModuleLine<'a> {
    name: &'a str,
    rest: &'a str,
}

/// The list has one module a line (with or without `.ko`), `#` begins a comment.
fn parse_list(list: &str) -> Vec<ModuleLine<'_>> {
    list.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            ModuleLine { name: name.trim_end_matches(".ko"), rest: rest.trim() }
        })
        .collect()
}

/// The initramfs, from the cache when nothing in it changed.
///
/// # Errors
/// A file that can't be read.
pub fn image(
    cache: &Cache,
    kernel: &Kernel,
    programs: &Programs,
    modules: &str,
) -> Result<PathBuf> {
    let mut key = Key::new("initramfs", 1);
    key.text(modules).text(&kernel.version).file(&programs.init)?;
    for (name, path) in &programs.others {
        key.text(name).file(path)?;
    }
    cache.file("initramfs", &key, |made| write(made, kernel, programs, modules))
}

/// An initramfs with nothing but one program.
///
/// # Errors
/// A file that can't be read.
pub fn single(cache: &Cache, program: &Path) -> Result<PathBuf> {
    let mut key = Key::new("initramfs", 1);
    key.text("single").file(program)?;
    cache.file("initramfs", &key, |made| {
        let mut archive = Writer { out: File::create(made)?, inode: 1 };
        archive.folder("dev")?;
        for (name, major, minor) in NODES {
            archive.node(name, *major, *minor)?;
        }
        archive.file("init", program)?;
        newc::trailer(&mut archive.out)?;
        Ok(())
    })
}

fn write(path: &Path, kernel: &Kernel, programs: &Programs, list: &str) -> Result<()> {
    let mut archive = Writer { out: File::create(path)?, inode: 1 };
    for folder in ["dev", "proc", "sys", "run", "mnt", "root", "trapline", "modules"] {
        archive.folder(folder)?;
    }
    for (name, major, minor) in NODES {
        archive.node(name, *major, *minor)?;
    }
    archive.file("init", &programs.init)?;
    for (name, file) in &programs.others {
        archive.file(&format!("trapline/{name}"), file)?;
    }
    let mut order = String::new();
    for line in parse_list(list) {
        let Some((name, file)) = kernel.module_files(&[line.name]).into_iter().next() else {
            continue;
        };
        archive.file(&format!("modules/{name}.ko"), &file)?;
        order.push_str(format!("{name}.ko {}", line.rest).trim_end());
        order.push('\n');
    }
    if order.is_empty() {
        bail!("kernel {} has none of the modules of the list", kernel.version);
    }
    archive.bytes("modules/order", order.as_bytes())?;
    newc::trailer(&mut archive.out)?;
    Ok(())
}

struct Writer {
    out: File,
    inode: u32,
}

impl Writer {
    fn entry(&mut self, name: &str, mode: u32, kind: ModeFileType) -> newc::Builder {
        self.inode += 1;
        newc::Builder::new(name).ino(self.inode).nlink(1).mode(mode).set_mode_file_type(kind)
    }

    fn folder(&mut self, name: &str) -> Result<()> {
        let entry = self.entry(name, 0o755, ModeFileType::Directory);
        entry.write(&mut self.out, 0).finish()?;
        Ok(())
    }

    fn node(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        let entry = self.entry(name, 0o600, ModeFileType::Char);
        entry.rdev_major(major).rdev_minor(minor).write(&mut self.out, 0).finish()?;
        Ok(())
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let length = u32::try_from(bytes.len()).context("file too long for an initramfs")?;
        let entry = self.entry(name, 0o755, ModeFileType::Regular);
        let mut writer = entry.write(&mut self.out, length);
        writer.write_all(bytes)?;
        writer.finish()?;
        Ok(())
    }

    fn file(&mut self, name: &str, file: &Path) -> Result<()> {
        let bytes =
            std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
        self.bytes(name, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_modules_allows_comments_roles_and_parameters() {
        let list = "# all\nvirtio\n\nvirtio_net service  # network\nx.ko compute a=1\n";
        assert_eq!(
            parse_list(list),
            [
                ModuleLine { name: "virtio", rest: "" },
                ModuleLine { name: "virtio_net", rest: "service" },
                ModuleLine { name: "x", rest: "compute a=1" },
            ]
        );
    }
}
