//! A worker of a delegate, and what the dispatcher makes of a request, on real sockets.
//!
//! Where there is another network than loopback around it (`trapline fuzz` starts it without), it leaves
//! out what could be felt outside of this process.
use delegate::door::{Door, Owner};
use delegate::hypervisor::Hypervisor;
use delegate::pool::{Pool, Slot};
use delegate::process::Order;
use delegate::sockets::Sockets;
use delegate::worker::{NoControl, serve_one};
use memory::Memory;
use rustix::pipe::pipe;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use wire::{Identity, Kind, Request, Response, layout};

/// Keeps its end of doorbell connections open.
#[derive(Clone, Default)]
struct Nobody {
    peers: Arc<Mutex<Vec<UnixStream>>>,
}

impl Hypervisor for Nobody {
    fn connect(&self) -> io::Result<(OwnedFd, u32)> {
        let (own, peer) = UnixStream::pair()?;
        own.set_nonblocking(true)?;
        if let Ok(mut peers) = self.peers.lock() {
            peers.push(peer);
        }
        Ok((own.into(), 1))
    }
    fn register(&self, _: BorrowedFd<'_>, _: &Slot) -> io::Result<()> {
        Ok(())
    }
    fn doorbell(&self, _: BorrowedFd<'_>) {}
}

/// One worker for all inputs.
pub struct Bench {
    door: Door<Nobody>,
    sequence: u32,
    _dispatcher: OwnedFd,
}

static BENCH: LazyLock<Mutex<Bench>> =
    LazyLock::new(|| Mutex::new(Bench::new().expect("a worker")));

/// Nothing but loopback is there.
static ALONE: LazyLock<bool> = LazyLock::new(|| {
    let devices = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let mut names = devices.lines().skip(2).filter_map(|line| line.split(':').next());
    names.next().is_some_and(|name| name.trim() == "lo") && names.next().is_none()
});

impl Bench {
    /// A worker without sockets.
    pub fn new() -> io::Result<Self> {
        let (lifeline, dispatcher) = pipe()?;
        let spin = Duration::ZERO;
        let owner = Owner { kind: Kind::Worker, delegate: 1, slot: 1, token: 0, spin };
        let pool = Pool::new()?;
        let door = Door::open(Nobody::default(), pool.slot()?, Arc::new(lifeline), owner)?;
        Ok(Self { door, sequence: 0, _dispatcher: dispatcher })
    }

    /// The mailbox.
    pub fn memory(&self) -> &impl Memory {
        self.door.memory()
    }

    /// Has one request served: the header, and what lies in the mailbox with it.
    fn serve(&mut self, sockets: &Sockets, header: &[u8; Request::SIZE], data: &[u8]) {
        for at in [layout::ADDRESS, layout::CONTROL, layout::PAYLOAD] {
            self.memory().write(at, data).expect("inside");
        }
        self.serve_header(sockets, header);
    }

