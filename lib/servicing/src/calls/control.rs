//! `ioctl` of sockets.
use super::readiness::Access;
use super::refuse;
use super::signals;
use super::vouch::vouch;
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::Entry;
use crate::world::Kind;
use linux_abi::{
    Errno, FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIOSETOWN, IFREQ_SIZE, SIOCGIFCONF, SIOCSPGRP,
    SocketRequest, check, is_terminal_request, nr, socket_request,
};
use wire::{Request, layout};

/// Most bytes of a list of interfaces.
const LIST_MAX: usize = 64 << 10;
/// Not a socket: the delegate's kernel is asked about interfaces.
const NO_SOCKET: i32 = -1;

/// Nothing that `shutdown` knows.
const NO_DIRECTION: u64 = 99;

/// The commands that change a descriptor or its flags. `None`: another command.
async fn flags(cx: &Cx, entry: &Entry) -> Result<Option<Outcome>, Errno> {
    match cx.int(1) as u32 {
        FIONBIO => {
            let on = i32::from_le_bytes(cx.array(cx.arguments[2]).await?);
            // The placeholder of a listener in both VMs never blocks.
            let own = entry.resource.listens_in_both.get();
            let result = if own { 0 } else { check(cx.original().await)? };
            entry.resource.nonblocking.set(on != 0);
            Ok(Some(Outcome::Return(result)))
        }
        FIOASYNC if !entry.is_local() => {
            let hold = cx.hold(entry);
            let on = i32::from_le_bytes(cx.array(cx.arguments[2]).await?);
            let result = check(cx.original().await)?;
            signals::set_asynchronous(cx, &hold.resource, on != 0).await?;
            Ok(Some(Outcome::Return(result)))
        }
        FIOSETOWN | SIOCSPGRP if !entry.is_local() => {
            signals::owner_changes(cx, entry).await.map(Some)
        }
        command @ (FIOCLEX | FIONCLEX) => {
            cx.table.set_close_on_exec(cx.int(0), command == FIOCLEX);
            Ok(Some(Outcome::Reflect))
        }
        _ => Ok(None),
    }
}

/// `ioctl` before the socket has committed.
pub async fn ioctl_undecided(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    Ok(flags(cx, entry).await?.unwrap_or(Outcome::Reflect))
}

/// `ioctl` of a remote socket.
pub async fn ioctl(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    if let Some(outcome) = flags(cx, entry).await? {
        return Ok(outcome);
    }
    let command = cx.int(1) as u32;
    let size = match socket_request(command) {
        Some(SocketRequest::Integer) => 4,
        Some(SocketRequest::Time) => 16,
        // The owner of the descriptor: the placeholder keeps it.
        Some(SocketRequest::Owner) => return Ok(Outcome::Reflect),
        // Programs ask every descriptor whether it is a terminal: no socket is.
        None if is_terminal_request(command) => return Ok(Outcome::Reflect),
        _ => return refuse(cx),
    };
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    ask(cx, fd, command, &[0; 16][..size]).await
}

/// One request: the argument out, the answer back to where the program has it.
async fn ask(cx: &Cx, fd: i32, command: u32, argument: &[u8]) -> Result<Outcome, Errno> {
    let lease = cx.worker().await?;
    lease.mailbox().memory().write_all(layout::PAYLOAD, argument)?;
    let response = cx.ask(&lease, &Request::Ioctl { fd, command }).await?;
    let result = check(response.value)?;
    let mut answer = alloc::vec![0; argument.len()];
    lease.mailbox().memory().read_all(layout::PAYLOAD, &mut answer)?;
    cx.write(cx.arguments[2], &answer).await?;
    Ok(Outcome::Return(result))
}

/// True for the commands about interfaces, which any kind of socket takes (`netdevice(7)`). A
/// trusted program sees the service VM's interfaces, as by routing sockets.
#[must_use]
pub fn is_about_interfaces(command: u32) -> bool {
    use SocketRequest::{Change, Interface, List};
    matches!(socket_request(command), Some(Interface | List | Change))
}

/// A command about interfaces, on any descriptor.
pub async fn interfaces(cx: &Cx) -> Result<Outcome, Errno> {
    let command = cx.int(1) as u32;
    // The own kernel says whether the descriptor is a socket at all, by a call that does nothing.
    let probe = [cx.arguments[0], NO_DIRECTION, 0, 0, 0, 0];
    let found = cx.local(nr::shutdown, probe).await;
    if matches!(Errno::of(found), Some(Errno::EBADF | Errno::ENOTSOCK)) {
        return Ok(Outcome::Reflect);
    }
    vouch(cx)?;
    match socket_request(command) {
        Some(SocketRequest::List) => list(cx, command).await,
        Some(SocketRequest::Interface) => {
            let argument: [u8; IFREQ_SIZE] = cx.array(cx.arguments[2]).await?;
            ask(cx, NO_SOCKET, command, &argument).await
        }
        _ => {
            cx.note(Kind::Refused);
            super::log_refusal(cx, Errno::EPERM);
            Err(Errno::EPERM)
        }
    }
}

/// `SIOCGIFCONF`: `struct ifconf` has the room, and at 8 the address of the list.
async fn list(cx: &Cx, command: u32) -> Result<Outcome, Errno> {
    debug_assert_eq!(command, SIOCGIFCONF);
    let raw: [u8; 16] = cx.array(cx.arguments[2]).await?;
    let (head, at) = raw.split_at(8);
    let room = i32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let at = u64::from_le_bytes(at.try_into().map_err(|_| Errno::EFAULT)?);
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?.min(LIST_MAX);
    let lease = cx.worker().await?;
    let wanted = if at == 0 { 0 } else { room as u32 };
    lease.mailbox().memory().write_all(layout::PAYLOAD, &wanted.to_le_bytes())?;
    let response = cx.ask(&lease, &Request::Ioctl { fd: NO_SOCKET, command }).await?;
    let length = usize::try_from(check(response.value)?).map_err(|_| Errno::EIO)?;
    if at != 0 {
        let mut bytes = alloc::vec![0; length.min(room)];
        lease.mailbox().memory().read_all(layout::PAYLOAD, &mut bytes)?;
        cx.write(at, &bytes).await?;
    }
    let length = length.min(LIST_MAX) as u32;
    cx.write(cx.arguments[2], &length.to_le_bytes()).await?;
    Ok(Outcome::Return(0))
}
