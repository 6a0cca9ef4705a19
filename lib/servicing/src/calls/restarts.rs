//! A wait in `ppoll` that a signal's handler ends only where it would end a call that Linux restarts
//! (`SA_RESTART`, `signal(7)`).
//!
//! `ppoll` itself is never restarted. So the signals whose handlers have that flag are blocked while it waits, and
//! a descriptor of signals is in its set: it is ready when one of them is there, the handler runs when
//! `ppoll` lets it in at its end, and the call goes on. All other signals interrupt `ppoll` as they would have
//! interrupted the call.
use super::poll::Mask;
use crate::cx::{Cx, Scratch};
use alloc::rc::Rc;
use core::cell::Cell;
use linux_abi::{
    AT_FDCWD, Errno, F_DUPFD_CLOEXEC, O_CLOEXEC, POLLIN, PollFd, SIGSET_SIZE, check, nr,
};
use paging::PAGE;

/// Where what Linux knows of a thread's signals can be read.
const STATUS: &[u8] = b"/proc/thread-self/status\0";
/// `SFD_NONBLOCK` and `SFD_CLOEXEC`.
const EAR_FLAGS: u64 = 0o2004000;
const SA_RESTART: u64 = 0x1000_0000;
/// Where in a scratch page the mask of the wait lies, and the signals that are listened for.
const MASK_AT: u64 = 0;
const HEARD_AT: u64 = 8;
/// A descriptor of signals lies from here on.
const HIGH: u64 = 50;

/// A descriptor of signals of a process, in use by one call at a time.
#[derive(Debug)]
pub struct Ear {
    /// Descriptor in the process.
    pub fd: i32,
    busy: Cell<bool>,
}

/// A wait that is restarted.
pub struct Restarts {
    scratch: Scratch,
    ear: Rc<Ear>,
}

impl Drop for Restarts {
    fn drop(&mut self) {
        self.ear.busy.set(false);
    }
}

impl Restarts {
    /// For a wait of the calling thread. `None`: no handler asks for restarts, or it cannot be found out.
    pub async fn new(cx: &Cx) -> Option<Self> {
        Self::try_new(cx).await.ok().flatten()
    }

    async fn try_new(cx: &Cx) -> Result<Option<Self>, Errno> {
        let scratch = cx.scratch()?;
        let text = status(cx, &scratch).await?;
        let (Some(caught), Some(blocked)) = (set(&text, b"SigCgt:"), set(&text, b"SigBlk:")) else {
            return Ok(None);
        };
        let mut heard = 0;
        for signal in (1..=64).filter(|n| caught & !blocked & 1 << (n - 1) != 0) {
            let ask = [signal, 0, scratch.address, SIGSET_SIZE, 0, 0];
            check(cx.local(nr::rt_sigaction, ask).await)?;
            let flags = u64::from_le_bytes(cx.array(scratch.address + 8).await?);
            heard |= if flags & SA_RESTART == 0 { 0 } else { 1 << (signal - 1) };
        }
        if heard == 0 {
            return Ok(None);
        }
        cx.write(scratch.address + MASK_AT, &(blocked | heard).to_le_bytes()).await?;
        cx.write(scratch.address + HEARD_AT, &heard.to_le_bytes()).await?;
        let ear = ear(cx, scratch.address + HEARD_AT).await?;
        Ok(Some(Self { scratch, ear }))
    }

    /// One more entry for the local side of the wait.
    #[must_use]
    pub fn entry(&self) -> PollFd {
        PollFd { fd: self.ear.fd, events: POLLIN, revents: 0 }
    }

    /// The wait's mask.
    #[must_use]
    pub fn mask(&self) -> Mask {
        let address = self.scratch.address + MASK_AT;
        Mask { address, size: SIGSET_SIZE, ear: Some(self.ear.fd) }
    }
}

/// What Linux says of the thread.
async fn status(cx: &Cx, scratch: &Scratch) -> Result<alloc::vec::Vec<u8>, Errno> {
    let at = scratch.address;
    cx.write(at, STATUS).await?;
    let open = [AT_FDCWD as u64, at, O_CLOEXEC.into(), 0, 0, 0];
    let fd = check(cx.local(nr::openat, open).await)? as u64;
    let read = check(cx.local(nr::read, [fd, at, PAGE, 0, 0, 0]).await);
    cx.local(nr::close, [fd, 0, 0, 0, 0, 0]).await;
    cx.bytes(at, (read? as usize).min(PAGE as usize)).await
}

/// The set of signals in the line that begins with this word.
fn set(text: &[u8], word: &[u8]) -> Option<u64> {
    let line = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(word))?;
    u64::from_str_radix(core::str::from_utf8(line).ok()?.trim(), 16).ok()
}

/// A descriptor of the signals whose set lies there.
async fn ear(cx: &Cx, set: u64) -> Result<Rc<Ear>, Errno> {
    let free = cx.table.ears.borrow().iter().find(|ear| !ear.busy.get()).cloned();
    if let Some(ear) = free {
        ear.busy.set(true);
        let listens = check(
            cx.local(nr::signalfd4, [ear.fd as u64, set, SIGSET_SIZE, EAR_FLAGS, 0, 0]).await,
        );
        return listens.map(|_| ear.clone()).inspect_err(|_| ear.busy.set(false));
    }
    let make = [u64::MAX, set, SIGSET_SIZE, EAR_FLAGS, 0, 0];
    let low = check(cx.local(nr::signalfd4, make).await)? as u64;
    let high = cx.local(nr::fcntl, [low, F_DUPFD_CLOEXEC.into(), HIGH, 0, 0, 0]).await;
    let fd = match check(high) {
        Ok(high) => {
            cx.local(nr::close, [low, 0, 0, 0, 0, 0]).await;
            high as i32
        }
        Err(_) => low as i32,
    };
    let ear = Rc::new(Ear { fd, busy: Cell::new(true) });
    cx.table.ears.borrow_mut().push(ear.clone());
    cx.table.changed();
    Ok(ear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_found_and_nothing_else_is_taken_for_one() {
        let text = b"Name:\tx\nSigBlk:\t0000000000000200\nSigCgt:\t8000000000000001\n";
        assert_eq!(set(text, b"SigBlk:"), Some(0x200));
        assert_eq!(set(text, b"SigCgt:"), Some(1 << 63 | 1));
        assert_eq!(set(b"SigCgt:\tzz\n", b"SigCgt:"), None);
        assert_eq!(set(b"Name:\tSigCgt: 1\nSig", b"SigCgt:"), None);
        assert_eq!(set(b"SigCgt:\t\xff\n", b"SigCgt:"), None);
    }
}
