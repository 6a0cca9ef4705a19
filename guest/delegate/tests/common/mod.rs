//! A fake hypervisor and relay: mailboxes in the same shared file, Unix sockets as doorbells. The
//! dispatcher runs as a process of its own: this test program again, told what to be by its
//! environment.
#![allow(dead_code)]

use delegate::dispatcher;
use delegate::hypervisor::Hypervisor;
use delegate::pool::{Pool, Slot};
use guest_sys::mailbox::Mailbox as Memory_;
use memory::Memory;
use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, open};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use wire::{Credentials, Kind, Mailbox, Request, Response, layout};

/// Path of the fake relay's socket, and of the pool.
const ENVIRONMENT: [&str; 2] = ["TRAPLINE_TEST_RELAY", "TRAPLINE_TEST_POOL"];

/// The body of the test that is really the dispatcher's process.
pub fn dispatcher_process() {
    let Some(relay) = std::env::var_os(ENVIRONMENT[0]) else { return };
    let pool = std::env::var(ENVIRONMENT[1]).expect("pool");
    let file = open(pool, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).expect("pool");
    let fake = Fake { relay: Arc::new(relay.into()) };
    let end = dispatcher::run_with(fake, Pool::of_file(file), delegate::door::LONGEST_SPIN);
    panic!("{end:?}");
}

/// What dispatcher and delegates take for the hypervisor.
#[derive(Clone)]
struct Fake {
    relay: Arc<PathBuf>,
}

static PORT: AtomicU32 = AtomicU32::new(0);

impl Hypervisor for Fake {
    fn connect(&self) -> io::Result<(OwnedFd, u32)> {
        let stream = UnixStream::connect(&*self.relay)?;
        stream.set_nonblocking(true)?;
        Ok((stream.into(), std::process::id() << 8 | PORT.fetch_add(1, Ordering::Relaxed) & 0xff))
    }

    fn register(&self, connection: BorrowedFd<'_>, slot: &Slot) -> io::Result<()> {
        rustix::io::write(connection, &slot.place().to_ne_bytes())?;
        Ok(())
    }

    fn doorbell(&self, connection: BorrowedFd<'_>) {
        rustix::io::write(connection, b"D").expect("doorbell");
    }
}

/// A worker as the relay knows it.
pub struct Peer {
    stream: UnixStream,
    pub mailbox: Mailbox<Memory_>,
    sequence: Mutex<u32>,
    pub pid: u32,
}

pub type Key = (u32, u32);

/// Workers that have registered, and the news that one has.
type Peers = Arc<(Mutex<HashMap<Key, Arc<Peer>>>, Condvar)>;

/// The relay and the dispatcher's process.
pub struct Relay {
    peers: Peers,
    dispatcher: Mutex<Child>,
    directory: PathBuf,
    next: AtomicU32,
    _pool: OwnedFd,
}

pub const PATIENCE: Duration = Duration::from_secs(20);

fn meet(mut stream: UnixStream, pool: &OwnedFd) -> (Key, Peer) {
    let mut place = [0; 4];
    stream.read_exact(&mut place).expect("place");
    let offset = u64::from(u32::from_ne_bytes(place)) * layout::LENGTH;
    let memory = Memory_::of_file(pool.as_fd(), offset, layout::LENGTH as usize).expect("mailbox");
    let mailbox = Mailbox::new(memory);
    let who = mailbox.registration().expect("length").expect("a registration");
    let number = if who.kind == Kind::Dispatcher { 0 } else { who.delegate };
    assert_eq!(who.token, u64::from(number) * 77);
    let peer = Peer { stream, mailbox, sequence: Mutex::new(0), pid: who.port >> 8 };
    ((number, who.slot), peer)
}

