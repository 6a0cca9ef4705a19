//! Ancillary data, error queues, many messages in one call.
use super::Case;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use crate::value;
use guest_sys::raw::Arg;
use std::net::SocketAddr;
use std::os::fd::RawFd;

pub const CASES: &[Case] = &[
    ("control_packet_info", packet_info),
    ("control_time_and_hops", time_and_hops),
    ("control_error_queue", error_queue),
    ("control_rooms", rooms),
    ("many_messages", many_messages),
    ("message_arguments", message_arguments),
];

/// Where a message's parts lie: header, buffers, control data, address, data.
const HEADER: usize = FREE;
const VECTOR: usize = FREE + 0x100;
const CONTROL: usize = FREE + 0x200;
const NAME: usize = FREE + 0x400;
const BODY: usize = DATA + 0x1000;

/// Prepares a `struct msghdr` at `HEADER`.
fn header(p: &Probe, room: u64, control: u64, name: u32) {
    p.vectors(VECTOR, &[(at(BODY), room)]);
    p.arena.write(HEADER, &[0; 64]);
    if name > 0 {
        p.arena.write_pointer(HEADER, at(NAME));
        p.arena.write(HEADER + 8, &name.to_ne_bytes());
    }
    p.arena.write_pointer(HEADER + 16, at(VECTOR));
    p.arena.write(HEADER + 24, &1_u64.to_ne_bytes());
    if control > 0 {
        p.arena.write_pointer(HEADER + 32, at(CONTROL));
        p.arena.write(HEADER + 40, &control.to_ne_bytes());
    }
}

/// `recvmsg(2)`; printed are data, flags, and the control messages by what `tell` says of each.
fn receive(p: &Probe, fd: RawFd, flags: i32, tell: impl Fn(i32, i32, &[u8]) -> String) {
    let answer = p.quiet(libc::SYS_recvmsg, &[n(fd), at(HEADER), n(flags)]);
    p.arrived("recvmsg", answer, BODY, 200);
    if answer < 0 {
        return;
    }
    p.line("name", p.number(HEADER + 8));
    p.line("flags", format!("{:#x}", p.number(HEADER + 48)));
    let length = p.number(HEADER + 40) as usize;
    p.line("control", length);
    let mut rest = p.arena.read(CONTROL, length);
    while rest.len() >= 16 {
        let size = u64::from_ne_bytes(rest[..8].try_into().unwrap_or_default()) as usize;
        let word = |at: usize| i32::from_ne_bytes(rest[at..at + 4].try_into().unwrap_or_default());
        if size < 16 || size > rest.len() {
            break;
        }
        let text = tell(word(8), word(12), &rest[16..size]);
        p.line("message", format!("{}.{} {text}", word(8), word(12)));
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default().to_vec();
    }
}

/// Says only how long the data are.
fn size(_: i32, _: i32, data: &[u8]) -> String {
    format!("{} bytes", data.len())
}

fn packet_info(p: &mut Probe) {
    let fd = p.datagrams();
    p.set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
    p.send(fd, b"info", 0);
    p.settle(fd, libc::POLLIN);
    header(p, 100, 200, 16);
    receive(p, fd, 0, size);
    // A source chosen by control data: the own address, no interface.
    let mut info = 28_u64.to_ne_bytes().to_vec();
    info.extend([libc::IPPROTO_IP.to_ne_bytes(), libc::IP_PKTINFO.to_ne_bytes()].concat());
    info.extend([0; 16]);
    header(p, 4, 0, 0);
    p.arena.write(BODY, b"back");
    p.arena.write(CONTROL, &info);
    p.arena.write_pointer(HEADER + 32, at(CONTROL));
    p.arena.write(HEADER + 40, &(info.len() as u64).to_ne_bytes());
    p.call("sendmsg", libc::SYS_sendmsg, &[n(fd), at(HEADER), n(0)]);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 100, 0);
    // A length beyond the room.
    p.arena.write(CONTROL, &99_u64.to_ne_bytes());
    p.call("sendmsg, bad control", libc::SYS_sendmsg, &[n(fd), at(HEADER), n(0)]);
}

fn time_and_hops(p: &mut Probe) {
    let fd = p.datagrams();
    p.set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1);
    p.set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTTL, 1);
    p.set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1);
    p.send(fd, b"now", 0);
    p.settle(fd, libc::POLLIN);
    header(p, 100, 200, 0);
    receive(p, fd, 0, |level, kind, data| match (level, kind) {
        (libc::IPPROTO_IP, _) => value::data(data),
        _ => size(level, kind, data),
    });
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 4);
}

