//! Socket options: passed on as they are, noted for sockets that have not committed.
use super::commit::{commit, settled};
use super::readiness::Access;
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::{Entry, OPTION_LIMIT, OptionSet, Resource, State};
use crate::world::Kind;
use alloc::vec::Vec;
use linux_abi::{
    Errno, IP_OPTIONS, IP_RETOPTS, IPV6_2292PKTOPTIONS, IPV6_2292RTHDR, IPV6_RTHDR, SO_ATTACH_BPF,
    SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF, SO_BINDTODEVICE,
    SO_BINDTOIFINDEX, SO_ERROR, SO_RCVLOWAT, SO_RCVTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO,
    SO_SNDTIMEO_NEW, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_TCP, TCP_ZEROCOPY_RECEIVE, TimeVal, check,
};
use wire::{Request, layout};

/// Longest option value that is carried over.
const OPTION_MAX: usize = 4096;
/// Most instructions of a packet filter, and bytes of one (`BPF_MAXINSNS`, `struct sock_filter`).
const FILTER_MAX: usize = 4096;
const INSTRUCTION: usize = 8;

/// What an option's value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    /// Bytes that mean the same everywhere.
    Plain,
    /// Names an interface, or an address of one: the service VM's.
    Interface,
    /// `struct sock_fprog`: length and address of a packet filter.
    Filter,
    /// A route: packets go where it says, whatever the address rules have seen.
    Route,
    /// Holds a pointer, or a descriptor of something else: not carried over.
    Foreign,
}

fn value_of(level: i32, name: i32) -> Value {
    match (level, name) {
        (SOL_SOCKET, SO_ATTACH_FILTER | SO_ATTACH_REUSEPORT_CBPF) => Value::Filter,
        (SOL_SOCKET, SO_ATTACH_BPF | SO_ATTACH_REUSEPORT_EBPF) => Value::Foreign,
        (SOL_SOCKET, SO_BINDTODEVICE | SO_BINDTOIFINDEX) => Value::Interface,
        (SOL_TCP, TCP_ZEROCOPY_RECEIVE) => Value::Foreign,
        // Multicast (ip(7)): interface 32, memberships and their filters 35 to 48; IP_UNICAST_IF.
        (SOL_IP, 32 | 35..=48 | 50) => Value::Interface,
        // The same of ipv6(7): 17, 20, 21, anycast 27 and 28, 42 to 48, IPV6_UNICAST_IF.
        (SOL_IPV6, 17 | 20 | 21 | 27 | 28 | 42..=48 | 76) => Value::Interface,
        (SOL_IP, IP_OPTIONS) | (SOL_IPV6, IPV6_RTHDR | IPV6_2292RTHDR | IPV6_2292PKTOPTIONS) => {
            Value::Route
        }
        // iptables' options share the levels of IP.
        (SOL_IP | SOL_IPV6, 64) => Value::Foreign,
        _ => Value::Plain,
    }
}

/// Copies the value of `setsockopt` in.
async fn value_in(cx: &Cx, kind: Value) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(cx.int(4)).map_err(|_| Errno::EINVAL)?;
    if kind == Value::Filter {
        return filter(cx, length).await;
    }
    if length > OPTION_MAX {
        return Err(Errno::EINVAL);
    }
    cx.bytes(cx.arguments[3], length).await
}

/// The program of a `struct sock_fprog`: 16 bit of length, and at 8 its address.
async fn filter(cx: &Cx, length: usize) -> Result<Vec<u8>, Errno> {
    if length != 16 {
        return Err(Errno::EINVAL);
    }
    let raw: [u8; 16] = cx.array(cx.arguments[3]).await?;
    let (head, at) = raw.split_at(8);
    let count = usize::from(u16::from_le_bytes([head[0], head[1]]));
    let at = u64::from_le_bytes(at.try_into().map_err(|_| Errno::EFAULT)?);
    if count == 0 || count > FILTER_MAX {
        return Err(Errno::EINVAL);
    }
    cx.bytes(at, count * INSTRUCTION).await
}

