//! Parts of files, in and out.

use hostlink::agent::MAX_DATA;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, create_dir_all};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// So that a FIFO or a device under the name cannot stop the agent (`O_NONBLOCK`).
const NO_WAIT: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

fn describe(path: &Path, outcome: io::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
    outcome.map_err(|error| format!("{}: {error}", path.display()))
}

fn opened(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(NO_WAIT).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Writes a part; the first one creates the file and the directories above it.
///
/// # Errors
/// What went wrong, in words.
pub fn write(path: &[u8], mode: u32, offset: u64, data: &[u8]) -> Result<(), String> {
    let path = Path::new(OsStr::from_bytes(path));
    let write = || {
        let first = offset == 0;
        if let (true, Some(parent)) = (first, path.parent()) {
            create_dir_all(parent)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(first).truncate(first).mode(mode & 0o7777);
        let file = opened(&mut options, path)?;
        file.write_all_at(data, offset)?;
        Ok(Vec::new())
    };
    describe(path, write()).map(drop)
}

/// Reads a part, at most [`MAX_DATA`] bytes.
///
/// # Errors
/// What went wrong, in words.
pub fn read(path: &[u8], offset: u64, length: u32) -> Result<Vec<u8>, String> {
    let path = Path::new(OsStr::from_bytes(path));
    let read = || {
        let mut data = vec![0; (length as usize).min(MAX_DATA)];
        let got = opened(OpenOptions::new().read(true), path)?.read_at(&mut data, offset)?;
        data.truncate(got);
        Ok(data)
    };
    describe(path, read())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_a_file_and_come_back() {
        let directory = std::env::temp_dir().join(format!("trapline-files-{}", std::process::id()));
        let path = directory.join("a/b");
        let name = path.as_os_str().as_bytes();
        assert_eq!(write(name, 0o600, 0, b"hello "), Ok(()));
        assert_eq!(write(name, 0o600, 6, b"world"), Ok(()));
        assert_eq!(read(name, 3, 100), Ok(b"lo world".to_vec()));
        assert_eq!(read(name, 11, 100), Ok(Vec::new()));
        assert!(read(directory.as_os_str().as_bytes(), 0, 1).is_err());
        assert!(
            read(b"/nowhere/at/all", 0, 1).is_err_and(|text| text.starts_with("/nowhere/at/all"))
        );
        std::fs::remove_dir_all(directory).expect("own directory");
    }
}
