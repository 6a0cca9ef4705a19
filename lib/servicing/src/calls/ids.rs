//! Whom a process acts as: ids, groups and capabilities, asked of its own kernel at its first call
//! and after each call that can change them, and told to each worker before it serves.
use super::readiness::Access as _;
use crate::cx::Cx;
use crate::delegate::Lease;
use crate::space::Outcome;
use crate::table::{Namespace, Table};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_abi::{CLONE_NEWUSER, Errno, check, nr};
use wire::{Request, layout};

/// `CAP_SYS_TIME`.
const SYS_TIME: u64 = 1 << 25;
/// Who has an id that means nothing here (`overflowuid`).
const NOBODY: u32 = 65534;
/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// Where `capget` puts its two triples (effective, permitted, inheritable) in a scratch page, and
/// where the list of groups begins.
const TRIPLES_AT: u64 = 16;
const GROUPS_AT: u64 = 64;
/// Most supplementary groups that are carried over. Fewer groups are fewer rights.
const GROUPS_MAX: u64 = (paging::PAGE - GROUPS_AT) / 4;

/// Ids, groups and capabilities under a number: no two identities ever have the same.
#[derive(Debug, Default)]
pub struct Identity {
    /// Zero for a process that has made no call yet.
    pub number: u32,
    /// Ids and capabilities.
    pub whom: wire::Identity,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// True for calls after which a process may act as somebody else.
#[must_use]
pub fn changes(number: u64, arguments: &[u64; 6]) -> bool {
    match number {
        nr::setuid | nr::setgid | nr::setreuid | nr::setregid | nr::setresuid | nr::setresgid => {
            true
        }
        nr::setfsuid | nr::setfsgid | nr::setgroups | nr::capset => true,
        nr::unshare => arguments[0] & CLONE_NEWUSER != 0,
        nr::setns => matches!(arguments[1] as u32, 0) || arguments[1] & CLONE_NEWUSER != 0,
        _ => false,
    }
}

/// Carries such a call out and looks what has become of the process.
pub async fn change(cx: &Cx) -> Result<Outcome, Errno> {
    let result = check(cx.original().await)?;
    if matches!(cx.number, nr::unshare | nr::setns) {
        leave_namespace(cx, &cx.table);
    } else {
        learn(cx, true).await;
    }
    Ok(Outcome::Return(result))
}

/// A process in a user namespace of its own keeps its ids, but its capabilities mean nothing
/// outside, and its ids cannot be followed any more.
pub fn leave_namespace(cx: &Cx, table: &Table) {
    table.namespace.set(Namespace::Other);
    let old = table.identity.borrow().clone();
    let whom = wire::Identity { capabilities: 0, ..old.whom };
    let identity = Identity { number: cx.core.number(), whom, groups: old.groups.clone() };
    *table.identity.borrow_mut() = Rc::new(identity);
}

/// Asks the process's own kernel whom it acts as. `files`: the ids for files may differ from the
/// effective ones, which they do not behind an `execve`.
pub async fn learn(cx: &Cx, files: bool) {
    if cx.table.namespace.get() == Namespace::Other {
        return;
    }
    // These cannot fail; a filter of the program's own could make them.
    let id = |result: i64| check(result).map_or(NOBODY, |id| id as u32);
    let uid = id(cx.local(nr::geteuid, [0; 6]).await);
    let gid = id(cx.local(nr::getegid, [0; 6]).await);
    let (mut fsuid, mut fsgid) = (uid, gid);
    if files {
        // An id that is not one changes nothing and answers the present one.
        let ask = [u64::from(u32::MAX), 0, 0, 0, 0, 0];
        fsuid = id(cx.local(nr::setfsuid, ask).await);
        fsgid = id(cx.local(nr::setfsgid, ask).await);
    }
    let capabilities = believed(cx, capabilities(cx).await.unwrap_or(0)).await;
    let unknown = cx.table.namespace.get() != Namespace::Initial;
    let plain = |id: u32| if unknown && id == 0 { NOBODY } else { id };
    let groups = groups(cx).await.unwrap_or_default();
    let whom = wire::Identity {
        uid: plain(uid),
        gid,
        fsuid: plain(fsuid),
        fsgid,
        capabilities,
        groups: groups.len() as u32,
    };
    let old = cx.table.identity.borrow().clone();
    if old.number == 0 || old.whom != whom || old.groups != groups {
        let identity = Identity { number: cx.core.number(), whom, groups };
        *cx.table.identity.borrow_mut() = Rc::new(identity);
    }
}

/// Effective capabilities.
async fn capabilities(cx: &Cx) -> Result<u64, Errno> {
    let scratch = cx.scratch()?;
    let mut header = [0; 8];
    header[..4].copy_from_slice(&CAPABILITY_VERSION.to_le_bytes());
    cx.write(scratch.address, &header).await?;
    let data = scratch.address + TRIPLES_AT;
    check(cx.local(nr::capget, [scratch.address, data, 0, 0, 0, 0]).await)?;
    let low = u32::from_le_bytes(cx.array(data).await?);
    let high = u32::from_le_bytes(cx.array(data + 12).await?);
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Capabilities count only in the namespace that the machine has started with; anybody can have
/// all of them in one of his own. `settimeofday` without a time does nothing, and asks for
/// `CAP_SYS_TIME` in the first one.
async fn believed(cx: &Cx, claimed: u64) -> u64 {
    if claimed != 0 && cx.table.namespace.get() == Namespace::Unknown {
        if claimed & SYS_TIME == 0 || cx.local(nr::settimeofday, [0; 6]).await != 0 {
            return 0;
        }
        cx.table.namespace.set(Namespace::Initial);
    }
    claimed
}

async fn groups(cx: &Cx) -> Result<Vec<u32>, Errno> {
    let count = check(cx.local(nr::getgroups, [0; 6]).await)? as u64;
    if count == 0 || count > GROUPS_MAX {
        return Ok(Vec::new());
    }
    let scratch = cx.scratch()?;
    let at = scratch.address + GROUPS_AT;
    let count = check(cx.local(nr::getgroups, [count, at, 0, 0, 0, 0]).await)?;
    let bytes = cx.bytes(at, (count as usize).min(GROUPS_MAX as usize) * 4).await?;
    let number = |b: &[u8]| b.try_into().map_or(NOBODY, u32::from_le_bytes);
    Ok(bytes.chunks_exact(4).map(number).collect())
}

/// Has a worker act as the process does now.
///
/// # Errors
/// `EPERM` when it cannot: it must not serve then.
pub async fn introduce(cx: &Cx, lease: &Lease) -> Result<(), Errno> {
    let identity = cx.table.identity.borrow().clone();
    if lease.serves_as() == identity.number {
        return Ok(());
    }
    lease.set_serves_as(0);
    for (n, group) in identity.groups.iter().enumerate() {
        let at = layout::PAYLOAD + 4 * n as u64;
        lease.mailbox().memory().write_all(at, &group.to_le_bytes())?;
    }
    let response = cx.ask(lease, &Request::Identity(identity.whom)).await?;
    if let Err(error) = check(response.value) {
        cx.core.world.log(format_args!(
            "{}[{}]: its delegate cannot act as user {}: {}",
            cx.space.name.borrow(),
            cx.space.id,
            identity.whom.uid,
            error.name(),
        ));
        return Err(Errno::EPERM);
    }
    lease.set_serves_as(identity.number);
    Ok(())
}
