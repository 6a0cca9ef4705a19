//! What a case has at hand: calls whose results are printed.
use crate::value;
use anyhow::{Context, Result};
use guest_sys::raw::{Arena, Arg};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Places in the arena. Each call uses its own, so that they don't disturb each other.
pub const DATA: usize = 0x10_0000;
const ADDRESS: usize = 0x1000;
const LENGTH: usize = 0x1100;
const OPTION: usize = 0x1200;
const SET: usize = 0x2000;
/// Free for a case.
pub const FREE: usize = 0x8000;

/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(15);

/// A number as an argument.
pub fn n(number: impl Into<i64>) -> Arg {
    Arg::Number(number.into())
}

/// A place in the arena as an argument.
pub const fn at(place: usize) -> Arg {
    Arg::At(place)
}

/// No pointer at all.
pub const NULL: Arg = Arg::Number(0);
/// A pointer to nothing.
pub const BAD: Arg = Arg::At(guest_sys::raw::ARENA);

/// A case under way. Threads get copies.
#[derive(Clone)]
pub struct Probe {
    name: String,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Memory for calls.
    pub arena: Arc<Arena>,
    labels: Arc<Mutex<BTreeMap<String, u32>>>,
    prefix: String,
}

impl Probe {
    /// Begins a case.
    pub fn new(name: &str, peer: SocketAddr) -> Result<Self> {
        let arena = Arc::new(Arena::new().context("arena")?);
        let (labels, prefix) = Default::default();
        Ok(Self { name: name.to_owned(), peer, arena, labels, prefix })
    }

    /// The name of the case.
    pub fn case(&self) -> &str {
        &self.name
    }

    /// The same for a child of `fork`, which has a copy of everything: its labels begin with these
    /// words.
    pub fn in_child(&self, words: &str) -> Self {
        Self { prefix: format!("{words}, "), ..self.clone() }
    }

    /// Prints a result. Labels that come again are numbered.
    pub fn line(&self, label: &str, value: impl std::fmt::Display) {
        let mut labels = self.labels.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let count = labels.entry(label.to_owned()).or_default();
        *count += 1;
        let number = if *count > 1 { format!(" {count}") } else { String::new() };
        println!("{}/{}{label}{number}: {value}", self.name, self.prefix);
    }

    /// Says that this system has nothing for the case; it is compared where there is.
    pub fn absent(&self, why: &str) {
        self.line("absent", why);
    }

    /// A call without a word; its answer, negative for an error.
    pub fn quiet(&self, number: i64, arguments: &[Arg]) -> i64 {
        match self.arena.call(number, arguments) {
            Ok(answer) => answer,
            Err(error) => {
                self.line("mistake in the case", error);
                std::process::exit(3)
            }
        }
    }

    /// A call whose result is printed.
    pub fn call(&self, label: &str, number: i64, arguments: &[Arg]) -> i64 {
        let answer = self.quiet(number, arguments);
        self.line(label, value::result(answer));
        answer
    }

    /// A call that returns a descriptor: printed is whether it did.
    pub fn open(&self, label: &str, number: i64, arguments: &[Arg]) -> RawFd {
        let answer = self.quiet(number, arguments);
        let said = if answer >= 0 { "open".into() } else { value::result(answer) };
        self.line(label, said);
        answer as RawFd
    }

    /// An IPv4 socket, `SOCK_STREAM` and the like with flags.
    pub fn socket(&self, kind: i32) -> RawFd {
        self.open("socket", libc::SYS_socket, &[n(libc::AF_INET), n(kind), n(0)])
    }

    /// Puts an address into the arena; its place and length.
    pub fn address(&self, address: SocketAddr) -> [Arg; 2] {
        let mut bytes = Vec::new();
        match address {
            SocketAddr::V4(v4) => {
                bytes.extend((libc::AF_INET as u16).to_ne_bytes());
                bytes.extend(v4.port().to_be_bytes());
                bytes.extend(v4.ip().octets());
                bytes.extend([0; 8]);
            }
            SocketAddr::V6(v6) => {
                bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
                bytes.extend(v6.port().to_be_bytes());
                bytes.extend(v6.flowinfo().to_be_bytes());
                bytes.extend(v6.ip().octets());
                bytes.extend(v6.scope_id().to_ne_bytes());
            }
        }
        self.arena.write(ADDRESS, &bytes);
        [at(ADDRESS), n(bytes.len() as i64)]
    }

    /// `connect(2)` to an address.
    pub fn connect_to(&self, fd: RawFd, address: SocketAddr) -> i64 {
        let [place, length] = self.address(address);
        self.call("connect", libc::SYS_connect, &[n(fd), place, length])
    }

