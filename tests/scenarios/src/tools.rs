//! Programs of Debian packages that scenarios run on this machine, such as `ab`: unpacked into the
//! cache and started from there with the libraries of their own release, so that nothing is
//! installed.
use crate::rig::within;
use anyhow::{Context, Result, ensure};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use trapline::cache::{Cache, Key};
use trapline::image::packages::{self, Apt};

/// What is fetched.
const PACKAGES: &[&str] = &["apache2-utils", "musl-dev", "openssh-client", "redis-tools"];

/// The unpacked packages.
pub struct Tools {
    tree: PathBuf,
}

impl Tools {
    /// From the cache, or the Debian archive.
    pub fn open() -> Result<Self> {
        let cache = Cache::open()?;
        let mut key = Key::new("tools", 1);
        for name in PACKAGES {
            key.text(name);
        }
        let tree = cache.file("tools", &key, |made| {
            let _lock = cache.lock("apt")?;
            std::fs::create_dir_all(made)?;
            let names = PACKAGES.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            for deb in Apt::new(&cache)?.fetch(&names)? {
                packages::unpack(&deb.path, made, &["./usr/share/*"])?;
            }
            Ok(())
        })?;
        Ok(Self { tree })
    }

    /// A file of these packages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.tree.join(name)
    }

    /// A command for a program of these packages.
    pub fn command(&self, program: &str) -> Command {
        let library = |folder: &str| self.tree.join(folder).join("x86_64-linux-gnu");
        let (own, more) = (library("lib"), library("usr/lib"));
        let mut command = Command::new(own.join("ld-linux-x86-64.so.2"));
        let path = format!("{}:{}", own.display(), more.display());
        command.args(["--library-path", &path]).arg(self.tree.join("usr/bin").join(program));
        command
    }

    /// Runs a program that must succeed within `limit`; its output.
    pub fn run(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let done = within(&mut command, limit).with_context(|| program.to_owned())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, error) = (text(&done.stdout), text(&done.stderr));
        ensure!(done.status.success(), "{program} {arguments:?}: {}: {error}{said}", done.status);
        Ok(said)
    }

    /// A script that starts a program of these packages, for others that want a path.
    pub fn script(&self, program: &str, folder: &Path) -> Result<PathBuf> {
        let command = self.command(program);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let quoted = words.map(|word| format!("'{}' ", word.to_string_lossy())).collect::<String>();
        let path = folder.join(program);
        std::fs::write(&path, format!("#!/bin/sh\nexec {quoted}\"$@\"\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }
}
