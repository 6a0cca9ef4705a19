//! What calls on paths depend on in a process: its current directory and its mask; and what is
//! known of an open file.
use super::paths::{self, Target};
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::Entry;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_abi::{Errno, PATH_MAX, check, nr};
use paging::PAGE;
use wire::PathAction;

/// Mask of programs whose sandbox does not let it be asked for.
const USUAL_MASK: u32 = 0o022;

/// An open file of the service VM.
#[derive(Debug)]
pub struct OpenFile {
    /// Its path when it was opened: absolute, without redundant parts.
    pub path: Vec<u8>,
    /// The policy lets it be changed.
    pub write: bool,
}

/// The part of a process's state that its paths depend on; children of `fork` have a copy.
#[derive(Clone, Debug, Default)]
pub struct View {
    active: Cell<bool>,
    /// The current directory, where it is a remote one.
    remote: RefCell<Option<Vec<u8>>>,
    /// The current directory of its own kernel, once it was asked for.
    own: RefCell<Option<Vec<u8>>>,
    /// The mask of new files, once it is known.
    mask: Cell<Option<u32>>,
    /// It may have record locks on remote files (`fcntl(2)`): the process's, not its descriptors'.
    pub has_locks: Cell<bool>,
}

impl View {
    /// True when the program has remote files.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.get()
    }

    /// Another program begins, with remote files or without. One without is not asked what it
    /// changes: nothing is known of it, and it is where its own kernel says.
    pub fn begin(&self, active: bool) {
        self.active.set(active);
        self.forget();
        if !active {
            self.mask.set(None);
            self.remote.borrow_mut().take();
        }
    }

    /// The current directory is another one.
    pub fn moved(&self, remote: Option<Vec<u8>>) {
        *self.remote.borrow_mut() = remote;
        self.own.borrow_mut().take();
    }

    /// Its own kernel has to be asked again.
    pub fn forget(&self) {
        self.own.borrow_mut().take();
    }

    /// True when the current directory is a remote one.
    pub fn is_remote(&self) -> bool {
        self.remote.borrow().is_some()
    }
}

/// The directory that relative paths begin at. Its own kernel may be asked: what becomes of the
/// answer is checked like any other path.
pub async fn directory(cx: &Cx) -> Result<Vec<u8>, Errno> {
    let view = &cx.table.view;
    if let Some(known) = view.remote.borrow().clone().or_else(|| view.own.borrow().clone()) {
        return Ok(known);
    }
    let scratch = cx.scratch()?;
    let length = check(cx.local(nr::getcwd, [scratch.address, PAGE, 0, 0, 0, 0]).await)?;
    let path = cx.string(scratch.address, PATH_MAX.min(length.max(0) as usize)).await?;
    *view.own.borrow_mut() = Some(path.clone());
    Ok(path)
}

/// What is left of a mode by the process's mask.
pub async fn masked(cx: &Cx, mode: u32) -> u32 {
    let view = &cx.table.view;
    let mask = match view.mask.get() {
        Some(mask) => mask,
        None => {
            // There is no call that only asks.
            let found = check(cx.local(nr::umask, [u64::from(USUAL_MASK), 0, 0, 0, 0, 0]).await);
            let mask = found.map_or(USUAL_MASK, |mask| mask as u32 & 0o777);
            if found.is_ok() && mask != USUAL_MASK {
                cx.local(nr::umask, [u64::from(mask), 0, 0, 0, 0, 0]).await;
            }
            view.mask.set(Some(mask));
            mask
        }
    };
    mode & !mask & 0o7777
}

/// `umask`.
pub async fn umask(cx: &Cx) -> Result<Outcome, Errno> {
    let old = check(cx.original().await)?;
    cx.table.view.mask.set(Some(cx.int(0) as u32 & 0o777));
    Ok(Outcome::Return(old))
}

/// `getcwd`.
pub async fn current(cx: &Cx) -> Result<Outcome, Errno> {
    let remote = cx.table.view.remote.borrow().clone();
    let Some(mut path) = remote else { return Ok(Outcome::Reflect) };
    path.push(0);
    if cx.arguments[1] < path.len() as u64 {
        return Err(Errno::ERANGE);
    }
    cx.write(cx.arguments[0], &path).await?;
    Ok(Outcome::Return(path.len() as i64))
}

/// `chdir` to a remote directory.
pub async fn enter(cx: &Cx, target: &Target) -> Result<Outcome, Errno> {
    target.simple(cx, PathAction::Enter, 0, 0).await?;
    cx.table.view.moved(Some(target.path.clone()));
    Ok(Outcome::Return(0))
}

/// `fchdir`.
pub async fn enter_open(cx: &Cx, entry: Option<Entry>) -> Result<Outcome, Errno> {
    let Some(file) = entry.as_ref().and_then(|e| e.resource.file.as_ref()) else {
        let result = check(cx.original().await)?;
        cx.table.view.moved(None);
        return Ok(Outcome::Return(result));
    };
    let target = paths::target(cx, file.path.clone(), false).ok_or(Errno::EACCES)?;
    enter(cx, &target).await
}