/// `setsockopt` before the socket has committed.
pub async fn note_option(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let (level, name) = (cx.int(1), cx.int(2));
    let kind = value_of(level, name);
    match kind {
        Value::Foreign => return refuse(cx, Errno::EOPNOTSUPP),
        Value::Route if cx.int(4) != 0 => return refuse(cx, Errno::EPERM),
        Value::Interface => {
            let hold = cx.hold(entry);
            commit(cx, &hold.resource).await?;
            return set_option(cx, entry).await;
        }
        Value::Plain | Value::Filter | Value::Route => {}
    }
    let value = value_in(cx, kind).await?;
    let result = check(cx.original().await)?;
    settled(cx, &entry.resource).await?;
    if matches!(entry.resource.state.get(), State::Remote(_)) {
        // Another thread has made it commit meanwhile.
        return set_option(cx, entry).await;
    }
    learn(&entry.resource, level, name, &value);
    remember(&mut entry.resource.options.borrow_mut(), OptionSet { level, name, value })?;
    Ok(Outcome::Return(result))
}

/// Notes an option; what was noted of it before does not count any more.
fn remember(options: &mut Vec<OptionSet>, option: OptionSet) -> Result<(), Errno> {
    options.retain(|o| (o.level, o.name) != (option.level, option.name));
    if options.len() >= OPTION_LIMIT {
        return Err(Errno::ENOBUFS);
    }
    options.push(option);
    Ok(())
}

/// Options that concern waiting are the relay's own business: remote sockets never block.
fn learn(resource: &Resource, level: i32, name: i32, value: &[u8]) {
    if level != SOL_SOCKET {
        return;
    }
    let timeout = match name {
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => &resource.receive_timeout,
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => &resource.send_timeout,
        SO_RCVLOWAT => {
            let value = value.first_chunk::<4>().map_or(1, |v| i32::from_le_bytes(*v));
            // `sock_set_rcvlowat`: what is negative means as much as possible, zero means 1.
            let mark = u32::try_from(value).unwrap_or(i32::MAX as u32).max(1);
            return resource.low_water.set(mark);
        }
        _ => return,
    };
    if let Some(value) = value.first_chunk::<16>() {
        // Linux takes a negative time for one that is over (`sock_set_timeout`).
        timeout.set(TimeVal::decode(value).to_nanoseconds().unwrap_or(1));
    }
}

/// `setsockopt` of a remote socket.
pub async fn set_option(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let (level, name) = (cx.int(1), cx.int(2));
    let kind = value_of(level, name);
    match kind {
        Value::Foreign => return refuse(cx, Errno::EOPNOTSUPP),
        // Without a value it takes the route away.
        Value::Route if cx.int(4) != 0 => return refuse(cx, Errno::EPERM),
        _ => {}
    }
    let value = value_in(cx, kind).await?;
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    let lease = cx.worker().await?;
    lease.mailbox().memory().write_all(layout::PAYLOAD, &value)?;
    let length = value.len() as u32;
    let response = cx.ask(&lease, &Request::SetOption { fd, level, name, length }).await?;
    let result = check(response.value)?;
    drop(lease);
    super::both::follow(cx, entry).await;
    learn(&hold.resource, level, name, &value);
    Ok(Outcome::Return(result))
}

/// `getsockopt` of a remote socket.
pub async fn get_option(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let (level, name) = (cx.int(1), cx.int(2));
    match value_of(level, name) {
        Value::Filter if name == SO_ATTACH_FILTER => return filter_out(cx, entry).await,
        // These can only be set.
        Value::Filter => return Err(Errno::ENOPROTOOPT),
        Value::Foreign if level == SOL_SOCKET => return Err(Errno::ENOPROTOOPT),
        Value::Foreign => return refuse(cx, Errno::EOPNOTSUPP),
        _ => {}
    }
    let length_at = cx.arguments[4];
    let room = i32::from_le_bytes(cx.array(length_at).await?);
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?.min(OPTION_MAX);
    let value = cx.bytes(cx.arguments[3], room).await?;
    let hold = cx.hold(entry);
    if (level, name) == (SOL_SOCKET, SO_ERROR)
        && let Some(error) = hold.resource.error.take()
    {
        let number = i32::from(error.0).to_le_bytes();
        return answer(cx, number.get(..room).unwrap_or(&number)).await;
    }
    let fd = cx.remote_fd(&hold.resource)?;
    let lease = cx.worker().await?;
    lease.mailbox().memory().write_all(layout::PAYLOAD, &value)?;
    let length = room as u32;
    let response = cx.ask(&lease, &Request::GetOption { fd, level, name, length }).await?;
    check(response.value)?;
    let mut out = alloc::vec![0; (response.length as usize).min(room)];
    lease.mailbox().memory().read_all(layout::PAYLOAD, &mut out)?;
    answer(cx, &out).await
}

