//! Debian packages, found and fetched by `apt` with state of its own, so that neither root rights
//! nor anything installed on the host matters.
use crate::cache::{Cache, Key};
use crate::command::{output, tool};
use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Debian release that images are made from.
pub const RELEASE: &str = "bookworm";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package file in the cache.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deb {
    /// Name of the package.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// `apt` with lists, archives and an empty "installed" database in the cache.
pub struct Apt {
    root: PathBuf,
}

impl Apt {
    /// Prepares the folders.
    ///
    /// # Errors
    /// When they can't be made.
    pub fn new(cache: &Cache) -> Result<Self> {
        let root = cache.folder("apt")?;
        for folder in ["lists/partial", "archives/partial", "etc"] {
            fs::create_dir_all(root.join(folder))
                .with_context(|| format!("can't make {}", root.join(folder).display()))?;
        }
        fs::write(root.join("status"), "")?;
        let apt = Self { root };
        if !host_is_release() {
            let line =
                format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian {RELEASE} main\n");
            fs::write(apt.root.join("etc/sources.list"), line)?;
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let at = |name: &str| self.root.join(name).display().to_string();
        let mut command = tool(program);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        let mut options = vec![
            format!("Dir::State::status={}", at("status")),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::Cache={}", self.root.display()),
            format!("Dir::Cache::archives={}", at("archives")),
            "APT::Sandbox::User=root".into(),
            "APT::Architecture=amd64".into(),
            "APT::Install-Recommends=false".into(),
            "Acquire::Retries=2".into(),
            "Acquire::Languages=none".into(),
            "Acquire::http::Timeout=30".into(),
        ];
        if !host_is_release() {
            options.push(format!("Dir::Etc::sourcelist={}", at("etc/sources.list")));
            options.push("Dir::Etc::sourceparts=/dev/null".into());
        }
        for option in options {
            command.arg("-o").arg(option);
        }
        command
    }

    /// Fetches the lists of packages.
    ///
    /// # Errors
    /// What `apt-get update` says.
    pub fn update(&self) -> Result<()> {
        output(self.command("apt-get").args(["-qq", "update"]))
            .context("can't fetch the lists of Debian packages")?;
        fs::write(self.root.join("updated"), "")?;
        Ok(())
    }

    fn ensure_lists(&self) -> Result<()> {
        if self.root.join("updated").exists() { Ok(()) } else { self.update() }
    }

    /// The packages with everything that they depend on, downloaded. Lists that have grown too
    /// old are fetched again.
    ///
    /// # Errors
    /// An unknown package, or what `apt-get` says.
    pub fn fetch(&self, packages: &[String]) -> Result<Vec<Deb>> {
        self.ensure_lists()?;
        match self.try_fetch(packages) {
            Ok(debs) => Ok(debs),
            Err(_) => {
                self.update()?;
                self.try_fetch(packages).map_err(|error| explain(error, packages))
            }
        }
    }

    fn try_fetch(&self, packages: &[String]) -> Result<Vec<Deb>> {
        let install = |extra: &[&str]| {
            let mut command = self.command("apt-get");
            command.args(["-qq", "-y"]).args(extra).arg("install").arg("--").args(packages);
            output(&mut command)
        };
        // `--print-uris` leaves out what is in the archive folder already: so it is asked with an
        // empty one for the list, and then the files are fetched.
        let empty = format!("Dir::Cache::archives={}", self.root.join("etc").display());
        let uris = install(&["-o", &empty, "--print-uris"])?;
        install(&["--download-only"])?;
        let text = String::from_utf8(uris).context("apt-get --print-uris: not UTF-8")?;
        let debs = text.lines().map(|line| self.deb(line)).collect::<Result<Vec<_>>>()?;
        for deb in &debs {
            if !deb.path.exists() {
                bail!("apt-get did not deliver {}", deb.path.display());
            }
        }
        Ok(debs)
    }

    /// One package, without what it depends on. Lists that have grown too old are fetched again.
    ///
    /// # Errors
    /// What `apt-get` says.
    pub fn fetch_one(&self, package: &str) -> Result<Deb> {
        self.ensure_lists()?;
        self.try_fetch_one(package).or_else(|_| {
            self.update()?;
            self.try_fetch_one(package)
        })
    }

    fn try_fetch_one(&self, package: &str) -> Result<Deb> {
        let mut print = self.command("apt-get");
        let line = output(print.args(["-qq", "download", "--print-uris", package]))?;
        let deb = self.deb(String::from_utf8_lossy(&line).trim())?;
        if !deb.path.exists() {
            let mut download = self.command("apt-get");
            output(
                download.current_dir(self.root.join("archives")).args(["-qq", "download", package]),
            )?;
        }
        Ok(deb)
    }

    /// The packages that `package` depends on directly.
    ///
    /// # Errors
    /// An unknown package.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        self.ensure_lists()?;
        let text = output(self.command("apt-cache").args(["depends", package]))
            .with_context(|| format!("no Debian package '{package}'"))?;
        Ok(String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_owned)
            .collect())
    }

    /// Reads a line of `--print-uris`: `'URI' FILE SIZE HASH`.
    fn deb(&self, line: &str) -> Result<Deb> {
        let file = line
            .split_ascii_whitespace()
            .nth(1)
            .filter(|file| !file.contains('/') && file.ends_with(".deb"))
            .ok_or_else(|| anyhow!("can't understand apt-get's line '{line}'"))?;
        let name = file.split('_').next().unwrap_or(file).to_owned();
        Ok(Deb { name, path: self.root.join("archives").join(file) })
    }
}

