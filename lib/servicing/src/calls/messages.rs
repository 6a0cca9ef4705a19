//! `sendmsg`, `recvmsg` and their multiples.
use super::socket::{address_in, address_out};
use super::transfer::{Buffers, Extra, destination, receive, send};
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::{Entry, State};
use alloc::vec::Vec;
use linux_abi::{
    Errno, MMsgHdr, MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_DONTWAIT, MSG_WAITFORONE, MsgHdr, SCM_RIGHTS,
    SOL_SOCKET, TimeSpec, control_messages, nr,
};
use wire::layout;

/// Most messages that one call carries (`UIO_MAXIOV`).
const MESSAGES_MAX: u64 = 1024;
/// Most bytes of ancillary data of a local send that are looked through for descriptors; Linux'
/// own limit (`optmem_max`) is lower.
const CONTROL_SCAN: u64 = 64 << 10;

async fn header(cx: &Cx, at: u64) -> Result<MsgHdr, Errno> {
    let bytes: [u8; MsgHdr::SIZE] = cx.array(at).await?;
    Ok(MsgHdr::decode(&bytes))
}

/// Bytes of address, as `copy_msghdr_from_user` takes them: no more than an address can have.
fn name_room(message: &MsgHdr) -> Result<u64, Errno> {
    let length = u64::try_from(message.name_length as i32).map_err(|_| Errno::EINVAL)?;
    Ok(length.min(u64::from(layout::ADDRESS_MAX)))
}

async fn outgoing(cx: &Cx, message: &MsgHdr, flags: u32) -> Result<(Buffers, Extra), Errno> {
    let address = match message.name {
        0 => Vec::new(),
        at => address_in(cx, at, name_room(message)?).await?,
    };
    let control = match message.control_length {
        0 => Vec::new(),
        n if n > u64::from(layout::CONTROL_MAX) => return Err(Errno::ENOBUFS),
        n => cx.bytes(message.control, n as usize).await?,
    };
    super::options::check_control(cx, &control)?;
    let buffers =
        Buffers::vectors(cx, message.vectors, message.vector_count, Errno::EMSGSIZE).await?;
    Ok((buffers, Extra { flags, address, control }))
}

/// Sends one message; `None`: the own kernel must.
async fn send_one(cx: &Cx, entry: &Entry, at: u64, flags: u32) -> Result<Option<i64>, Errno> {
    let message = header(cx, at).await?;
    let (buffers, extra) = outgoing(cx, &message, flags).await?;
    if !destination(cx, entry, &extra.address).await? {
        return Ok(None);
    }
    send(cx, entry, &buffers, &extra).await.map(Some)
}

/// `sendmsg`.
pub async fn sendmsg(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let sent = send_one(cx, entry, cx.arguments[1], cx.int(2) as u32).await?;
    Ok(sent.map_or(Outcome::Reflect, Outcome::Return))
}