/// `SO_GET_FILTER`: room and length are counted in instructions (`sk_get_filter`).
async fn filter_out(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let [_, _, _, at, length_at, _] = cx.arguments;
    let room = i32::from_le_bytes(cx.array(length_at).await?);
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?.min(FILTER_MAX) * INSTRUCTION;
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    let lease = cx.worker().await?;
    let (level, name) = (SOL_SOCKET, SO_ATTACH_FILTER);
    let request = Request::GetOption { fd, level, name, length: room as u32 };
    let response = cx.ask(&lease, &request).await?;
    let count = check(response.value)?;
    let mut program = alloc::vec![0; (response.length as usize).min(room)];
    lease.mailbox().memory().read_all(layout::PAYLOAD, &mut program)?;
    drop(lease);
    cx.write(at, &program).await?;
    cx.write(length_at, &(count as u32).to_le_bytes()).await?;
    Ok(Outcome::Return(0))
}

/// The value that `getsockopt` gives, and its length.
async fn answer(cx: &Cx, value: &[u8]) -> Result<Outcome, Errno> {
    cx.write(cx.arguments[3], value).await?;
    cx.write(cx.arguments[4], &(value.len() as u32).to_le_bytes()).await?;
    Ok(Outcome::Return(0))
}

fn refuse(cx: &Cx, error: Errno) -> Result<Outcome, Errno> {
    cx.note(Kind::Refused);
    super::log_refusal(cx, error);
    Err(error)
}

/// Refuses ancillary data that bring a route along.
///
/// # Errors
/// `EPERM`.
pub fn check_control(cx: &Cx, control: &[u8]) -> Result<(), Errno> {
    let routed = |level: i32, kind: i32| {
        (level, kind) == (SOL_IP, IP_RETOPTS) || value_of(level, kind) == Value::Route
    };
    if linux_abi::control_messages(control).any(|m| routed(m.level, m.kind)) {
        refuse(cx, Errno::EPERM)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_an_option_counts() {
        let mut options = Vec::new();
        for n in 0..200u8 {
            let set = OptionSet { level: 1, name: 2, value: alloc::vec![n] };
            assert_eq!(remember(&mut options, set), Ok(()));
        }
        assert_eq!(options.len(), 1);
        assert_eq!(options[0].value, [199]);
        for name in 3..3 + OPTION_LIMIT as i32 - 1 {
            let set = OptionSet { level: 1, name, value: Vec::new() };
            assert_eq!(remember(&mut options, set), Ok(()));
        }
        let set = OptionSet { level: 6, name: 1, value: Vec::new() };
        assert_eq!(remember(&mut options, set), Err(Errno::ENOBUFS));
    }

    #[test]
    fn time_limits_and_low_water_marks_are_learned() {
        let resource = Resource::new(1, 2, 1, 0);
        let time = |s: i64, us: i64| [s.to_le_bytes(), us.to_le_bytes()].concat();
        learn(&resource, SOL_SOCKET, SO_RCVTIMEO, &time(1, 500_000));
        assert_eq!(resource.receive_timeout.get(), 1_500_000_000);
        learn(&resource, SOL_SOCKET, SO_SNDTIMEO_NEW, &time(-1, 0));
        assert_eq!(resource.send_timeout.get(), 1);
        learn(&resource, SOL_TCP, SO_RCVTIMEO, &time(9, 0));
        assert_eq!(resource.receive_timeout.get(), 1_500_000_000);
        learn(&resource, SOL_SOCKET, SO_RCVLOWAT, &10i32.to_le_bytes());
        assert_eq!(resource.low_water.get(), 10);
        learn(&resource, SOL_SOCKET, SO_RCVLOWAT, &0i32.to_le_bytes());
        assert_eq!(resource.low_water.get(), 1);
    }
}
