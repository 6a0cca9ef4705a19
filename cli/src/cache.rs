//! Things that are costly to make, kept outside the repository under a hash of what they are
//! made from.
use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What a cached thing is made from.
#[derive(Clone, Default)]
pub struct Key(Sha256);

impl Key {
    /// The key of a thing of this kind; change `version` when the way it is made changes.
    #[must_use]
    pub fn new(kind: &str, version: u32) -> Self {
        let mut key = Self::default();
        key.text(kind).text(&version.to_string());
        key
    }

    /// Adds a text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Adds bytes; two additions never look like one.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds the content of a file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn file(&mut self, path: &Path) -> Result<&mut Self> {
        let bytes = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(self.bytes(&bytes))
    }

    /// The key as a file name.
    #[must_use]
    pub fn name(&self) -> String {
        hex(&self.0.clone().finalize()[..12])
    }
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The cache's folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens (and makes) `$TRAPLINE_CACHE`, `$XDG_CACHE_HOME/trapline` or `~/.cache/trapline`.
    ///
    /// # Errors
    /// No such variable, or the folder can't be made.
    pub fn open() -> Result<Self> {
        let root = Self::place().ok_or_else(|| {
            anyhow!("no place for the cache: neither XDG_CACHE_HOME nor HOME is set")
        })?;
        fs::create_dir_all(&root)
            .with_context(|| format!("can't make the cache folder {}", root.display()))?;
        Ok(Self { root })
    }

    fn place() -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(path) = variable("TRAPLINE_CACHE") {
            return Some(path.into());
        }
        let base = match variable("XDG_CACHE_HOME") {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(variable("HOME")?).join(".cache"),
        };
        Some(base.join("trapline"))
    }

    /// A folder in the cache, made when it is missing.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).with_context(|| format!("can't make {}", path.display()))?;
        Ok(path)
    }

    /// Waits until no other command of this user works on `name`.
    ///
    /// # Errors
    /// When the lock file can't be made.
    pub fn lock(&self, name: &str) -> Result<Flock<File>> {
        let path = self.folder("locks")?.join(name);
        let file = File::create(&path).with_context(|| format!("can't make {}", path.display()))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, error)| anyhow!("can't lock {}: {error}", path.display()))
    }

    /// The file (or folder) for `key`, made by `make` in a temporary place when it isn't there
    /// yet.
    ///
    /// # Errors
    /// What `make` says.
    pub fn file(
        &self,
        kind: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.folder(kind)?.join(key.name());
        if path.exists() {
            return Ok(path);
        }
        let _lock = self.lock(kind)?;
        if !path.exists() {
            let scratch = self.scratch(kind)?;
            let made = scratch.path().join("made");
            make(&made)?;
            fs::rename(&made, &path)
                .with_context(|| format!("can't put {} in its place", path.display()))?;
            self.forget_old(kind, &path, 6);
        }
        Ok(path)
    }

    /// A temporary folder on the cache's own file system; it vanishes with the value.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn scratch(&self, kind: &str) -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix(kind)
            .tempdir_in(self.folder("tmp")?)
            .context("can't make a temporary folder in the cache")
    }

    /// Keeps the `kept` newest things of a kind.
    pub fn forget_old(&self, kind: &str, newest: &Path, kept: usize) {
        let Ok(entries) = fs::read_dir(self.root.join(kind)) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .filter(|(_, path)| path != newest)
            .collect();
        files.sort();
        let surplus = files.len().saturating_sub(kept.saturating_sub(1));
        for (_, path) in files.into_iter().take(surplus) {
            // A file that can't be removed is only space lost.
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_pieces_apart() {
        let key = |parts: &[&str]| {
            let mut key = Key::new("kind", 1);
            for part in parts {
                key.text(part);
            }
            key.name()
        };
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(key(&["ab", ""]), key(&["a", "b"]));
        assert_ne!(Key::new("kind", 1).name(), Key::new("kind", 2).name());
    }

    #[test]
    fn a_file_is_made_once_and_a_failed_one_is_not_kept() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let cache = Cache { root: folder.path().to_owned() };
        let key = Key::new("x", 1);
        assert!(cache.file("x", &key, |_| Err(anyhow!("no"))).is_err());
        let made = cache.file("x", &key, |path| Ok(fs::write(path, "1")?)).expect("made");
        let again = cache.file("x", &key, |_| Err(anyhow!("made twice"))).expect("there");
        assert_eq!(made, again);
        assert_eq!(fs::read(again).expect("readable"), b"1");
    }
}
