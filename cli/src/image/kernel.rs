//! The guests' kernel: the distribution's own package, byte for byte.
use super::KERNEL_PACKAGE;
use super::packages::{self, Apt};
use crate::cache::{Cache, Key};
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// An unpacked kernel package in the cache.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The compressed image as Debian ships it.
    pub image: PathBuf,
    /// The folder of its modules, `lib/modules/VERSION`.
    pub modules: PathBuf,
    /// Its version.
    pub version: String,
}

/// The newest stock kernel, from the cache when there is one.
///
/// # Errors
/// No network, or a package that is not as expected.
pub fn stock(cache: &Cache, progress: &Progress) -> Result<Kernel> {
    let key = Key::new("kernel", 1);
    let folder = cache.file("kernel", &key, |made| {
        progress.step(format!("fetching {KERNEL_PACKAGE}"));
        let _lock = cache.lock("apt")?;
        let apt = Apt::new(cache)?;
        let package = apt
            .depends(KERNEL_PACKAGE)?
            .into_iter()
            .find(|name| name.starts_with("linux-image-"))
            .with_context(|| format!("{KERNEL_PACKAGE} depends on no kernel"))?;
        let deb = apt.fetch_one(&package)?;
        fs::create_dir_all(made)?;
        packages::unpack(&deb.path, made, &["./usr/share/*"])
    })?;
    let kernel = find(&folder)?;
    check_image(&kernel.image)?;
    Ok(kernel)
}

fn find(folder: &Path) -> Result<Kernel> {
    let boot = fs::read_dir(folder.join("boot")).context("kernel package without /boot")?;
    let name = boot
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| name.starts_with("vmlinuz-"))
        .context("kernel package without vmlinuz")?;
    let version = name.trim_start_matches("vmlinuz-").to_owned();
    let modules = folder.join("lib/modules").join(&version);
    Ok(Kernel { image: folder.join("boot").join(name), modules, version })
}

/// Checks the magic numbers of the Linux boot protocol (Documentation/arch/x86/boot.rst), so that
/// a damaged file is named before anything starts.
///
/// # Errors
/// What is wrong with the file.
pub fn check_image(path: &Path) -> Result<()> {
    let bytes =
        fs::read(path).with_context(|| format!("can't read kernel image {}", path.display()))?;
    let signature = bytes.get(0x1fe..0x200) == Some(&[0x55, 0xaa]);
    if !signature || bytes.get(0x202..0x206) != Some(b"HdrS") {
        bail!("kernel image {} is damaged: no Linux boot header", path.display());
    }
    let sectors = u64::from(*bytes.get(0x1f1).unwrap_or(&0)).max(1);
    let paragraphs = bytes
        .get(0x1f4..0x1f8)
        .and_then(|raw| raw.try_into().ok())
        .map_or(0, |raw| u64::from(u32::from_le_bytes(raw)));
    let needed = (sectors + 1) * 512 + paragraphs * 16;
    if (bytes.len() as u64) < needed {
        bail!("kernel image {} is damaged: {} of {needed} bytes", path.display(), bytes.len());
    }
    Ok(())
}

impl Kernel {
    /// Finds a module by its name (`-` and `_` are the same).
    fn module_file(&self, name: &str) -> Option<PathBuf> {
        let wanted = format!("{}.ko", name.replace('-', "_"));
        let mut folders = vec![self.modules.join("kernel")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if entry.file_name().to_string_lossy().replace('-', "_") == wanted {
                    return Some(path);
                }
            }
        }
        None
    }

    /// Module files for a list of names, in that order. Names that are built into the kernel are
    /// left out; unknown ones too, as the list serves several versions.
    #[must_use]
    pub fn module_files(&self, names: &[&str]) -> Vec<(String, PathBuf)> {
        let mut seen = BTreeSet::new();
        names
            .iter()
            .filter(|name| seen.insert(**name))
            .filter_map(|name| Some(((*name).to_owned(), self.module_file(name)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_images_are_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("vmlinuz");
        fs::write(&path, b"garbage").expect("written");
        assert!(check_image(&path).is_err());
        let mut image = vec![0; 0x2000];
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 1;
        fs::write(&path, &image).expect("written");
        assert!(check_image(&path).is_ok());
        image[0x1f4..0x1f8].copy_from_slice(&0x10000u32.to_le_bytes());
        fs::write(&path, &image).expect("written");
        assert!(check_image(&path).unwrap_err().to_string().contains("of 1049600 bytes"));
    }
}
