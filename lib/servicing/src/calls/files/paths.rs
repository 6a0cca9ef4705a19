//! Whose file a path means.
//!
//! A path is made absolute and freed of `.`, `..` and doubled slashes as text; then the longest
//! entry of the policy that it lies at or below decides. What follows the entry is looked up by the
//! delegate, whose kernel lets no symbolic link lead out of the entry.
use super::super::readiness::Access as _;
use super::super::vouch::vouch;
use super::{answered, ask, view};
use crate::cx::Cx;
use crate::delegate::Lease;
use crate::space::Outcome;
use alloc::vec::Vec;
use linux_abi::{AT_FDCWD, Errno, PATH_MAX, check, nr};
use paging::PAGE;
use wire::{FileRequest, PathAction, Place, Response, layout};

/// A path of the service VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// All of it, without redundant parts.
    pub path: Vec<u8>,
    /// The policy's entry.
    root: Vec<u8>,
    /// What follows the entry.
    rest: Vec<u8>,
    /// It may be changed.
    write: bool,
}

/// What a path means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// The program's own kernel finds it as it was spelled.
    Own,
    /// The program's own kernel finds it under this absolute path.
    OwnAt(Vec<u8>),
    /// A file of the service VM.
    Remote(Target),
}

impl Target {
    /// Entries stay where they are, like mount points, and so does what leads to them: those of
    /// all programs, because an entry is followed wherever it leads.
    ///
    /// # Errors
    /// `EBUSY` for such a name.
    pub fn movable(&self, cx: &Cx) -> Result<(), Errno> {
        let leads = |entry: &[u8]| {
            let rest = entry.strip_prefix(self.path.as_slice());
            rest.is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
        };
        let mut entries = cx.core.policy.programs.iter().flat_map(|p| &p.files);
        let leads = entries.any(|rule| leads(rule.path.as_bytes()));
        if leads { Err(Errno::EBUSY) } else { Ok(()) }
    }

    /// True when both lie below the same entry.
    pub fn has_entry_of(&self, other: &Self) -> bool {
        let plain = |root: &[u8]| root.strip_suffix(b"/").unwrap_or(root).to_vec();
        plain(&self.root) == plain(&other.root)
    }

    /// True when the policy lets it be changed.
    pub fn may_write(&self) -> bool {
        self.write
    }

    /// # Errors
    /// `EROFS` unless the policy lets it be changed.
    pub fn writable(&self) -> Result<(), Errno> {
        if self.write { Ok(()) } else { Err(Errno::EROFS) }
    }

    fn place(&self) -> Place {
        Place { root: self.root.len() as u16, rest: self.rest.len() as u16 }
    }

    /// Writes a path to the front of the data area, and what follows it.
    pub fn put(&self, lease: &Lease, data: &[u8]) -> Result<Place, Errno> {
        put(lease, &[self], data)?;
        Ok(self.place())
    }

    /// A request about this path without data: its result.
    pub async fn simple(
        &self,
        cx: &Cx,
        action: PathAction,
        a: u32,
        b: u32,
    ) -> Result<Outcome, Errno> {
        self.with_data(cx, action, (a, b), &[]).await
    }

    /// A request about this path with data: its result.
    pub async fn with_data(
        &self,
        cx: &Cx,
        action: PathAction,
        numbers: (u32, u32),
        data: &[u8],
    ) -> Result<Outcome, Errno> {
        vouch(cx)?;
        let lease = cx.worker().await?;
        let response = self.request(cx, &lease, action, numbers, data).await?;
        Ok(Outcome::Return(response.value))
    }

    /// A request about this path that is answered with data.
    pub async fn for_data(
        &self,
        cx: &Cx,
        action: PathAction,
        numbers: (u32, u32),
    ) -> Result<Vec<u8>, Errno> {
        vouch(cx)?;
        let lease = cx.worker().await?;
        let response = self.request(cx, &lease, action, numbers, &[]).await?;
        answered(&lease, &response)
    }

    async fn request(
        &self,
        cx: &Cx,
        lease: &Lease,
        action: PathAction,
        (a, b): (u32, u32),
        data: &[u8],
    ) -> Result<Response, Errno> {
        let (first, second) = (self.put(lease, data)?, Place::default());
        let data = data.len() as u32;
        ask(cx, lease, FileRequest::Path { action, first, second, a, b, data }).await
    }
}

fn put(lease: &Lease, targets: &[&Target], data: &[u8]) -> Result<(), Errno> {
    let mut bytes = Vec::new();
    for target in targets {
        bytes.extend_from_slice(&target.root);
        bytes.extend_from_slice(&target.rest);
    }
    bytes.extend_from_slice(data);
    lease.mailbox().memory().write_all(layout::PAYLOAD, &bytes)
}

/// A request about two paths: its result.
pub async fn both(
    cx: &Cx,
    action: PathAction,
    (one, two): (&Target, &Target),
    a: u32,
) -> Result<Outcome, Errno> {
    vouch(cx)?;
    let lease = cx.worker().await?;
    put(&lease, &[one, two], &[])?;
    let (first, second) = (one.place(), two.place());
    let request = FileRequest::Path { action, first, second, a, b: 0, data: 0 };
    Ok(Outcome::Return(ask(cx, &lease, request).await?.value))
}