fn explain(error: anyhow::Error, packages: &[String]) -> anyhow::Error {
    let text = format!("{error:#}");
    let unknown = packages.iter().find(|package| {
        text.contains(&format!("Unable to locate package {package}"))
            || text.contains(&format!("Package '{package}' has no installation candidate"))
            || text.contains(&format!("Package {package} is not available"))
    });
    match unknown {
        Some(package) => anyhow!("there is no Debian package '{package}' in {RELEASE}"),
        None => error.context("can't fetch Debian packages"),
    }
}

fn host_is_release() -> bool {
    fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line == "VERSION_CODENAME=bookworm"))
}

/// The names of package files as part of a key.
pub fn add_to_key(key: &mut Key, debs: &[Deb]) {
    for deb in debs {
        key.text(&deb.path.file_name().unwrap_or_default().to_string_lossy());
    }
}

/// Unpacks packages into `folder`; `exclude` are patterns of `tar`.
///
/// # Errors
/// A damaged package.
pub fn unpack(deb: &Path, folder: &Path, exclude: &[&str]) -> Result<()> {
    use std::process::Stdio;
    let mut reader = tool("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("can't run dpkg-deb")?;
    let stream = reader.stdout.take().context("dpkg-deb without output")?;
    let mut tar = tool("tar");
    // Debian's packages hold `/bin` and `/lib`, which are links into `/usr` in the image.
    tar.args(["-x", "--keep-directory-symlink", "--no-same-owner", "--no-same-permissions", "-p"])
        .args(exclude.iter().map(|pattern| format!("--exclude={pattern}")))
        .arg("-C")
        .arg(folder)
        .stdin(stream);
    let done = tar.output().context("can't run tar")?;
    let read = reader.wait()?;
    if !read.success() || !done.status.success() {
        bail!(
            "package {} is damaged: {}",
            deb.display(),
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_print_uris_are_read_and_others_refused() {
        let apt = Apt { root: "/c".into() };
        let deb = apt.deb("'http://x/curl_7_amd64.deb' curl_7_amd64.deb 12 SHA256:ab").expect("ok");
        assert_eq!(deb, Deb { name: "curl".into(), path: "/c/archives/curl_7_amd64.deb".into() });
        for bad in ["", "x", "'u' ../../etc/passwd 1", "'u' a/b.deb 1"] {
            assert!(apt.deb(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_package_is_named() {
        let error = anyhow!("apt-get failed: E: Unable to locate package nonsense");
        let text = explain(error, &["curl".into(), "nonsense".into()]).to_string();
        assert_eq!(text, "there is no Debian package 'nonsense' in bookworm");
    }
}
