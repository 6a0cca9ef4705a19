//! A fake service VM: mailboxes in fake memory, a scripted network behind them.
mod epoll;
mod events;
mod files;

use super::instance::Instance;
use memory::{Fake, Memory};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use wire::vsock::{Connection, Record};
use wire::{Kind, Mailbox, PollEntry, Registration, Request, Response, WAIT_FOREVER, layout};

pub const ROOT: u64 = 0x1000;
/// Mailboxes are mapped one to one from here on.
const FIRST: u64 = 0x20_0000;
const STRIDE: u64 = 0x10_0000;

#[derive(Clone, Default, Debug)]
pub struct Sock {
    pub received: VecDeque<u8>,
    pub sent: Vec<u8>,
    pub connected: Option<Vec<u8>>,
    pub bound: Option<Vec<u8>>,
    pub listening: bool,
    pub backlog: VecDeque<Vec<u8>>,
    pub closed: bool,
    pub eof: bool,
    /// `connect` answers `EINPROGRESS` until this is set.
    pub slow: bool,
    /// `connect` has answered 0.
    pub established: bool,
    pub options: Vec<(i32, i32, Vec<u8>)>,
    /// How often something arrived.
    pub arrivals: u64,
    /// It is an epoll instance.
    pub instance: Option<Instance>,
    /// It is a file.
    pub file: Option<files::Open>,
    /// It is another descriptor of that one.
    pub alias: Option<i32>,
}

impl Sock {
    /// What `connect` answers, the first time and later.
    fn connect(&mut self, to: Vec<u8>) -> i64 {
        if to[..2] == [0, 0] {
            (self.connected, self.established) = (None, false);
            return 0;
        }
        let slow = to[2..4] == SLOW_PORT;
        match (self.connected.replace(to), self.slow) {
            (Some(_), true) => -114,
            (Some(_), false) if self.established => -106,
            (None, _) if slow => {
                self.slow = true;
                -115
            }
            _ => {
                self.established = true;
                0
            }
        }
    }
}

pub struct Worker {
    pub base: u64,
    pub delegate: u32,
    pub slot: u32,
    done: u32,
    pub connection: Connection,
    pending: Option<(u32, Request)>,
    pub gone: bool,
}

/// What the workers have to tell once the relay is not in the middle of something.
#[derive(Clone, Copy, Debug)]
pub enum News {
    Register(u64),
    Connected(Connection, u32),
    Doorbell,
}

/// What a hostile delegate answers in place of the truth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lie {
    /// The result.
    pub value: Option<i64>,
    /// How many bytes of data it says that there are.
    pub length: Option<u32>,
    /// What lies at the start of the data.
    pub data: Option<[u8; 16]>,
}

/// By delegate and slot.
type Identities = BTreeMap<(u32, u32), (wire::Identity, Vec<u8>)>;

/// Pids of delegates are their numbers and this.
const PIDS: i64 = 700;

/// Sockets by delegate and descriptor.
type Sockets = BTreeMap<(u32, i32), Sock>;

#[derive(Default)]
pub struct Service {
    pub workers: RefCell<Vec<Worker>>,
    pub sockets: RefCell<Sockets>,
    pub news: RefCell<VecDeque<News>>,
    pub log: RefCell<Vec<(u32, Request)>>,
    /// Whom each worker acts as, with its groups.
    pub identities: RefCell<Identities>,
    /// Files that there are.
    pub store: RefCell<files::Store>,
    /// Watched sockets, and what has happened to them.
    pub watched: RefCell<events::Watched>,
    tokens: RefCell<BTreeMap<u32, u64>>,
    next: Cell<u32>,
    /// The time of polls that have one is over.
    pub late: Cell<bool>,
    /// Delegates don't answer while this is set.
    pub frozen: Cell<bool>,
    /// What becomes of the next answers; those after them are true.
    pub lies: RefCell<VecDeque<Lie>>,
    /// New workers don't show up while this is set.
    pub starting: Cell<bool>,
    /// No delegate can be forked while this is set.
    pub barren: Cell<bool>,
}

/// Every connection attempt to this port stays in progress.
pub const SLOW_PORT: [u8; 2] = [0x99, 0x99];

