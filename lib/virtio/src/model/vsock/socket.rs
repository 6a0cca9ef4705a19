//! The connections of a guest.
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use wire::vsock::{Bytes, Connection, MAX_BYTES};

/// Most connections of one guest.
pub const MAX_SOCKETS: usize = 1 << INDEX_BITS;
/// Bits of a connection's number that are its place; the others count how often it was used.
const INDEX_BITS: u32 = 14;
/// Most bytes that wait for the guest's credit.
const MAX_WAITING: usize = 4096;
/// `flags` of `SHUTDOWN`: the guest will not receive any more.
const SHUT_RECEIVE: u32 = 1;

/// The host's end of a connection.
#[derive(Debug)]
pub struct Socket {
    /// The guest's port.
    pub guest_port: u32,
    /// Directions that the guest has shut down.
    pub shut: u32,
    /// Bytes taken from the guest so far, modulo 2³².
    pub taken: u32,
    /// `taken` as the guest last heard it.
    pub reported: u32,
    /// Bytes sent to the guest so far, modulo 2³².
    sent: u32,
    /// Size of the guest's buffer.
    buffer: u32,
    /// Bytes that the guest has taken out of it so far, modulo 2³².
    forwarded: u32,
    waiting: VecDeque<u8>,
}

impl Socket {
    /// A new connection; the guest said this of its buffer.
    pub fn new(guest_port: u32, buffer: u32, forwarded: u32) -> Self {
        Self {
            guest_port,
            shut: 0,
            taken: 0,
            reported: 0,
            sent: 0,
            buffer,
            forwarded,
            waiting: VecDeque::new(),
        }
    }

    /// The guest says this of its buffer now.
    pub fn set_credit(&mut self, buffer: u32, forwarded: u32) {
        self.buffer = buffer;
        self.forwarded = forwarded;
    }

    /// Queues bytes for the guest; false when too many wait already.
    pub fn queue(&mut self, bytes: &[u8]) -> bool {
        if self.waiting.len() + bytes.len() > MAX_WAITING {
            return false;
        }
        if self.shut & SHUT_RECEIVE == 0 {
            self.waiting.extend(bytes);
        }
        true
    }

    /// The next bytes that may be sent, counted as sent.
    pub fn next_bytes(&mut self) -> Option<Bytes> {
        // A guest that claims to have taken more than it was sent gets a credit of nothing.
        let credit = self.buffer.saturating_sub(self.sent.wrapping_sub(self.forwarded)) as usize;
        let length = self.waiting.len().min(credit).min(MAX_BYTES);
        if length == 0 {
            return None;
        }
        let mut raw = [0; MAX_BYTES];
        for (to, from) in raw.iter_mut().zip(self.waiting.drain(..length)) {
            *to = from;
        }
        self.sent = self.sent.wrapping_add(length as u32);
        Bytes::new(raw.get(..length)?)
    }
}

/// All connections, by number and by guest port.
#[derive(Default, Debug)]
pub struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_port: BTreeMap<u32, Connection>,
}

#[derive(Debug)]
struct Slot {
    uses: u32,
    socket: Option<Socket>,
}

fn place(connection: Connection) -> usize {
    connection.0 as usize & (MAX_SOCKETS - 1)
}

impl Sockets {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_port.len()
    }

    /// Adds one and numbers it; `None` when there are too many, or the guest's port has one.
    pub fn insert(&mut self, socket: Socket) -> Option<Connection> {
        if self.by_port.contains_key(&socket.guest_port) {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < MAX_SOCKETS => {
                self.slots.push(Slot { uses: 0, socket: None });
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let slot = self.slots.get_mut(index as usize)?;
        slot.uses = slot.uses.wrapping_add(1);
        let connection = Connection(slot.uses << INDEX_BITS | index);
        self.by_port.insert(socket.guest_port, connection);
        slot.socket = Some(socket);
        Some(connection)
    }

    /// The connection of a guest's port.
    pub fn find(&self, guest_port: u32) -> Option<Connection> {
        self.by_port.get(&guest_port).copied()
    }

    fn slot(&mut self, connection: Connection) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(place(connection))?;
        let uses = connection.0 >> INDEX_BITS;
        (slot.uses & (u32::MAX >> INDEX_BITS) == uses).then_some(slot)
    }

    /// The connection of that number.
    pub fn get_mut(&mut self, connection: Connection) -> Option<&mut Socket> {
        self.slot(connection)?.socket.as_mut()
    }

    /// Takes a connection out.
    pub fn remove(&mut self, connection: Connection) -> Option<Socket> {
        let socket = self.slot(connection)?.socket.take()?;
        self.by_port.remove(&socket.guest_port);
        self.free.push(place(connection) as u32);
        Some(socket)
    }

    /// Ends all; their numbers are not used again soon.
    pub fn clear(&mut self) {
        self.by_port.clear();
        self.free.clear();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.socket = None;
            self.free.push(index as u32);
        }
    }
}