/// `sendmmsg`.
pub async fn sendmmsg(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let count = (cx.arguments[2] as u32 as u64).min(MESSAGES_MAX);
    let mut sent = 0;
    for n in 0..count {
        let at = cx.arguments[1].wrapping_add(n * MMsgHdr::SIZE);
        match send_one(cx, entry, at, cx.int(3) as u32).await {
            Ok(Some(length)) => {
                let length = (length as u32).to_le_bytes();
                cx.write(at.wrapping_add(MMsgHdr::LENGTH_AT), &length).await?;
                sent += 1;
            }
            Ok(None) if sent == 0 => return Ok(Outcome::Reflect),
            Err(error) if sent == 0 => return Err(error),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(Outcome::Return(sent))
}

async fn receive_one(cx: &Cx, entry: &Entry, at: u64, flags: u32) -> Result<i64, Errno> {
    let message = header(cx, at).await?;
    name_room(&message)?;
    let buffers =
        Buffers::vectors(cx, message.vectors, message.vector_count, Errno::EMSGSIZE).await?;
    let room = u32::try_from(message.control_length).unwrap_or(u32::MAX);
    let room = if message.control == 0 { 0 } else { room.min(layout::CONTROL_MAX) };
    let received = receive(cx, entry, &buffers, flags, room).await?;
    if message.name != 0 {
        let length_at = at.wrapping_add(MsgHdr::NAME_LENGTH_AT);
        address_out(cx, &received.address, message.name, length_at).await?;
    }
    // Descriptors cannot come over an internet socket: whatever claims so is dropped.
    let foreign = !descriptors(&received.control).is_empty();
    let control: &[u8] = if foreign { &[] } else { &received.control };
    if room > 0 {
        cx.write(message.control, control).await?;
    }
    let length = (control.len() as u64).to_le_bytes();
    cx.write(at.wrapping_add(MsgHdr::CONTROL_LENGTH_AT), &length).await?;
    let asked = flags & MSG_CMSG_CLOEXEC;
    let flags = received.flags | asked | if foreign { MSG_CTRUNC } else { 0 };
    cx.write(at.wrapping_add(MsgHdr::FLAGS_AT), &flags.to_le_bytes()).await?;
    Ok(received.value)
}

/// `recvmsg`.
pub async fn recvmsg(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let value = receive_one(cx, entry, cx.arguments[1], cx.int(2) as u32).await?;
    Ok(Outcome::Return(value))
}

/// `recvmmsg`.
pub async fn recvmmsg(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let count = (cx.arguments[2] as u32 as u64).min(MESSAGES_MAX);
    let mut flags = cx.int(3) as u32;
    let deadline = match cx.arguments[4] {
        0 => u64::MAX,
        at => {
            let time = TimeSpec::decode(&cx.array(at).await?);
            let time = time.to_nanoseconds().ok_or(Errno::EINVAL)?;
            cx.core.world.now().saturating_add(time)
        }
    };
    let mut received = 0;
    for n in 0..count {
        let at = cx.arguments[1].wrapping_add(n * MMsgHdr::SIZE);
        match receive_one(cx, entry, at, flags & !MSG_WAITFORONE).await {
            Ok(length) => {
                let length = (length as u32).to_le_bytes();
                cx.write(at.wrapping_add(MMsgHdr::LENGTH_AT), &length).await?;
                received += 1;
            }
            Err(error) if received == 0 => return Err(error),
            Err(Errno::EAGAIN) => break,
            // The next call reports it (`do_recvmmsg`).
            Err(error) => {
                entry.resource.error.set(Some(error));
                break;
            }
        }
        if flags & MSG_WAITFORONE != 0 {
            flags |= MSG_DONTWAIT;
        }
        // Linux, too, looks at the time only after a message.
        if cx.core.world.now() >= deadline {
            break;
        }
    }
    if cx.arguments[4] != 0 {
        let left = TimeSpec::from_nanoseconds(deadline.saturating_sub(cx.core.world.now()));
        cx.write(cx.arguments[4], &left.encode()).await?;
    }
    Ok(Outcome::Return(received))
}

/// Descriptors in a message.
pub struct Rights(pub Vec<i32>);

/// Descriptors in the ancillary data of the `n`th message of a call.
///
/// # Errors
/// `EFAULT`.
pub async fn rights(cx: &Cx, n: u64) -> Result<Rights, Errno> {
    let message = header(cx, cx.arguments[1].wrapping_add(n * MMsgHdr::SIZE)).await?;
    if message.control_length == 0 || message.control_length > CONTROL_SCAN {
        return Ok(Rights(Vec::new()));
    }
    let control = cx.bytes(message.control, message.control_length as usize).await?;
    Ok(Rights(descriptors(&control)))
}

/// `sendmsg` and `sendmmsg` on a local socket: it may carry descriptors that are not.
pub async fn local_send(cx: &Cx) -> Result<Outcome, Errno> {
    let count = if cx.number == nr::sendmmsg { u64::from(cx.arguments[2] as u32) } else { 1 };
    let mut passed = Vec::new();
    for n in 0..count.min(MESSAGES_MAX) {
        // Whatever cannot be read is the kernel's to refuse.
        let Ok(Rights(descriptors)) = rights(cx, n).await else { return Ok(Outcome::Reflect) };
        passed.extend(descriptors.into_iter().filter(|fd| {
            let entry = cx.table.get(*fd as u64);
            entry.is_some_and(|e| e.resource.state.get() != State::Local)
        }));
    }
    if passed.is_empty() {
        return Ok(Outcome::Reflect);
    }
    super::passing::send(cx, passed).await
}

/// The descriptors that ancillary data carry.
fn descriptors(control: &[u8]) -> Vec<i32> {
    control_messages(control)
        .filter(|message| (message.level, message.kind) == (SOL_SOCKET, SCM_RIGHTS))
        .flat_map(|message| message.data.as_chunks().0)
        .map(|number| i32::from_le_bytes(*number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rights(fds: &[i32]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend((16 + 4 * fds.len() as u64).to_le_bytes());
        out.extend(SOL_SOCKET.to_le_bytes());
        out.extend(SCM_RIGHTS.to_le_bytes());
        fds.iter().for_each(|fd| out.extend(fd.to_le_bytes()));
        while out.len() % 8 != 0 {
            out.push(0);
        }
        out
    }

    #[test]
    fn descriptors_are_found_behind_other_data() {
        let mut control = rights(&[3]);
        control.extend(rights(&[5, 9]));
        assert_eq!(descriptors(&control), [3, 5, 9]);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100), huge: u64) {
            let _ = descriptors(&bytes);
            let mut control = rights(&[1]);
            control[..8].copy_from_slice(&huge.to_le_bytes());
            let _ = descriptors(&control);
        }
    }
}