fn copy(m: &impl Memory, at: u64, length: u32) -> Vec<u8> {
    let mut b = vec![0; length as usize];
    m.read(at, &mut b).unwrap();
    b
}

impl Service {
    /// Identity-maps the mailbox area of the fake memory.
    pub fn prepare(memory: &Fake) {
        let put = |at: u64, value: u64| memory.write(at, &value.to_le_bytes()).unwrap();
        put(ROOT, 0x2007);
        put(0x2000, 0x3007);
        for n in 0..64 {
            put(0x3000 + n * 8, (0x10_000 + n * 0x1000) | 7);
            let entries = (0..512).map(|k| ((n << 21) + (k << 12)) | 7);
            let bytes: Vec<u8> = entries.flat_map(u64::to_le_bytes).collect();
            memory.write(0x10_000 + n * 0x1000, &bytes).unwrap();
        }
    }

    pub fn add_worker(&self, memory: &Fake, kind: Kind, delegate: u32, slot: u32) {
        let mut workers = self.workers.borrow_mut();
        let n = workers.len() as u64;
        let base = FIRST + n * STRIDE;
        let port = 5000 + n as u32;
        let token = self.tokens.borrow().get(&delegate).copied().unwrap_or(0);
        let who = Registration { kind, port, delegate, slot, token };
        mailbox(memory, base).introduce(&who).unwrap();
        let connection = Connection(n as u32 + 1);
        workers.push(Worker {
            base,
            delegate,
            slot,
            done: 0,
            connection,
            pending: None,
            gone: false,
        });
        self.news.borrow_mut().push_back(News::Connected(connection, port));
        self.news.borrow_mut().push_back(News::Register(base));
    }

    /// Lets all workers run until they have nothing to do.
    pub fn run(&self, memory: &Fake) {
        if self.frozen.get() {
            return;
        }
        let count = self.workers.borrow().len();
        for n in 0..count {
            self.turn(memory, n);
        }
    }

    fn turn(&self, memory: &Fake, n: usize) {
        let (base, done, delegate, slot, pending, gone) = {
            let workers = self.workers.borrow();
            let w = &workers[n];
            (w.base, w.done, w.delegate, w.slot, w.pending, w.gone)
        };
        if gone {
            return;
        }
        let mailbox = mailbox(memory, base);
        if mailbox.admitted() != Ok(Some(Ok(()))) {
            return;
        }
        let (sequence, request) = match pending {
            Some(pending) => pending,
            None => match mailbox.request(done).unwrap() {
                Some((sequence, Ok(request))) => {
                    self.log.borrow_mut().push((delegate, request));
                    (sequence, request)
                }
                Some((_, Err(e))) => panic!("{e:?}"),
                None => return,
            },
        };
        let response = if mailbox.cancelled(sequence).unwrap() {
            Some(Response { cancelled: true, ..Response::value(-4) })
        } else {
            self.serve(memory, &mailbox, (delegate, slot), &request)
        };
        let response = response.map(|true_one| self.lie(mailbox.memory(), true_one));
        let mut workers = self.workers.borrow_mut();
        let w = &mut workers[n];
        let Some(response) = response else {
            w.pending = Some((sequence, request));
            mailbox.set_sleeping(true).unwrap();
            return;
        };
        w.pending = None;
        w.done = sequence;
        w.gone = request == Request::Exit;
        mailbox.set_sleeping(false).unwrap();
        if mailbox.respond(sequence, &response).unwrap() {
            self.news.borrow_mut().push_back(News::Doorbell);
        }
    }

    /// The answer that is given instead of the true one.
    fn lie(&self, m: &Window, response: Response) -> Response {
        let Some(lie) = self.lies.borrow_mut().pop_front() else { return response };
        if let Some(data) = lie.data {
            m.write(layout::PAYLOAD, &data).unwrap();
        }
        Response {
            value: lie.value.unwrap_or(response.value),
            length: lie.length.unwrap_or(response.length),
            ..response
        }
    }