    /// `bind(2)` to an address.
    pub fn bind(&self, fd: RawFd, address: SocketAddr) -> i64 {
        let [place, length] = self.address(address);
        self.call("bind", libc::SYS_bind, &[n(fd), place, length])
    }

    /// Any address, any port.
    pub fn any() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    }

    /// A blocking TCP connection on which the peer behaves as the words say.
    pub fn stream(&self, words: &str) -> RawFd {
        let fd = self.socket(libc::SOCK_STREAM);
        self.connect_to(fd, self.peer);
        let line = format!("{words}\n");
        self.arena.write(DATA, line.as_bytes());
        self.quiet(libc::SYS_write, &[n(fd), at(DATA), n(line.len() as i64)]);
        fd
    }

    /// A UDP socket connected to the peer.
    pub fn datagrams(&self) -> RawFd {
        let fd = self.socket(libc::SOCK_DGRAM);
        self.connect_to(fd, self.peer);
        fd
    }

    /// `sendto(2)` without an address.
    pub fn send(&self, fd: RawFd, bytes: &[u8], flags: i32) -> i64 {
        self.arena.write(DATA, bytes);
        let length = n(bytes.len() as i64);
        self.call("send", libc::SYS_sendto, &[n(fd), at(DATA), length, n(flags), NULL, NULL])
    }

    /// `recvfrom(2)` without an address; what came is printed.
    pub fn receive(&self, fd: RawFd, length: usize, flags: i32) -> i64 {
        let place = DATA + 0x10_0000;
        let arguments = [n(fd), at(place), n(length as i64), n(flags), NULL, NULL];
        let answer = self.quiet(libc::SYS_recvfrom, &arguments);
        self.arrived("receive", answer, place, length);
        answer
    }

    /// Prints the result of a call that receives, and the data.
    pub fn arrived(&self, label: &str, answer: i64, place: usize, room: usize) {
        let Ok(length) = usize::try_from(answer) else {
            return self.line(label, value::result(answer));
        };
        let bytes = self.arena.read(place, length.min(room));
        self.line(label, format!("{length} {}", value::data(&bytes)));
    }

    /// Reads until the end or an error, however the pieces come.
    pub fn receive_all(&self, fd: RawFd) {
        let (place, mut all) = (DATA + 0x10_0000, Vec::new());
        let last = loop {
            let answer = self.quiet(libc::SYS_read, &[n(fd), at(place), n(65536)]);
            match usize::try_from(answer) {
                Ok(length) if length > 0 => all.extend(self.arena.read(place, length)),
                _ => break answer,
            }
        };
        self.line("all", format!("{}, then {}", value::data(&all), value::result(last)));
    }

    /// `close(2)`.
    pub fn close(&self, fd: RawFd) {
        self.call("close", libc::SYS_close, &[n(fd)]);
    }

    /// Puts `struct pollfd`s into the arena.
    pub fn poll_set(&self, set: &[(RawFd, i16)]) -> Arg {
        for (number, (fd, events)) in set.iter().enumerate() {
            let mut bytes = fd.to_ne_bytes().to_vec();
            bytes.extend(events.to_ne_bytes());
            bytes.extend([0; 2]);
            self.arena.write(SET + number * 8, &bytes);
        }
        at(SET)
    }

    /// What came back in it.
    pub fn poll_results(&self, count: usize) -> Vec<i16> {
        let bytes = self.arena.read(SET, count * 8);
        bytes.chunks_exact(8).map(|entry| i16::from_ne_bytes([entry[6], entry[7]])).collect()
    }

    /// `poll(2)`, printed.
    pub fn poll(&self, set: &[(RawFd, i16)], milliseconds: i32) -> i64 {
        let place = self.poll_set(set);
        let count = n(set.len() as i64);
        let answer = self.quiet(libc::SYS_poll, &[place, count, n(milliseconds)]);
        let events: Vec<String> =
            self.poll_results(set.len()).iter().map(|bits| value::events(*bits)).collect();
        self.line("poll", format!("{} {}", value::result(answer), events.join(" ")));
        answer
    }

    /// Waits until all of these events are there, then prints what `poll(2)` says.
    pub fn settle(&self, fd: RawFd, wanted: i16) {
        let end = Instant::now() + PATIENCE;
        loop {
            let place = self.poll_set(&[(fd, i16::MAX)]);
            self.quiet(libc::SYS_poll, &[place, n(1), n(100)]);
            let got = self.poll_results(1).first().copied().unwrap_or_default();
            if got & wanted == wanted || Instant::now() > end {
                self.poll(&[(fd, i16::MAX)], 0);
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until so many bytes can be read.
    pub fn wait_bytes(&self, fd: RawFd, bytes: usize) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
            let place = at(DATA + 0x10_0000);
            let arguments = [n(fd), place, n(65536), n(flags), NULL, NULL];
            if self.quiet(libc::SYS_recvfrom, &arguments) >= bytes as i64 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `setsockopt(2)` with a number.
    pub fn set_option(&self, fd: RawFd, level: i32, option: i32, value: i32) -> i64 {
        self.arena.write(OPTION, &value.to_ne_bytes());
        let arguments = [n(fd), n(level), n(option), at(OPTION), n(4)];
        self.call(&format!("set {level}.{option}"), libc::SYS_setsockopt, &arguments)
    }

    /// `getsockopt(2)` with room for `room` bytes; printed is what came.
    pub fn get_option(&self, fd: RawFd, level: i32, option: i32, room: i32) -> Option<i32> {
        self.arena.write(LENGTH, &room.to_ne_bytes());
        self.arena.write(OPTION, &[0; 64]);
        let arguments = [n(fd), n(level), n(option), at(OPTION), at(LENGTH)];
        let answer = self.quiet(libc::SYS_getsockopt, &arguments);
        let length = self.number(LENGTH);
        let bytes = self.arena.read(OPTION, usize::try_from(length).unwrap_or(0).min(64));
        let text = value::data(&bytes);
        let text = match <[u8; 4]>::try_from(bytes) {
            Ok(word) => i32::from_ne_bytes(word).to_string(),
            Err(_) => text,
        };
        let said = format!("{} {length} {text}", value::result(answer));
        self.line(&format!("get {level}.{option}"), said);
        (answer == 0).then(|| self.number(OPTION))
    }

    /// `SO_ERROR`, by name.
    pub fn error_of(&self, fd: RawFd) {
        self.arena.write(LENGTH, &4_i32.to_ne_bytes());
        let (level, option) = (n(libc::SOL_SOCKET), n(libc::SO_ERROR));
        let arguments = [n(fd), level, option, at(OPTION), at(LENGTH)];
        let answer = self.quiet(libc::SYS_getsockopt, &arguments);
        let error = if answer == 0 { -i64::from(self.number(OPTION)) } else { answer };
        self.line("SO_ERROR", value::result(error));
    }

    /// A number in the arena.
    pub fn number(&self, place: usize) -> i32 {
        let bytes = self.arena.read(place, 4);
        bytes.try_into().map_or(0, i32::from_ne_bytes)
    }

    /// `getsockname(2)` or `getpeername(2)`, with what is the same in every run; the port.
    pub fn name(&self, label: &str, number: i64, fd: RawFd) -> u16 {
        self.arena.write(LENGTH, &128_i32.to_ne_bytes());
        self.arena.write(ADDRESS, &[0; 128]);
        let answer = self.quiet(number, &[n(fd), at(ADDRESS), at(LENGTH)]);
        if answer < 0 {
            self.line(label, value::result(answer));
            return 0;
        }
        let address = self.stored_address();
        self.line(label, format!("{} {}", self.number(LENGTH), self.told(address)));
        address.map_or(0, |address| address.port())
    }

    /// The own name.
    pub fn own_name(&self, fd: RawFd) -> u16 {
        self.name("getsockname", libc::SYS_getsockname, fd)
    }

    /// The own port, without a word.
    pub fn name_of(&self, fd: RawFd) -> u16 {
        self.arena.write(LENGTH, &128_i32.to_ne_bytes());
        self.quiet(libc::SYS_getsockname, &[n(fd), at(ADDRESS), at(LENGTH)]);
        self.stored_address().map_or(0, |address| address.port())
    }

    /// The peer's name.
    pub fn peer_name(&self, fd: RawFd) -> u16 {
        self.name("getpeername", libc::SYS_getpeername, fd)
    }

    /// The address that a call has stored where [`Probe::address`] puts them.
    pub fn stored_address(&self) -> Option<SocketAddr> {
        let bytes = self.arena.read(ADDRESS, 28);
        let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        match family {
            libc::AF_INET => {
                let ip = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
                Some(SocketAddrV4::new(ip, port).into())
            }
            libc::AF_INET6 => {
                let ip = <[u8; 16]>::try_from(&bytes[8..24]).ok()?;
                Some(SocketAddrV6::new(ip.into(), port, 0, 0).into())
            }
            _ => None,
        }
    }

    /// An address in words that are the same in every run: peer and case share a machine.
    fn told(&self, address: Option<SocketAddr>) -> String {
        let Some(address) = address else { return "no address".into() };
        let ip = match address.ip() {
            ip if ip == self.peer.ip() => "here".into(),
            IpAddr::V6(ip) if ip.to_ipv4_mapped().map(IpAddr::V4) == Some(self.peer.ip()) => {
                "mapped here".into()
            }
            ip => ip.to_string(),
        };
        let port = match address.port() {
            0 => "no port",
            port if port == self.peer.port() => "the peer's port",
            _ => "a port",
        };
        format!("{ip}, {port}")
    }

    /// A listening socket on any port, non-blocking when `flags` say so; descriptor and port.
    pub fn listener(&self, flags: i32) -> (RawFd, u16) {
        let fd = self.socket(libc::SOCK_STREAM | flags);
        self.bind(fd, Self::any());
        self.call("listen", libc::SYS_listen, &[n(fd), n(16)]);
        let port = self.own_name(fd);
        (fd, port)
    }

    /// Has the peer connect to this port and behave there; the controlling connection.
    pub fn called_by_peer(&self, port: u16, words: &str) -> RawFd {
        self.stream(&format!("connect {port} {words}"))
    }

    /// `pipe2(2)`: reading and writing end.
    pub fn pipe(&self, flags: i32) -> (RawFd, RawFd) {
        self.quiet(libc::SYS_pipe2, &[at(FREE - 16), n(flags)]);
        (self.number(FREE - 16), self.number(FREE - 12))
    }

    /// A file in memory with these bytes, at its beginning.
    pub fn file(&self, bytes: &[u8]) -> RawFd {
        self.arena.write(FREE, b"file\0");
        let fd = self.open("file", libc::SYS_memfd_create, &[at(FREE), n(0)]);
        self.arena.write(DATA, bytes);
        self.quiet(libc::SYS_write, &[n(fd), at(DATA), n(bytes.len() as i64)]);
        self.quiet(libc::SYS_lseek, &[n(fd), n(0), n(libc::SEEK_SET)]);
        fd
    }

    /// An empty set of `select(2)` with this descriptor in it.
    pub fn select_bit(&self, place: usize, fd: RawFd) {
        let mut set = [0_u8; 128];
        if let Some(byte) = usize::try_from(fd / 8).ok().and_then(|number| set.get_mut(number)) {
            *byte = 1 << (fd % 8);
        }
        self.arena.write(place, &set);
    }

    /// Whether the descriptor is in that set.
    pub fn selected(&self, place: usize, fd: RawFd) -> bool {
        let byte = usize::try_from(fd / 8).ok().map(|number| self.arena.read(place + number, 1));
        byte.and_then(|byte| byte.first().copied()).unwrap_or(0) & (1 << (fd % 8)) != 0
    }

    /// Sets `SO_RCVTIMEO` or `SO_SNDTIMEO`.
    pub fn timeout(&self, fd: RawFd, option: i32, milliseconds: i64) {
        self.arena.write(OPTION, &(milliseconds / 1000).to_ne_bytes());
        self.arena.write(OPTION + 8, &(milliseconds % 1000 * 1000).to_ne_bytes());
        let arguments = [n(fd), n(libc::SOL_SOCKET), n(option), at(OPTION), n(16)];
        self.call("time-out", libc::SYS_setsockopt, &arguments);
    }

    /// Puts the vectors of `readv(2)` and the like into the arena: place and length of each.
    pub fn vectors(&self, place: usize, vectors: &[(Arg, u64)]) -> [Arg; 2] {
        for (number, (base, length)) in vectors.iter().enumerate() {
            self.arena.write_pointer(place + number * 16, *base);
            self.arena.write(place + number * 16 + 8, &length.to_ne_bytes());
        }
        [at(place), n(vectors.len() as i64)]
    }
}

/// Started by a case through `exec`: says whether that descriptor is still open.
pub fn after_exec(number: &str) -> Result<()> {
    let probe = Probe::new("after exec", SocketAddr::from(([0, 0, 0, 0], 0)))?;
    let fd: i32 = number.parse().context("descriptor")?;
    let flags = probe.quiet(libc::SYS_fcntl, &[n(fd), n(libc::F_GETFD), n(0)]);
    probe.arena.write(DATA, b"exec");
    let sent = probe.quiet(libc::SYS_write, &[n(fd), at(DATA), n(4)]);
    println!("{} {}", value::result(flags), value::result(sent));
    Ok(())
}
