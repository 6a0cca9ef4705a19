//! Virtual sockets (virtio 1.2, 5.10): the host's end of every connection is here.
//!
//! The guest connects to the one port that exists; all else is refused. What it sends becomes
//! [`Record`]s for the relay, and the relay's records become packets. Bytes are few (wake bytes
//! and doorbells), connections may be thousands.
//!
//! Memory is bounded: while too many packets wait for the guest's buffers, or too many records
//! for the relay, no more of the guest's packets are taken.

mod packet;
mod socket;

pub use packet::{HEADER, Header, op};

use crate::{Chain, DEVICE_CONFIG, MAX_SIZE, Model, Queue};
use alloc::collections::VecDeque;
use memory::Memory;
use packet::{Packet, SHUTDOWN_BOTH, STREAM};
use socket::{Socket, Sockets};
use wire::vsock::{Bytes, Connection, MAX_BYTES, Record};

/// Context of the host.
pub const HOST_CID: u64 = 2;
/// What the guest may send before it has been told that something was taken.
const BUFFER: u32 = 4096;
/// Credit is reported when this much has been taken since the last report.
const REPORT: u32 = BUFFER / 2;
/// Waiting packets or records at which no more of the guest's packets are taken.
const STALL: usize = 256;
/// Packets of the guest for one interrupt: Linux's driver only frees their memory then, and an
/// interrupt more in front of an answer doubles its way.
const COALESCE: u16 = 32;
/// Waiting packets at which the relay's bytes end their connection: a guest that leaves that many
/// unread has stopped.
const OVERRUN: usize = 8192;

/// The model.
#[derive(Debug)]
pub struct Vsock {
    cid: u64,
    port: u32,
    sockets: Sockets,
    /// The relay has heard of connections since it heard of the VM's end.
    used: bool,
    outgoing: VecDeque<Packet>,
    records: VecDeque<Record>,
    chain: Chain,
}

impl Model for Vsock {
    const TYPE: u16 = 19;
    const CLASS: u32 = 0x07_8000;
    const QUEUES: &'static [u16] = &[MAX_SIZE, MAX_SIZE, 8];

    fn configuration(&self, into: &mut [u8; DEVICE_CONFIG]) {
        into[..8].copy_from_slice(&self.cid.to_le_bytes());
    }

    fn reset(&mut self) {
        self.outgoing.clear();
        self.records.clear();
        if self.used {
            self.records.push_back(Record::Ended);
        }
        self.used = false;
        self.sockets.clear();
    }
}

impl Vsock {
    /// There may be connections that this model does not know: its end is told in any case.
    pub const fn expect_connections(&mut self) {
        self.used = true;
    }

    /// A guest with this context whose processes may connect to this port.
    #[must_use]
    pub fn new(cid: u64, port: u32) -> Self {
        Self {
            cid,
            port,
            sockets: Sockets::default(),
            used: false,
            outgoing: VecDeque::new(),
            records: VecDeque::new(),
            chain: Chain::new(),
        }
    }

