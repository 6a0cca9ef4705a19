//! Locks of remote files. The delegate takes them without waiting; a call that waits sleeps and
//! tries again, as there is nothing that would tell of a lock that comes free.
use super::{act, act_with_data};
use crate::calls::readiness::pause;
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::Entry;
use linux_abi::{
    Errno, F_GETLK, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_SETLK, F_SETLKW, F_UNLCK, LOCK_NB,
};
use wire::FileAction;
use wire::file::RECORD_LOCK_SIZE;

/// The first pause between two attempts, and the longest, in nanoseconds.
const PAUSE: u64 = 1_000_000;
const LONGEST_PAUSE: u64 = 50_000_000;
/// Where `l_pid` lies in a `struct flock`.
const PID_AT: usize = 24;

/// Tries until the lock is there.
async fn patiently<F>(cx: &Cx, waits: bool, mut attempt: impl FnMut() -> F) -> Result<i64, Errno>
where
    F: Future<Output = Result<i64, Errno>>,
{
    let mut time = PAUSE;
    loop {
        match attempt().await {
            Err(Errno::EAGAIN | Errno::EACCES) if waits => {}
            other => return other,
        }
        pause(cx, time).await?;
        time = (time * 2).min(LONGEST_PAUSE);
    }
}

/// `flock`.
pub async fn whole(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let operation = cx.int(1) as u32;
    let attempt = async || match act(cx, entry, FileAction::Lock, (operation.into(), 0, 0)).await? {
        Outcome::Return(result) => Ok(result),
        Outcome::Reflect | Outcome::Alone(_) => Err(Errno::EIO),
    };
    let result = patiently(cx, operation & LOCK_NB == 0, attempt).await?;
    Ok(Outcome::Return(result))
}

/// The commands of `fcntl` about record locks.
pub async fn record(cx: &Cx, entry: &Entry, command: u32) -> Result<Outcome, Errno> {
    let at = cx.arguments[2];
    let lock: [u8; RECORD_LOCK_SIZE] = cx.array(at).await?;
    let tried = match command {
        F_SETLKW => F_SETLK,
        F_OFD_SETLKW => F_OFD_SETLK,
        other => other,
    };
    let numbers = (u64::from(tried), 0, 0);
    if matches!(command, F_GETLK | F_OFD_GETLK) {
        let found = act_with_data(cx, entry, FileAction::RecordLock, numbers, &lock).await?;
        let mut found: [u8; RECORD_LOCK_SIZE] = found.try_into().map_err(|_| Errno::EIO)?;
        if u32::from(u16::from_le_bytes([found[0], found[1]])) != F_UNLCK {
            name_holder(cx, &mut found);
        }
        cx.write(at, &found).await?;
        return Ok(Outcome::Return(0));
    }
    let attempt =
        async || act_with_data(cx, entry, FileAction::RecordLock, numbers, &lock).await.map(|_| 0);
    let result = patiently(cx, tried != command, attempt).await?;
    if tried == F_SETLK {
        cx.table.view.has_locks.set(true);
    }
    Ok(Outcome::Return(result))
}

/// A descriptor has been closed: its file's record locks end with it, whatever other descriptors the process has. Where it was
/// the last one of its open file, the delegate's own goes, and its kernel does that.
pub async fn end(cx: &Cx, closed: &Entry) {
    let resource = &closed.resource;
    let others = resource.file.is_some() && !cx.table.is_unused(resource);
    if !others || !cx.table.view.has_locks.get() {
        return;
    }
    // `struct flock` of everything: type and whence, start, length, and whose it is.
    let mut all = [0; RECORD_LOCK_SIZE];
    all[..2].copy_from_slice(&(F_UNLCK as u16).to_le_bytes());
    let numbers = (u64::from(F_SETLK), 0, 0);
    // Whatever the delegate says, the descriptor is closed.
    let _ = act_with_data(cx, closed, FileAction::RecordLock, numbers, &all).await;
}

/// The delegate that holds a lock stands for a process; a holder that is none stays unnamed.
fn name_holder(cx: &Cx, lock: &mut [u8; RECORD_LOCK_SIZE]) {
    let Some(field) = lock.get_mut(PID_AT..PID_AT + 4) else { return };
    let holder = i32::from_le_bytes([field[0], field[1], field[2], field[3]]);
    if holder <= 0 {
        return;
    }
    let is_holder = |table: &alloc::rc::Rc<crate::table::Table>| {
        let delegate = table.delegate.borrow();
        delegate.as_ref().is_some_and(|d| cx.core.delegates.pid(d.id) == Some(holder))
    };
    let process = cx.core.tables().into_iter().find(is_holder).map_or(0, |t| t.pid.get());
    field.copy_from_slice(&process.to_le_bytes());
}