    /// Has a request served whose data are in the mailbox.
    pub fn serve_header(&mut self, sockets: &Sockets, header: &[u8; Request::SIZE]) -> Response {
        let memory = self.door.memory();
        memory.write(layout::REQUEST, header).expect("inside");
        let done = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        memory.store32(layout::REQUEST_SEQUENCE, self.sequence).expect("inside");
        let served = serve_one(&mut self.door, sockets, &NoControl, done);
        let (sequence, response, last) = served.expect("the worker lives");
        assert_eq!((sequence, last), (self.sequence, false));
        let lengths = [
            (response.address, layout::ADDRESS_MAX),
            (response.control, layout::CONTROL_MAX),
            (response.length, layout::PAYLOAD_MAX),
        ];
        assert!(lengths.iter().all(|(length, most)| length <= most), "{response:?}");
        let errno = Request::decode(header).is_err().then_some(-22);
        assert!(errno.is_none_or(|errno| response.value == errno), "{response:?}");
        response
    }
}

/// Longest wait of a request, in nanoseconds.
const WAIT: u64 = 50_000;
/// Bytes that come with each request.
const DATA: usize = 48;

/// Pieces of a header (a kind, six small or large words) and data.
pub fn target(bytes: &[u8]) {
    let mut bench = BENCH.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let sockets = Sockets::default();
    let mut opened = Vec::new();
    for step in bytes.chunks(1 + 1 + 6 * 4 + DATA).take(40) {
        let Some((header, request)) = header(step, &opened) else { break };
        order(&header);
        let data = data(step.get(26..).unwrap_or_default());
        // One has no arguments, and waits until it is cancelled.
        if let Ok(request) = request
            && (matches!(request, Request::Events) || !*ALONE && is_felt(&request))
        {
            continue;
        }
        bench.serve(&sockets, &header, &data);
        opened = sockets.lock().keys().copied().collect();
        if opened.len() > 200 {
            break;
        }
    }
    let own = Identity { capabilities: u64::MAX, ..Identity::default() };
    if *ALONE {
        bench.serve(&sockets, &Request::Identity(own).encode(), &[]);
    }
}

type Decoded = Result<Request, wire::Malformed>;

/// The header that a step describes. Words of a step choose a descriptor that is open, are small, or
/// are taken as they are, by the bits of its second byte.
fn header(step: &[u8], opened: &[i32]) -> Option<([u8; Request::SIZE], Decoded)> {
    let (kind, rest) = step.split_first()?;
    let (styles, rest) = rest.split_first()?;
    let (words, _) = rest.as_chunks::<4>();
    let mut header = [0; Request::SIZE];
    let mut put = |n: usize, value: u64| {
        if let Some(place) = header.get_mut(n * 8..n * 8 + 8) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    };
    put(0, u64::from(kind % 36));
    for (n, word) in words.iter().take(6).enumerate() {
        let raw = u32::from_le_bytes(*word);
        let value = match styles >> n & 1 {
            0 if n == 0 => opened.get(raw as usize % (opened.len() + 1)).map_or(3, |fd| *fd as u64),
            0 => u64::from(raw & 0xff),
            _ if raw >> 30 == 3 => u64::from(raw) << 32 | u64::from(raw),
            _ => u64::from(raw),
        };
        put(n + 1, value);
    }
    put(7, u64::from(styles >> 6) * WAIT / 4);
    Some((header, Request::decode(&header)))
}

/// Data whose start is an address of this machine as often as anything else.
fn data(bytes: &[u8]) -> [u8; DATA] {
    let mut data = [0; DATA];
    for (to, from) in data.iter_mut().zip(bytes) {
        *to = *from;
    }
    if !*ALONE {
        let port = [data[2], data[3]];
        let mut own = [0; 28];
        own[0] = if data[0] % 2 == 0 { 2 } else { 10 };
        own[2..4].copy_from_slice(&port);
        own[4..8].copy_from_slice(&[127, 0, 0, 1]);
        if own[0] == 10 {
            own[4..8].fill(0);
            own[23] = 1;
        }
        data[..28].copy_from_slice(&own);
    }
    data
}

/// Requests that reach beyond the worker's sockets: interfaces, routes, other processes, ids.
fn is_felt(request: &Request) -> bool {
    const NETLINK: u32 = 16;
    match request {
        Request::Ioctl { .. } | Request::Identity(_) | Request::Fetch { .. } => true,
        Request::Socket { domain, .. } => *domain == NETLINK,
        _ => false,
    }
}

/// What dispatcher and delegates take for an order about processes.
fn order(header: &[u8; Request::SIZE]) {
    let Ok(request) = Request::decode(header) else { return };
    for delegate in [0, 7] {
        match Order::of(&request, delegate) {
            None => {}
            Some(Order::Fork(_)) => assert!(matches!(request, Request::Fork { .. })),
            Some(Order::Spawn { slot }) => assert!(delegate != 0 && slot != 0),
            Some(Order::Exit) => assert!(delegate != 0 && request == Request::Exit),
        }
    }
}