/// A path below a directory, as text: absolute, and whether it ends as directories do.
fn lexical(directory: &[u8], path: &[u8]) -> (Vec<u8>, bool) {
    let absolute = path.first() == Some(&b'/');
    let start: &[u8] = if absolute { b"" } else { directory };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in start.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let mut out = Vec::with_capacity(start.len() + path.len() + 2);
    for part in &parts {
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    let last = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    (out, matches!(last, b"" | b"." | b"..") && !path.is_empty())
}

/// The remote file that an absolute path without redundant parts names, by the policy.
pub fn target(cx: &Cx, path: Vec<u8>, directory: bool) -> Option<Target> {
    let path = policy::normalise(&path)?;
    let rules = cx.core.program(&cx.space)?.files.iter();
    let below = |root: &[u8]| {
        let rest = path.strip_prefix(root)?;
        (rest.is_empty() || rest.first() == Some(&b'/')).then_some(rest)
    };
    let found = rules.filter_map(|r| Some((r, below(r.path.as_bytes())?)));
    let (rule, rest) = found.max_by_key(|(rule, _)| rule.path.len())?;
    let mut root = rule.path.as_bytes().to_vec();
    let mut rest = rest.strip_prefix(b"/").unwrap_or(rest).to_vec();
    if directory {
        if rest.is_empty() { root.push(b'/') } else { rest.push(b'/') }
    }
    Some(Target { root, rest, write: rule.write, path })
}

/// The path that a local directory's descriptor has, as the program's own kernel says.
async fn directory_of(cx: &Cx, fd: i32) -> Result<Vec<u8>, Errno> {
    let scratch = cx.scratch()?;
    let name = alloc::format!("/proc/self/fd/{fd}\0");
    cx.write(scratch.address, name.as_bytes()).await?;
    let (to, room) = (scratch.address + 64, PAGE - 64);
    let length = check(cx.local(nr::readlink, [scratch.address, to, room, 0, 0, 0]).await)?;
    let path = cx.bytes(to, (length.max(0) as usize).min(room as usize)).await?;
    // No kernel answers that, and what is behind it would count here only.
    if path.contains(&0) { Err(Errno::EINVAL) } else { Ok(path) }
}

/// What a path that begins at `directory` (or at the current one) means.
pub async fn resolve(cx: &Cx, directory: Option<i32>, path: &[u8]) -> Result<Meaning, Errno> {
    if path.is_empty() {
        return Ok(Meaning::Own);
    }
    let mut elsewhere = false;
    let start = if path.first() == Some(&b'/') {
        Vec::new()
    } else if let Some(fd) = directory.filter(|fd| *fd != AT_FDCWD) {
        let entry = super::file(&cx.table, fd as u64);
        match entry.as_ref().and_then(|e| e.resource.file.as_ref()) {
            Some(file) => {
                elsewhere = true;
                file.path.clone()
            }
            // A descriptor that is none, or no file: the kernel says so.
            None => directory_of(cx, fd).await.unwrap_or_default(),
        }
    } else {
        elsewhere = cx.table.view.is_remote();
        view::directory(cx).await.unwrap_or_default()
    };
    if start.first() != Some(&b'/') && path.first() != Some(&b'/') {
        return Ok(Meaning::Own);
    }
    let (whole, is_directory) = lexical(&start, path);
    if whole.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if let Some(file) = open_file(cx, &whole) {
        let found = target(cx, file, is_directory);
        return found.map(Meaning::Remote).ok_or(Errno::EACCES);
    }
    Ok(match target(cx, whole.clone(), is_directory) {
        Some(target) => Meaning::Remote(target),
        None if elsewhere => {
            let mut whole = whole;
            if is_directory && whole != b"/" {
                whole.push(b'/');
            }
            Meaning::OwnAt(whole)
        }
        None => Meaning::Own,
    })
}

/// The path of the open remote file that a name such as `/dev/stdin` or `/proc/self/fd/3` means.
fn open_file(cx: &Cx, path: &[u8]) -> Option<Vec<u8>> {
    let fd = match path {
        b"/dev/stdin" => 0,
        b"/dev/stdout" => 1,
        b"/dev/stderr" => 2,
        _ => {
            let own = alloc::format!("/proc/{}/fd/", cx.table.pid.get());
            let prefixes = [&b"/dev/fd/"[..], b"/proc/self/fd/", own.as_bytes()];
            let number = prefixes.iter().find_map(|prefix| path.strip_prefix(*prefix))?;
            core::str::from_utf8(number).ok()?.parse().ok()?
        }
    };
    let entry = super::file(&cx.table, fd)?;
    Some(entry.resource.file.as_ref()?.path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_become_absolute() {
        let text = |directory: &str, path: &str| {
            let (path, directory) = lexical(directory.as_bytes(), path.as_bytes());
            (String::from_utf8(path).unwrap(), directory)
        };
        assert_eq!(text("/srv", "a//b/./c"), ("/srv/a/b/c".into(), false));
        assert_eq!(text("/srv/x", "../../../etc/hosts"), ("/etc/hosts".into(), false));
        assert_eq!(text("/srv", "/etc/"), ("/etc".into(), true));
        assert_eq!(text("/srv", ".."), ("/".into(), true));
        assert_eq!(text("/srv", "."), ("/srv".into(), true));
    }

    proptest! {
        /// Whatever the spelling, nothing is left that could lead elsewhere.
        #[test]
        fn no_redundant_part_is_left(
            parts in proptest::collection::vec("(|\\.|\\.\\.|[a-c.]{1,3})", 0..12),
            absolute: bool,
        ) {
            let mut path = parts.join("/");
            if absolute {
                path.insert(0, '/');
            }
            let (out, _) = lexical(b"/srv/data", path.as_bytes());
            prop_assert_eq!(out[0], b'/');
            let mut rest = out.split(|b| *b == b'/').skip(1);
            prop_assert!(out == b"/" || rest.all(|p| !matches!(p, b"" | b"." | b"..")));
            let again = lexical(b"/other", &out).0;
            prop_assert_eq!(again, out);
        }
    }
}
