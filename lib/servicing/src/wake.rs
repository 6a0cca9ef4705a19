//! Wake sockets: virtual-socket connections of trusted processes to the hypervisor. A thread
//! that waits sleeps in its own kernel on one of them; the relay wakes it with a byte. They are
//! lifelines, too: however a process dies, its connections close.
use crate::world::World;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use wire::vsock::{Bytes, Connection, Record, WAKE_PORT};

/// One connection.
#[derive(Debug)]
pub struct Wake {
    /// Descriptor in the process.
    pub fd: i32,
    /// The process's own port.
    pub port: u32,
    /// Table whose lifeline it is.
    pub table: u32,
    /// A call waits on it.
    pub busy: Cell<bool>,
    /// Bytes sent and not read yet.
    pub outstanding: Cell<u32>,
    /// When the first of them was sent.
    pub rung: Cell<u64>,
    /// The connection is gone.
    pub closed: Cell<bool>,
}

impl Wake {
    /// Notes that the thread has read `n` bytes.
    pub fn consumed(&self, n: u32) {
        self.outstanding.set(self.outstanding.get().saturating_sub(n));
    }
}

/// All wake connections of the compute VM.
#[derive(Debug, Default)]
pub struct Wakes {
    /// Connections that the monitor reported: own port and number.
    connections: RefCell<Vec<(u32, Connection)>>,
    wakes: RefCell<Vec<Rc<Wake>>>,
}

/// Most connections that are remembered: beyond, the guest is not playing by the rules.
const LIMIT: usize = 4096;

impl Wakes {
    /// The monitor reported a connection. False when it is refused.
    pub fn connected(&self, world: &dyn World, port: u32, own: u32, number: Connection) -> bool {
        let mut connections = self.connections.borrow_mut();
        if port != WAKE_PORT || connections.len() >= LIMIT {
            return false;
        }
        connections.retain(|(p, c)| *p != own && *c != number);
        connections.push((own, number));
        drop(connections);
        // A byte may have been due before the connection was known.
        let waiting = self.find(own).filter(|w| w.outstanding.get() > 0);
        if let Some(wake) = waiting {
            wake.outstanding.set(1);
            send(world, number);
        }
        true
    }

    /// True while the connection from that port lives.
    #[must_use]
    pub fn knows(&self, port: u32) -> bool {
        self.connections.borrow().iter().any(|(p, _)| *p == port)
    }

    /// Sends a byte to a connection that nobody waits at; false when it is gone.
    #[must_use]
    pub fn ring_bell(&self, world: &dyn World, port: u32) -> bool {
        let connections = self.connections.borrow();
        let number = connections.iter().find(|(p, _)| *p == port).map(|(_, number)| *number);
        drop(connections);
        number.inspect(|number| send(world, *number)).is_some()
    }

    fn find(&self, port: u32) -> Option<Rc<Wake>> {
        self.wakes.borrow().iter().find(|w| w.port == port).cloned()
    }

    /// A connection is gone. Answers the wake socket that it was, if it was one.
    pub fn closed(&self, number: Connection) -> Option<Rc<Wake>> {
        let mut connections = self.connections.borrow_mut();
        let place = connections.iter().position(|(_, c)| *c == number)?;
        let (port, _) = connections.swap_remove(place);
        drop(connections);
        let wake = self.find(port)?;
        wake.closed.set(true);
        self.wakes.borrow_mut().retain(|w| w.port != port);
        Some(wake)
    }

    /// All connections are gone with their VM.
    pub fn ended(&self) {
        self.connections.borrow_mut().clear();
        for wake in self.wakes.borrow_mut().drain(..) {
            wake.closed.set(true);
        }
    }

    /// A process made itself a wake socket. `None` when its port is another one's already, or
    /// the connection closed meanwhile.
    pub fn add(&self, fd: i32, port: u32, table: u32) -> Option<Rc<Wake>> {
        if self.find(port).is_some() {
            return None;
        }
        let wake = Rc::new(Wake {
            fd,
            port,
            table,
            busy: Cell::new(false),
            outstanding: Cell::new(0),
            rung: Cell::new(0),
            closed: Cell::new(false),
        });
        self.wakes.borrow_mut().push(wake.clone());
        Some(wake)
    }

    /// Forgets the wake sockets of a table; their connections are ended.
    pub fn drop_table(&self, world: &dyn World, table: u32) {
        let mut gone = Vec::new();
        self.wakes.borrow_mut().retain(|w| {
            if w.table == table {
                w.closed.set(true);
                gone.push(w.port);
            }
            w.table != table
        });
        for (port, number) in self.connections.borrow().iter() {
            if gone.contains(port) {
                world.to_compute(&Record::Close { connection: *number });
            }
        }
    }

    /// Wakes whoever waits there.
    pub fn ring(&self, world: &dyn World, wake: &Wake) {
        if wake.outstanding.get() == 0 {
            wake.rung.set(world.now());
        }
        wake.outstanding.set(wake.outstanding.get().saturating_add(1));
        let connections = self.connections.borrow();
        if let Some((_, number)) = connections.iter().find(|(p, _)| *p == wake.port) {
            send(world, *number);
        }
    }
}

fn send(world: &dyn World, connection: Connection) {
    if let Some(bytes) = Bytes::new(&[1]) {
        world.to_compute(&Record::Send { connection, bytes });
    }
}

/// A wake socket in use by one call.
#[derive(Debug)]
pub struct WakeLease(Rc<Wake>);

impl WakeLease {
    /// Takes a free one.
    #[must_use]
    pub fn take(wakes: &[Rc<Wake>]) -> Option<Self> {
        let free = wakes.iter().find(|w| !w.busy.get() && !w.closed.get())?;
        free.busy.set(true);
        Some(Self(free.clone()))
    }

    /// The socket.
    #[must_use]
    pub fn wake(&self) -> &Rc<Wake> {
        &self.0
    }
}

impl Drop for WakeLease {
    fn drop(&mut self) {
        self.0.busy.set(false);
    }
}