    fn serve(
        &self,
        memory: &Fake,
        mailbox: &Mailbox<Window>,
        (delegate, slot): (u32, u32),
        request: &Request,
    ) -> Option<Response> {
        let m = mailbox.memory();
        let sockets = &mut *self.sockets.borrow_mut();
        let value = match *request {
            Request::Fork { .. } if self.barren.get() => linux_abi::Errno::EAGAIN.result(),
            Request::Fork { delegate: new, token, .. } => {
                self.tokens.borrow_mut().insert(new, token);
                let inherited: Vec<_> = sockets
                    .iter()
                    .filter(|((d, _), _)| *d == delegate && delegate != 0)
                    .map(|((_, fd), s)| ((new, *fd), s.clone()))
                    .collect();
                sockets.extend(inherited);
                self.add_worker(memory, Kind::Worker, new, 0);
                self.add_worker(memory, Kind::Worker, new, 1);
                PIDS + i64::from(new)
            }
            Request::Spawn { slot } => {
                self.add_worker(memory, Kind::Worker, delegate, slot);
                0
            }
            Request::Identity(whom) => {
                let groups = copy(m, layout::PAYLOAD, whom.groups * 4);
                self.identities.borrow_mut().insert((delegate, slot), (whom, groups));
                0
            }
            Request::Fetch { pid, fd } => {
                let source = if pid == 0 { 0 } else { (i64::from(pid) - PIDS) as u32 };
                let Some(socket) = open(sockets, source, fd).map(|s| s.clone()) else {
                    return Some(Response::value(-9));
                };
                self.next.set(self.next.get() + 1);
                let new = 20 + self.next.get() as i32;
                sockets.insert((delegate, new), socket);
                i64::from(new)
            }
            Request::Ioctl { .. } | Request::Shutdown { .. } | Request::Nop | Request::Exit => 0,
            Request::Socket { .. }
            | Request::Close { .. }
            | Request::Connect { .. }
            | Request::Bind { .. }
            | Request::Listen { .. }
            | Request::Accept { .. } => return self.set_up(m, sockets, delegate, request),
            Request::File(ref request) => return Some(self.file(m, sockets, delegate, request)),
            Request::Watch { fd, on } => self.watch(delegate, fd, on),
            Request::Events => return self.events(m, delegate),
            Request::Epoll(ref request) => return self.epoll(m, sockets, delegate, request),
            Request::Poll { wait, .. } if self.late.get() && wait != WAIT_FOREVER => 0,
            _ => return transfer(m, sockets, delegate, request),
        };
        Some(Response::value(value))
    }

    fn set_up(
        &self,
        m: &Window,
        sockets: &mut Sockets,
        delegate: u32,
        request: &Request,
    ) -> Option<Response> {
        let value = match *request {
            Request::Socket { .. } => {
                self.next.set(self.next.get() + 1);
                let fd = 20 + self.next.get() as i32;
                sockets.insert((delegate, fd), Sock::default());
                i64::from(fd)
            }
            Request::Close { fd } => match open(sockets, delegate, fd) {
                Some(s) => {
                    s.closed = true;
                    0
                }
                None => -9,
            },
            Request::Connect { fd, address, .. } => {
                let to = copy(m, layout::ADDRESS, address);
                let s = open(sockets, delegate, fd)?;
                s.connect(to)
            }
            Request::Bind { fd, address } => {
                open(sockets, delegate, fd)?.bound = Some(copy(m, layout::ADDRESS, address));
                0
            }
            Request::Listen { fd, .. } => {
                open(sockets, delegate, fd)?.listening = true;
                0
            }
            Request::Accept { fd, .. } => match open(sockets, delegate, fd)?.backlog.pop_front() {
                None => -11,
                Some(peer) => {
                    self.next.set(self.next.get() + 1);
                    let new = 20 + self.next.get() as i32;
                    let connected = Some(peer.clone());
                    sockets.insert((delegate, new), Sock { connected, ..Sock::default() });
                    m.write(layout::ADDRESS, &peer).unwrap();
                    let value = i64::from(new);
                    return Some(Response { address: peer.len() as u32, ..Response::value(value) });
                }
            },
            _ => return None,
        };
        Some(Response::value(value))
    }

    /// Looks for news for the relay.
    pub fn next_news(&self) -> Option<News> {
        let mut news = self.news.borrow_mut();
        let due = |n: &News| !self.starting.get() || matches!(n, News::Doorbell);
        news.iter().position(due).and_then(|place| news.remove(place))
    }

