//! The parts of Trapline itself: kernel, native programs and guest programs, built from this
//! repository by its build tool.
use crate::command;
use crate::image::initramfs::Programs;
use crate::progress::Progress;
use crate::supervise;
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The repository.
#[derive(Clone, Debug)]
pub struct Repository {
    root: PathBuf,
}

/// Guest programs besides init: name in the initramfs, and name of the executable.
const GUEST: &[(&str, &str)] = &[
    ("launcher", "trapline-launcher"),
    ("delegate", "trapline-delegate"),
    ("bench", "trapline-bench"),
    ("probe", "trapline-probe"),
];

const TARGET: &str = "x86_64-unknown-linux-gnu";

impl Repository {
    /// The repository that this program was built from, or `$TRAPLINE_ROOT`.
    ///
    /// # Errors
    /// It is not there any more.
    pub fn find() -> Result<Self> {
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf);
        let root = std::env::var_os("TRAPLINE_ROOT").map(PathBuf::from).or(built_in);
        let root = root.context("no repository")?;
        if !root.join("images").is_dir() {
            bail!("{} is not Trapline's repository", root.display());
        }
        Ok(Self { root })
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Builds what is stale (unless `$TRAPLINE_NO_BUILD` is set); only the programs of `plain` Linux, or all.
    ///
    /// # Errors
    /// The compiler's messages are shown; the error says which build.
    pub fn build(&self, plain: bool, progress: &Progress) -> Result<()> {
        if std::env::var_os("TRAPLINE_NO_BUILD").is_some() {
            return Ok(());
        }
        progress.step("building kernel, servers and guest programs");
        let mut arguments = vec!["run", "--quiet", "--release", "-p", "xtask", "--", "build"];
        if plain {
            arguments.push("trapline-init");
            arguments.extend(GUEST.iter().map(|(_, package)| *package));
        }
        self.cargo(&arguments).context("can't build kernel, servers and guest programs")
    }

    /// Runs cargo in the repository; its messages are shown when it fails.
    ///
    /// # Errors
    /// Cargo is missing or fails.
    pub fn cargo(&self, arguments: &[&str]) -> Result<()> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = supervise::child(&cargo)
            .args(arguments)
            .current_dir(&self.root)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("can't run {cargo}"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("cargo {} failed:\n{}", arguments.join(" "), text.trim_end());
        }
        Ok(())
    }

    fn built(&self, group: &str, profile: &str, name: &str) -> PathBuf {
        self.root.join("target-native").join(group).join(TARGET).join(profile).join(name)
    }

    /// The linked kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.built("kernel", "native", "kernel")
    }

    /// The native programs of a system, name and file, in the archive's order: the root program
    /// comes first, the kernel starts it.
    #[must_use]
    pub fn native(&self, system: &system::Description) -> Vec<(String, PathBuf)> {
        let mut names = vec!["root"];
        for program in &system.programs {
            if !names.contains(&program.file.as_str()) {
                names.push(&program.file);
            }
        }
        names.into_iter().map(|name| (name.to_owned(), self.native_program(name))).collect()
    }

    /// One native program.
    #[must_use]
    pub fn native_program(&self, name: &str) -> PathBuf {
        self.built("programs", "native", name)
    }

    /// One program for Linux.
    #[must_use]
    pub fn guest_program(&self, name: &str) -> PathBuf {
        self.built("guest", "guest", name)
    }

    /// The guest programs.
    #[must_use]
    pub fn guest(&self) -> Programs {
        let built = |name: &str| self.guest_program(name);
        Programs {
            init: built("trapline-init"),
            others: GUEST.iter().map(|(name, file)| ((*name).to_owned(), built(file))).collect(),
        }
    }

    /// The list of modules for the initramfs.
    ///
    /// # Errors
    /// It can't be read.
    pub fn modules(&self) -> Result<String> {
        let path = self.root.join("guest/modules.txt");
        std::fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
    }

    /// The description of a system, checked.
    ///
    /// # Errors
    /// A file that can't be read, or the place of the first mistake in it.
    pub fn description(&self, name: &str) -> Result<system::Description> {
        let path = match std::env::var_os("TRAPLINE_SYSTEM") {
            Some(path) => PathBuf::from(path),
            None => self.root.join("images").join(format!("{name}.toml")),
        };
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("can't read the system description {}", path.display()))?;
        system::from_text(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
    }
}

/// True where a compiler can be found.
#[must_use]
pub fn has_cargo() -> bool {
    std::env::var_os("CARGO").is_some() || command::find("cargo").is_some()
}