fn error_queue(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_DGRAM);
    p.set_option(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
    p.connect_to(fd, SocketAddr::new(p.peer.ip(), 1));
    header(p, 100, 200, 16);
    receive(p, fd, libc::MSG_ERRQUEUE, size);
    p.send(fd, b"lost", 0);
    p.settle(fd, libc::POLLERR);
    p.receive(fd, 100, libc::MSG_DONTWAIT);
    p.poll(&[(fd, i16::MAX)], 0);
    receive(p, fd, libc::MSG_ERRQUEUE, |_, _, data| {
        // struct sock_extended_err: errno, origin, type, code.
        value::data(data.get(..7).unwrap_or_default())
    });
    p.poll(&[(fd, i16::MAX)], 0);
}

fn rooms(p: &mut Probe) {
    let fd = p.datagrams();
    p.set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
    for control in [0, 8, 20, 28, 32] {
        p.send(fd, b"size 20", 0);
        p.settle(fd, libc::POLLIN);
        header(p, 10, control, 8);
        receive(p, fd, libc::MSG_CMSG_CLOEXEC, size);
    }
}

fn many_messages(p: &mut Probe) {
    let fd = p.datagrams();
    let place = FREE + 0x1000;
    for number in 0..3 {
        let (vector, body) = (place + 0x400 + number * 16, BODY + number * 0x100);
        p.arena.write(body, format!("message {number}").as_bytes());
        p.vectors(vector, &[(at(body), 9)]);
        p.arena.write(place + number * 64, &[0; 64]);
        p.arena.write_pointer(place + number * 64 + 16, at(vector));
        p.arena.write(place + number * 64 + 24, &1_u64.to_ne_bytes());
    }
    p.call("sendmmsg", libc::SYS_sendmmsg, &[n(fd), at(place), n(3), n(0)]);
    p.line("sent", p.number(place + 64 + 56));
    for number in 0..3 {
        p.arena.write(BODY + number * 0x100, &[0; 9]);
    }
    let (flags, time) = (n(libc::MSG_WAITFORONE), FREE + 0x800);
    let mut got = 0;
    while got < 3 {
        let answer = p.quiet(
            libc::SYS_recvmmsg,
            &[n(fd), at(place + got * 64), n(3 - got as i64), flags, NULL],
        );
        let Ok(count) = usize::try_from(answer) else {
            p.line("recvmmsg", value::result(answer));
            break;
        };
        got += count.max(1);
    }
    for number in 0..3 {
        p.arrived(
            "message",
            i64::from(p.number(place + number * 64 + 56)),
            BODY + number * 0x100,
            9,
        );
    }
    p.arena.write(time, &[0; 16]);
    let arguments = [n(fd), at(place), n(3), n(libc::MSG_DONTWAIT), at(time)];
    p.call("nothing there", libc::SYS_recvmmsg, &arguments);
    p.arena.write(time + 8, &1_000_000_000_i64.to_ne_bytes());
    p.call("bad time", libc::SYS_recvmmsg, &arguments);
    p.call("none", libc::SYS_sendmmsg, &[n(fd), at(place), n(0), n(0)]);
}

fn message_arguments(p: &mut Probe) {
    let fd = p.datagrams();
    header(p, 10, 0, 0);
    p.arena.write(HEADER + 24, &1025_u64.to_ne_bytes());
    p.call("too many buffers", libc::SYS_sendmsg, &[n(fd), at(HEADER), n(0)]);
    p.call("too many buffers", libc::SYS_recvmsg, &[n(fd), at(HEADER), n(libc::MSG_DONTWAIT)]);
    header(p, 10, 0, u32::MAX);
    p.call("negative name", libc::SYS_sendmsg, &[n(fd), at(HEADER), n(0)]);
    p.call("negative name", libc::SYS_recvmsg, &[n(fd), at(HEADER), n(libc::MSG_DONTWAIT)]);
    // Longer than any address: cut.
    header(p, 4, 0, 500);
    if let [Arg::At(place), _] = p.address(p.peer) {
        p.arena.write(NAME, &p.arena.read(place, 16));
    }
    p.arena.write(BODY, b"long");
    p.call("long name", libc::SYS_sendmsg, &[n(fd), at(HEADER), n(0)]);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 10, 0);
    p.call("no message", libc::SYS_sendmsg, &[n(fd), NULL, n(0)]);
    p.call("urgent", libc::SYS_sendmsg, &[n(fd), at(HEADER), n(libc::MSG_OOB)]);
    p.receive(fd, 10, libc::MSG_OOB | libc::MSG_DONTWAIT);
}