impl Relay {
    /// Starts the dispatcher; `own` is the name of the test that calls `dispatcher_process`.
    pub fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("trapline-delegate-{}-{count}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("directory");
        let path = directory.join("relay");
        let listener = UnixListener::bind(&path).expect("listener");
        // Delegates of other users must be able to connect.
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&path, all).expect("own file");
        let pool = memfd_create("test pool", MemfdFlags::CLOEXEC).expect("pool");
        ftruncate(&pool, layout::LENGTH * u64::from(delegate::pool::PLACES)).expect("pool");
        let pool_path = format!("/proc/{}/fd/{}", std::process::id(), pool.as_raw_fd());
        let peers = Peers::default();
        let (own_peers, own_pool) = (peers.clone(), pool.try_clone().expect("pool"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (key, peer) = meet(stream.expect("connection"), &own_pool);
                own_peers.0.lock().unwrap().insert(key, Arc::new(peer));
                own_peers.1.notify_all();
            }
        });
        let dispatcher = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "dispatcher_process", "--nocapture"])
            .env(ENVIRONMENT[0], path)
            .env(ENVIRONMENT[1], pool_path)
            .stdout(Stdio::null())
            .spawn()
            .expect("dispatcher");
        let relay = Self {
            peers,
            dispatcher: Mutex::new(dispatcher),
            directory,
            next: AtomicU32::new(1),
            _pool: pool,
        };
        relay.peer(0, 0);
        relay
    }

    pub fn dispatcher_pid(&self) -> u32 {
        self.dispatcher.lock().unwrap().id()
    }

    /// Waits until that worker has registered.
    pub fn peer(&self, delegate: u32, slot: u32) -> Arc<Peer> {
        let peers = self.peers.0.lock().unwrap();
        let absent = |peers: &mut HashMap<Key, _>| !peers.contains_key(&(delegate, slot));
        let (peers, late) = self.peers.1.wait_timeout_while(peers, PATIENCE, absent).unwrap();
        assert!(!late.timed_out(), "delegate {delegate} slot {slot} never registered");
        peers[&(delegate, slot)].clone()
    }

    /// Has a delegate forked by another one (0: the dispatcher).
    pub fn fork(&self, parent: u32) -> u32 {
        self.fork_as(parent, Credentials { uid: 0, gid: 0, capabilities: u64::MAX })
    }

    pub fn fork_as(&self, parent: u32, credentials: Credentials) -> u32 {
        let delegate = self.next.fetch_add(1, Ordering::Relaxed);
        let token = u64::from(delegate) * 77;
        let request = Request::Fork { delegate, token, credentials };
        let pid = self.peer(parent, 0).call(&request).value;
        assert!(pid > 0, "{pid}");
        assert_eq!(i64::from(self.peer(delegate, 0).pid), pid);
        self.peer(delegate, 1);
        delegate
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let dispatcher = self.dispatcher.get_mut().unwrap();
        let _ = dispatcher.kill();
        let _ = dispatcher.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Peer {
    /// Posts a request; its number.
    pub fn post(&self, request: &Request) -> u32 {
        let mut sequence = self.sequence.lock().unwrap();
        *sequence += 1;
        if self.mailbox.post(*sequence, request).expect("length") {
            self.ring();
        }
        *sequence
    }

    /// Posts a header as it is.
    pub fn post_raw(&self, header: &[u8]) -> u32 {
        let mut sequence = self.sequence.lock().unwrap();
        *sequence += 1;
        let memory = self.mailbox.memory();
        memory.write(layout::REQUEST, header).expect("inside");
        memory.store32(layout::WAITING, 0).expect("inside");
        memory.store32(layout::REQUEST_SEQUENCE, *sequence).expect("inside");
        memory.fence();
        if memory.load32(layout::SLEEPING).expect("inside") != 0 {
            self.ring();
        }
        *sequence
    }

    pub fn ring(&self) {
        (&self.stream).write_all(&[1]).expect("doorbell");
    }

    pub fn cancel(&self, sequence: u32) {
        if self.mailbox.cancel(sequence).expect("length") {
            self.ring();
        }
    }

    /// The response, if it is there.
    pub fn response(&self, sequence: u32) -> Option<Response> {
        self.mailbox.response(sequence).expect("length").map(|r| r.expect("a response"))
    }

    /// Waits for the response: looks for a while, then asks for a doorbell.
    pub fn wait(&self, sequence: u32) -> Response {
        for _ in 0..1000 {
            if let Some(response) = self.response(sequence) {
                return response;
            }
            std::hint::spin_loop();
        }
        self.mailbox.want_doorbell().expect("length");
        self.stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        loop {
            if let Some(response) = self.response(sequence) {
                return response;
            }
            let mut byte = [0];
            match (&self.stream).read(&mut byte) {
                Ok(1) => {}
                other => panic!("no response to {sequence}: {other:?}"),
            }
        }
    }

    pub fn call(&self, request: &Request) -> Response {
        self.wait(self.post(request))
    }

    pub fn value(&self, request: &Request) -> i64 {
        self.call(request).value
    }

    pub fn put(&self, offset: u64, bytes: &[u8]) {
        self.mailbox.memory().write(offset, bytes).expect("inside");
    }

    pub fn data(&self, offset: u64, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        self.mailbox.memory().read(offset, &mut bytes).expect("inside");
        bytes
    }

    /// Waits until the worker's connection is closed.
    pub fn is_gone_within(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        self.stream.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
        let mut bytes = [0; 64];
        while Instant::now() < end {
            match (&self.stream).read(&mut bytes) {
                Ok(0) => return true,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return true,
                _ => {}
            }
        }
        false
    }

    pub fn is_alive(&self) -> bool {
        !self.is_gone_within(Duration::from_millis(150))
    }
}

/// `struct sockaddr_in`.
pub fn address(at: std::net::SocketAddr) -> Vec<u8> {
    let std::net::SocketAddr::V4(at) = at else { panic!("IPv4 only") };
    let mut bytes = 2u16.to_ne_bytes().to_vec();
    bytes.extend(at.port().to_be_bytes());
    bytes.extend(at.ip().octets());
    bytes.extend([0; 8]);
    bytes
}

pub const TCP: Request = Request::Socket { domain: 2, kind: 1, protocol: 0 };
pub const UDP: Request = Request::Socket { domain: 2, kind: 2, protocol: 0 };

/// A datagram socket of the delegate's, and one of the test's that is connected to it.
pub fn receiver(peer: &Peer) -> (i32, UdpSocket) {
    let fd = peer.socket(&UDP);
    let address = address("127.0.0.1:0".parse().unwrap());
    peer.put(layout::ADDRESS, &address);
    assert_eq!(peer.value(&Request::Bind { fd, address: address.len() as u32 }), 0);
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.connect(peer.own_address(fd)).unwrap();
    (fd, other)
}

impl Peer {
    pub fn socket(&self, request: &Request) -> i32 {
        i32::try_from(self.value(request)).ok().filter(|fd| *fd > 2).expect("a descriptor")
    }

    pub fn connect(&self, fd: i32, to: std::net::SocketAddr, wait: u64) -> i64 {
        let bytes = address(to);
        self.put(layout::ADDRESS, &bytes);
        self.value(&Request::Connect { fd, address: bytes.len() as u32, wait })
    }

    pub fn bind(&self, fd: i32, to: std::net::SocketAddr) -> i64 {
        let bytes = address(to);
        self.put(layout::ADDRESS, &bytes);
        self.value(&Request::Bind { fd, address: bytes.len() as u32 })
    }

    pub fn send(&self, fd: i32, data: &[u8]) -> i64 {
        self.put(layout::PAYLOAD, data);
        self.value(&send(fd, data.len() as u32))
    }

    pub fn own_address(&self, fd: i32) -> std::net::SocketAddr {
        let response = self.call(&Request::LocalName { fd });
        assert_eq!((response.value, response.address), (0, 16));
        let bytes = self.data(layout::ADDRESS, 16);
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        ([bytes[4], bytes[5], bytes[6], bytes[7]], port).into()
    }

    /// A socket that listens on a free port of this machine.
    pub fn listener(&self) -> (i32, std::net::SocketAddr) {
        let fd = self.socket(&TCP);
        assert_eq!(self.bind(fd, ([127, 0, 0, 1], 0).into()), 0);
        assert_eq!(self.value(&Request::Listen { fd, backlog: 8 }), 0);
        (fd, self.own_address(fd))
    }
}

pub fn send(fd: i32, length: u32) -> Request {
    Request::Send {
        fd,
        flags: 0,
        address: 0,
        control: 0,
        length,
        all: true,
        wait: wire::WAIT_FOREVER,
    }
}

pub fn receive(fd: i32, length: u32, wait: u64) -> Request {
    Request::Receive { fd, flags: 0, control: 0, length, all: false, wait }
}