    /// Connections that exist now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.sockets.count()
    }

    fn report(&mut self, mut sink: impl FnMut(&Record) -> bool) {
        while let Some(record) = self.records.front()
            && sink(record)
        {
            self.records.pop_front();
        }
    }

    /// Does all that can be done now: takes the guest's packets, hands records to `sink` as long
    /// as it answers true, and fills the guest's buffers.
    pub fn run<M: Memory>(
        &mut self,
        queues: &mut [Queue],
        memory: &M,
        mut sink: impl FnMut(&Record) -> bool,
    ) {
        let [receive, transmit, ..] = queues else { return };
        loop {
            self.report(&mut sink);
            self.deliver(receive, memory);
            if !self.take(transmit, memory) {
                return;
            }
        }
    }

    /// A record of the relay; those that only a monitor sends are ignored.
    pub fn request(&mut self, record: &Record) {
        match record {
            Record::Send { connection, bytes } => self.send(*connection, *bytes),
            Record::Close { connection } => {
                if let Some(socket) = self.sockets.remove(*connection) {
                    let header = Header { flags: SHUTDOWN_BOTH, ..self.to(&socket, op::SHUTDOWN) };
                    self.outgoing.push_back(Packet { header, bytes: None });
                    self.records.push_back(Record::Closed { connection: *connection });
                }
            }
            _ => {}
        }
    }

    fn send(&mut self, connection: Connection, bytes: Bytes) {
        let overrun = self.outgoing.len() >= OVERRUN;
        let Some(socket) = self.sockets.get_mut(connection) else { return };
        if overrun || !socket.queue(bytes.as_slice()) {
            self.end(connection);
            return;
        }
        self.send_queued(connection);
    }

    /// Sends what a connection's credit allows of what waits for it.
    fn send_queued(&mut self, connection: Connection) {
        loop {
            let Some(socket) = self.sockets.get_mut(connection) else { return };
            let Some(bytes) = socket.next_bytes() else { return };
            let header = header(self.cid, self.port, socket, op::RW);
            let header = Header { length: bytes.as_slice().len() as u32, ..header };
            self.outgoing.push_back(Packet { header, bytes: Some(bytes) });
        }
    }

    /// Ends a connection towards both sides.
    fn end(&mut self, connection: Connection) {
        if let Some(socket) = self.sockets.remove(connection) {
            let header = self.to(&socket, op::RST);
            self.outgoing.push_back(Packet { header, bytes: None });
            self.records.push_back(Record::Closed { connection });
        }
    }

    fn to(&self, socket: &Socket, operation: u16) -> Header {
        header(self.cid, self.port, socket, operation)
    }

    fn control(&mut self, connection: Connection, operation: u16) {
        let (cid, port) = (self.cid, self.port);
        if let Some(socket) = self.sockets.get_mut(connection) {
            socket.reported = socket.taken;
            let header = header(cid, port, socket, operation);
            self.outgoing.push_back(Packet { header, bytes: None });
        }
    }

    /// Puts waiting packets into the guest's buffers.
    fn deliver<M: Memory>(&mut self, queue: &mut Queue, memory: &M) {
        while let Some(packet) = self.outgoing.front() {
            if !queue.pop(memory, &mut self.chain) {
                if queue.listen(memory) {
                    continue;
                }
                return;
            }
            let bytes = packet.bytes.as_ref().map_or(&[][..], Bytes::as_slice);
            let total = HEADER + bytes.len();
            if self.chain.writable_length() < total as u64 {
                // No driver offers such a buffer: it is given back empty.
                queue.push(memory, &self.chain, 0);
                continue;
            }
            let both = self.chain.write(memory, 0, &packet.header.encode()).is_ok()
                && self.chain.write(memory, HEADER as u64, bytes).is_ok();
            queue.push(memory, &self.chain, if both { total as u32 } else { 0 });
            self.outgoing.pop_front();
        }
    }

    /// Takes the guest's packets; true when it took any, false when there is nothing to do before
    /// the guest kicks or one of the two sides makes room.
    fn take<M: Memory>(&mut self, queue: &mut Queue, memory: &M) -> bool {
        let mut any = false;
        queue.coalesce(COALESCE);
        queue.quiet(memory);
        loop {
            if self.outgoing.len() >= STALL || self.records.len() >= STALL {
                return any;
            }
            if queue.pop(memory, &mut self.chain) {
                any = true;
                let chain = core::mem::take(&mut self.chain);
                self.take_packet(memory, &chain);
                queue.push(memory, &chain, 0);
                self.chain = chain;
            } else if !queue.listen(memory) {
                return any;
            }
        }
    }

    fn take_packet<M: Memory>(&mut self, memory: &M, chain: &Chain) {
        let mut raw = [0; HEADER];
        if chain.read(memory, 0, &mut raw) != Ok(HEADER) {
            return;
        }
        let header = Header::decode(&raw);
        if header.source_cid != self.cid {
            return;
        }
        let here = header.destination_cid == HOST_CID
            && header.destination_port == self.port
            && header.kind == STREAM;
        let connection = here.then(|| self.sockets.find(header.source_port)).flatten();
        match connection {
            Some(connection) => self.connected_packet(memory, chain, &header, connection),
            None if here && header.operation == op::REQUEST => self.accept(&header),
            None if header.operation != op::RST => self.refuse(&header),
            None => {}
        }
    }

    fn accept(&mut self, header: &Header) {
        let guest_port = header.source_port;
        let socket = Socket::new(guest_port, header.buffer, header.forwarded);
        let Some(connection) = self.sockets.insert(socket) else {
            return self.refuse(header);
        };
        let port = self.port;
        self.used = true;
        self.records.push_back(Record::Connected { connection, port, guest_port });
        self.control(connection, op::RESPONSE);
    }

    /// Answers a packet for no connection.
    fn refuse(&mut self, header: &Header) {
        let answer = Header {
            source_cid: header.destination_cid,
            destination_cid: self.cid,
            source_port: header.destination_port,
            destination_port: header.source_port,
            kind: header.kind,
            operation: op::RST,
            ..Header::default()
        };
        self.outgoing.push_back(Packet { header: answer, bytes: None });
    }

    fn connected_packet<M: Memory>(
        &mut self,
        memory: &M,
        chain: &Chain,
        header: &Header,
        connection: Connection,
    ) {
        let Some(socket) = self.sockets.get_mut(connection) else { return };
        socket.set_credit(header.buffer, header.forwarded);
        match header.operation {
            op::RW => {
                if !self.take_bytes(memory, chain, header.length, connection) {
                    return self.end(connection);
                }
            }
            op::CREDIT_UPDATE => {}
            op::CREDIT_REQUEST => self.control(connection, op::CREDIT_UPDATE),
            op::SHUTDOWN => {
                socket.shut |= header.flags & SHUTDOWN_BOTH;
                if socket.shut == SHUTDOWN_BOTH {
                    return self.end(connection);
                }
            }
            op::RST => {
                self.sockets.remove(connection);
                self.records.push_back(Record::Closed { connection });
                return;
            }
            _ => return self.end(connection),
        }
        self.send_queued(connection);
    }

    /// The payload of an `RW` packet; false when it breaks the rules.
    fn take_bytes<M: Memory>(
        &mut self,
        memory: &M,
        chain: &Chain,
        length: u32,
        connection: Connection,
    ) -> bool {
        if length > BUFFER {
            return false;
        }
        let mut bytes = [0; BUFFER as usize];
        let bytes = &mut bytes[..length as usize];
        if chain.read(memory, HEADER as u64, bytes) != Ok(bytes.len()) {
            return false;
        }
        for part in bytes.chunks(MAX_BYTES) {
            if let Some(bytes) = Bytes::new(part) {
                self.records.push_back(Record::Data { connection, bytes });
            }
        }
        let Some(socket) = self.sockets.get_mut(connection) else { return false };
        socket.taken = socket.taken.wrapping_add(length);
        if socket.taken.wrapping_sub(socket.reported) >= REPORT {
            self.control(connection, op::CREDIT_UPDATE);
        }
        true
    }
}

/// A header from the host's end of a connection.
fn header(cid: u64, port: u32, socket: &Socket, operation: u16) -> Header {
    Header {
        source_cid: HOST_CID,
        destination_cid: cid,
        source_port: port,
        destination_port: socket.guest_port,
        length: 0,
        kind: STREAM,
        operation,
        flags: 0,
        buffer: BUFFER,
        forwarded: socket.taken,
    }
}

#[cfg(test)]
mod tests;
