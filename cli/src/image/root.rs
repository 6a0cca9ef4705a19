//! The root image: packages unpacked, what their installation scripts would have done, and an
//! EROFS image of it all.
use super::DEFAULT_PACKAGES;
use super::packages::{self, Apt, Deb};
use crate::cache::{Cache, Key};
use crate::command::{output, tool};
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Version of the way the image is made.
const VERSION: u32 = 3;

/// Needed by installation scripts only, which are not run. Left out of the default image.
const SCRIPTS_ONLY: &[&str] = &[
    "adduser",
    "debconf",
    "debianutils",
    "dpkg",
    "gcc-12-base",
    "init-system-helpers",
    "libdebconfclient0",
    "libfile-find-rule-perl",
    "libnumber-compare-perl",
    "libperl5.36",
    "libtext-glob-perl",
    "openssl",
    "passwd",
    "perl",
    "perl-base",
    "perl-modules-5.36",
    "usrmerge",
];

/// What nobody reads inside a virtual machine.
const EXCLUDE: &[&str] = &[
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/info/*",
    "./usr/share/locale/*",
    "./usr/share/lintian/*",
    "./usr/share/bash-completion/*",
    "./usr/lib/python3.11/test/*",
];

/// Folders that packages put files into, and that are links into `/usr` on Debian.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Mount points and folders that no package holds.
const FOLDERS: &[&str] = &[
    "dev",
    "etc",
    "home",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/local/bin",
    "var/cache",
    "var/lib",
    "var/log",
    "var/tmp",
];

/// Links that installation scripts and the alternatives system make; only where the target is.
const LINKS: &[(&str, &str)] = &[
    ("usr/bin/awk", "mawk"),
    ("usr/bin/nawk", "mawk"),
    ("usr/bin/nc", "nc.openbsd"),
    ("usr/bin/netcat", "nc.openbsd"),
    ("usr/bin/sh", "dash"),
    ("usr/bin/python", "python3"),
    ("usr/bin/pager", "less"),
    ("usr/bin/vi", "vim.tiny"),
];

/// Small files of `/etc`.
const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "trapline\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
         protocols: files\nservices: files\n",
    ),
    ("etc/fstab", ""),
    ("etc/shells", "/bin/sh\n/bin/bash\n"),
    ("etc/host.conf", "multi on\n"),
];

/// A root image in the cache.
#[derive(Clone, Debug)]
pub struct Image {
    /// The EROFS image.
    pub image: PathBuf,
    /// Absolute paths of the programs in it.
    programs: Vec<String>,
}

/// Folders that programs are looked for in, in order.
const PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

impl Image {
    fn open(folder: &Path) -> Result<Self> {
        let list = fs::read_to_string(folder.join("programs"))?;
        let programs = list.lines().map(str::to_owned).collect();
        Ok(Self { image: folder.join("image"), programs })
    }

    /// Absolute path of a program in the image.
    ///
    /// # Errors
    /// There is no such program.
    pub fn resolve(&self, program: &str) -> Result<String> {
        // Programs of the initramfs, which are in no package.
        if program.starts_with("/run/trapline/") {
            return Ok(program.to_owned());
        }
        let there = |path: &String| self.programs.binary_search(path).is_ok();
        let found = if let Some(rest) = program.strip_prefix('/') {
            // `/bin/x` is `/usr/bin/x`.
            [format!("/{rest}"), format!("/usr/{rest}")].into_iter().find(there)
        } else {
            PATH.iter().map(|folder| format!("{folder}/{program}")).find(there)
        };
        found.with_context(|| {
            format!("there is no program '{program}' in the root image (--package adds packages)")
        })
    }

    /// Absolute paths of programs, each once.
    ///
    /// # Errors
    /// As for [`Image::resolve`].
    pub fn resolve_all(&self, programs: &[String]) -> Result<Vec<String>> {
        let mut paths = programs.iter().map(|p| self.resolve(p)).collect::<Result<Vec<_>>>()?;
        paths.sort();
        paths.dedup();
        Ok(paths)
    }
}

/// The root image with the default packages and `extra` ones, from the cache when it is there.
///
/// # Errors
/// An unknown package, no network, a missing tool.
pub fn image(cache: &Cache, extra: &[String], progress: &Progress) -> Result<Image> {
    let mut names: Vec<String> =
        DEFAULT_PACKAGES.iter().map(|n| (*n).to_owned()).chain(extra.iter().cloned()).collect();
    names.sort();
    names.dedup();
    check_names(extra)?;
    let mut key = Key::new("root", VERSION);
    for name in &names {
        key.text(name);
    }
    let folder = cache.file("root", &key, |made| {
        progress.step(format!("fetching Debian packages for the root image ({})", names.len()));
        let _lock = cache.lock("apt")?;
        let mut debs = Apt::new(cache)?.fetch(&names)?;
        if extra.is_empty() {
            debs.retain(|deb| !SCRIPTS_ONLY.contains(&deb.name.as_str()));
        }
        let scratch = cache.scratch("root")?;
        let tree = scratch.path().join("tree");
        build_tree(&tree, &debs, progress)?;
        progress.step("making the root image");
        fs::create_dir_all(made)?;
        fs::write(made.join("programs"), programs(&tree)?)?;
        make_erofs(&tree, &made.join("image"))
    })?;
    Image::open(&folder)
}

/// Absolute paths of all programs, sorted, a line each.
fn programs(tree: &Path) -> Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let mut paths = Vec::new();
    let mut folders = PATH.iter().map(|f| f[1..].to_owned()).collect::<Vec<_>>();
    folders.push("usr/lib".into());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(tree.join(&folder)).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{folder}/{name}");
            let kind = entry.file_type()?;
            // Links may lead out of the tree that is not `/` yet, so they are believed.
            let executable = kind.is_file() && entry.metadata()?.permissions().mode() & 0o111 != 0;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_symlink() || executable {
                paths.push(format!("/{path}"));
            }
        }
    }
    paths.sort();
    Ok(paths.join("\n"))
}

/// Python's byte code, so that the VMs don't compile the standard library at every start. It is
/// made by the image's own Python, and marked as never stale, since the image has no file times.
fn byte_code(tree: &Path) -> Result<()> {
    let Some(python) = fs::read_dir(tree.join("usr/bin")).ok().and_then(|entries| {
        let mut names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
        names.find(|n| n.strip_prefix("python3.").is_some_and(|v| v.parse::<u32>().is_ok()))
    }) else {
        return Ok(());
    };
    let library = tree.join("usr/lib");
    let mut command = crate::supervise::child("env");
    command
        .arg(format!("PYTHONHOME={}", tree.join("usr").display()))
        .arg(library.join("x86_64-linux-gnu/ld-linux-x86-64.so.2"))
        .arg("--library-path")
        .arg(library.join("x86_64-linux-gnu"))
        .arg(tree.join("usr/bin").join(&python))
        .args(["-m", "compileall", "-q", "-j0", "--invalidation-mode", "unchecked-hash", "-s"])
        .arg(tree)
        .args(["-p", "/"])
        .arg(library.join(&python));
    output(&mut command).map(drop)
}

/// Names that would be options or patterns to `apt-get` are refused before it sees them.
fn check_names(names: &[String]) -> Result<()> {
    for name in names {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        // A trailing + or - means something else to apt-get, except in names such as `g++`.
        if !starts || !name.chars().all(plain) || name.ends_with('-') {
            bail!("'{name}' is no name of a Debian package");
        }
    }
    Ok(())
}

fn build_tree(tree: &Path, debs: &[Deb], progress: &Progress) -> Result<()> {
    for folder in FOLDERS {
        fs::create_dir_all(tree.join(folder))?;
    }
    for folder in MERGED {
        fs::create_dir_all(tree.join("usr").join(folder))?;
        symlink(format!("usr/{folder}"), tree.join(folder))?;
    }
    for (number, deb) in debs.iter().enumerate() {
        progress.step(format!("unpacking {} ({} of {})", deb.name, number + 1, debs.len()));
        packages::unpack(&deb.path, tree, EXCLUDE)?;
    }
    configure(tree)
}

/// What the packages' installation scripts would have done, as far as programs here need it.
fn configure(tree: &Path) -> Result<()> {
    for (name, text) in FILES {
        fs::write(tree.join(name), text).with_context(|| format!("can't write {name}"))?;
    }
    for name in ["passwd", "group"] {
        let master = tree.join("usr/share/base-passwd").join(format!("{name}.master"));
        if master.exists() {
            fs::copy(&master, tree.join("etc").join(name))?;
        }
    }
    for (link, target) in LINKS {
        let link = tree.join(link);
        let there = link.with_file_name(target).symlink_metadata().is_ok();
        if there && link.symlink_metadata().is_err() {
            symlink(target, &link)?;
        }
    }
    for (link, target) in [("etc/mtab", "/proc/self/mounts"), ("var/run", "/run")] {
        let link = tree.join(link);
        if link.symlink_metadata().is_err() {
            symlink(target, link)?;
        }
    }
    certificates(tree)?;
    // Without it, Python only starts more slowly.
    let _ = byte_code(tree);
    // Only a matter of speed: the loader knows Debian's library folders without its cache. It
    // needs the right to change the root folder.
    let _ = output(tool("ldconfig").arg("-r").arg(tree));
    Ok(())
}

/// The bundle that `update-ca-certificates` makes.
fn certificates(tree: &Path) -> Result<()> {
    let folder = tree.join("usr/share/ca-certificates/mozilla");
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(()) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut bundle = Vec::new();
    for file in files {
        bundle.extend(fs::read(&file)?);
        bundle.push(b'\n');
    }
    let target = tree.join("etc/ssl/certs");
    fs::create_dir_all(&target)?;
    Ok(fs::write(target.join("ca-certificates.crt"), bundle)?)
}

/// An uncompressed image: each page of a file is a page of the image, which DAX needs.
fn make_erofs(tree: &Path, image: &Path) -> Result<()> {
    let mut command = tool("mkfs.erofs");
    // `-E force-inode-compact` keeps inodes small; tails are not packed, so that all data is in
    // whole blocks.
    command.args(["-T0", "--all-root", "-Enoinline_data", "-U", IMAGE_UUID]);
    output(command.arg(image).arg(tree)).context("can't make the root image")?;
    // A persistent-memory device consists of large pages.
    let file = fs::File::options().write(true).open(image)?;
    let length = file.metadata()?.len();
    Ok(file.set_len(length.next_multiple_of(2 << 20))?)
}

/// Fixed, so that the same files make the same image.
const IMAGE_UUID: &str = "7a5e0f86-0f5c-4bd5-8c1c-2f3f3b0e6a11";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_reach_apt() {
        for good in ["curl", "g++", "libstdc++6", "python3.11", "0ad"] {
            assert!(check_names(&[good.into()]).is_ok(), "{good}");
        }
        for bad in ["", "-o", "curl-", "Curl", "a b", "a=1", "../x", "a/b", "*"] {
            assert!(check_names(&[bad.into()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn configuration_is_written_even_without_packages() {
        let tree = tempfile::tempdir().expect("temporary folder");
        build_tree(tree.path(), &[], &Progress::new(false)).expect("empty tree");
        assert!(tree.path().join("etc/nsswitch.conf").is_file());
        assert!(tree.path().join("bin").is_symlink());
    }
}