    /// The record of a delegate's death.
    pub fn kill(&self, delegate: u32) -> Vec<Record> {
        let mut workers = self.workers.borrow_mut();
        let mine = workers.iter_mut().filter(|w| w.delegate == delegate && !w.gone);
        mine.map(|w| {
            w.gone = true;
            Record::Closed { connection: w.connection }
        })
        .collect()
    }
}

/// The part of the fake memory that is a mailbox.
#[derive(Clone)]
pub struct Window(Fake, u64);

pub fn mailbox(memory: &Fake, base: u64) -> Mailbox<Window> {
    Mailbox::new(Window(memory.clone(), base))
}

impl Memory for Window {
    fn len(&self) -> u64 {
        layout::LENGTH
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), memory::OutOfBounds> {
        self.0.read(self.1 + offset, into)
    }
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), memory::OutOfBounds> {
        self.0.write(self.1 + offset, from)
    }
    fn load32(&self, offset: u64) -> Result<u32, memory::OutOfBounds> {
        self.0.load32(self.1 + offset)
    }
    fn store32(&self, offset: u64, value: u32) -> Result<(), memory::OutOfBounds> {
        self.0.store32(self.1 + offset, value)
    }
}

/// The open socket of that descriptor.
fn open(sockets: &mut Sockets, delegate: u32, fd: i32) -> Option<&mut Sock> {
    sockets.get_mut(&(delegate, fd)).filter(|s| !s.closed)
}

/// The name of a socket, or of its peer.
fn name_of(sockets: &mut Sockets, delegate: u32, request: &Request) -> Option<Vec<u8>> {
    let Request::LocalName { fd } = *request else {
        return Some(super::address([10, 0, 2, 15], 4321));
    };
    Some(match open(sockets, delegate, fd)?.bound.clone() {
        Some(name) if name[2..4] != [0, 0] => name,
        _ => super::address([10, 0, 2, 15], 4300 + fd as u16),
    })
}

fn transfer(
    m: &Window,
    sockets: &mut Sockets,
    delegate: u32,
    request: &Request,
) -> Option<Response> {
    let value = match *request {
        Request::Send { fd, length, .. } => {
            open(sockets, delegate, fd)?.sent.extend(copy(m, layout::PAYLOAD, length));
            i64::from(length)
        }
        Request::Receive { fd, length, .. } => {
            let s = open(sockets, delegate, fd)?;
            if s.received.is_empty() && !s.eof {
                -11
            } else {
                let n = s.received.len().min(length as usize);
                let data: Vec<u8> = s.received.drain(..n).collect();
                m.write(layout::PAYLOAD, &data).unwrap();
                let length = n as u32;
                return Some(Response { length, ..Response::value(n as i64) });
            }
        }
        Request::SetOption { fd, level, name, length } => {
            let value = copy(m, layout::PAYLOAD, length);
            open(sockets, delegate, fd)?.options.push((level, name, value));
            0
        }
        Request::GetOption { .. } => {
            m.write(layout::PAYLOAD, &[0; 4]).unwrap();
            return Some(Response { length: 4, ..Response::value(0) });
        }
        Request::LocalName { .. } | Request::PeerName { .. } => {
            let name = name_of(sockets, delegate, request)?;
            m.write(layout::ADDRESS, &name).unwrap();
            return Some(Response { address: 16, ..Response::value(0) });
        }
        Request::Poll { count, wait } => {
            let mut ready = 0;
            for n in 0..u64::from(count) {
                let mut raw = [0; 8];
                m.read(layout::PAYLOAD + n * 8, &mut raw).unwrap();
                let mut e = PollEntry::decode(raw);
                let found = epoll::level(sockets, delegate, e.fd).map_or(0x20, |l| l.0 as u16);
                e.revents = found & (e.events | 0x38);
                ready += i64::from(e.revents != 0);
                m.write(layout::PAYLOAD + n * 8, &e.encode()).unwrap();
            }
            if ready == 0 && wait != 0 {
                return None;
            }
            ready
        }
        _ => return None,
    };
    Some(Response::value(value))
}
