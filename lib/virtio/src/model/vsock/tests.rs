use super::packet::{HEADER, Header, op};
use super::*;
use crate::tests::{Driver, MODERN, published, start};
use crate::{Asked, Bars, Function, PciFunction};
use memory::Fake;
use proptest::prelude::*;
use wire::vsock::WAKE_PORT;

const CID: u64 = 3;
/// The guest's buffers for packets it sends, and for those it receives.
const OUT: u64 = 0x8000;
const IN: u64 = 0xa000;
const BUFFER_SIZE: u64 = 0x200;

/// A guest's vsock driver, a model, and the relay's ears.
struct World {
    function: Function<Vsock>,
    receive: Driver,
    transmit: Driver,
    memory: Fake,
    records: Vec<Record>,
    /// The relay takes records.
    listening: bool,
}

impl World {
    fn new() -> Self {
        let memory = Fake::new(1 << 20);
        let mut function = Function::new(
            Vsock::new(CID, WAKE_PORT),
            Bars::Split { ports: 0xc100, memory: 0xe000_1000 },
        );
        start(&mut function, MODERN);
        let (receive, transmit) = (Driver::new(&memory, 0), Driver::new(&memory, 1));
        let mut world =
            Self { function, receive, transmit, memory, records: Vec::new(), listening: true };
        for n in 0..8 {
            world.offer(n);
        }
        world
    }

    fn offer(&mut self, n: u16) {
        let address = IN + u64::from(n) * BUFFER_SIZE;
        self.receive.buffer(n, address, BUFFER_SIZE as u32, true);
    }

    fn run(&mut self) {
        let Self { function, memory, records, listening, .. } = self;
        let Function { model, queues, .. } = &mut *function;
        model.run(queues, memory, |record| {
            if *listening {
                records.push(*record);
            }
            *listening
        });
        let _ = published(function, memory);
    }

    fn header(guest_port: u32, operation: u16) -> Header {
        Header {
            source_cid: CID,
            destination_cid: HOST_CID,
            source_port: guest_port,
            destination_port: WAKE_PORT,
            kind: STREAM,
            operation,
            buffer: 1 << 16,
            ..Header::default()
        }
    }

    fn send(&mut self, header: Header, bytes: &[u8]) {
        self.memory.write(OUT, &header.encode()).expect("inside");
        self.memory.write(OUT + HEADER as u64, bytes).expect("inside");
        self.transmit.buffer(0, OUT, (HEADER + bytes.len()) as u32, false);
        self.run();
        assert!(self.transmit.reap().is_some() || !self.listening);
    }

    /// The next packet that the guest receives.
    fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let (n, length) = self.receive.reap()?;
        let raw = self.receive.bytes(IN + u64::from(n) * BUFFER_SIZE, length as usize);
        self.offer(n);
        let header = Header::decode(raw[..HEADER].try_into().expect("a header"));
        assert_eq!(header.length as usize, length as usize - HEADER);
        Some((header, raw[HEADER..].to_vec()))
    }

    fn received(&mut self) -> Vec<u16> {
        let mut operations = Vec::new();
        loop {
            self.run();
            match self.receive() {
                Some((header, _)) => operations.push(header.operation),
                None => return operations,
            }
        }
    }

    fn connect(&mut self, guest_port: u32) -> Connection {
        self.send(Self::header(guest_port, op::REQUEST), &[]);
        let (answer, _) = self.receive().expect("an answer");
        assert_eq!(answer.operation, op::RESPONSE);
        assert_eq!((answer.source_port, answer.destination_port), (WAKE_PORT, guest_port));
        assert_eq!((answer.source_cid, answer.destination_cid), (HOST_CID, CID));
        match self.records.pop() {
            Some(Record::Connected { connection, port: WAKE_PORT, guest_port: g }) => {
                assert_eq!(g, guest_port);
                connection
            }
            other => panic!("{other:?}"),
        }
    }
}

fn bytes(of: &[u8]) -> Bytes {
    Bytes::new(of).expect("short")
}

#[test]
fn a_connection_lives_and_dies() {
    let mut world = World::new();
    let connection = world.connect(1000);
    let header = Header { length: 3, ..World::header(1000, op::RW) };
    world.send(header, b"abc");
    assert_eq!(world.records.pop(), Some(Record::Data { connection, bytes: bytes(b"abc") }));

    world.function.model.request(&Record::Send { connection, bytes: bytes(b"!") });
    world.run();
    let (packet, payload) = world.receive().expect("a packet");
    assert_eq!((packet.operation, packet.forwarded, &payload[..]), (op::RW, 3, &b"!"[..]));

    world.send(Header { flags: 3, ..World::header(1000, op::SHUTDOWN) }, &[]);
    assert_eq!(world.records.pop(), Some(Record::Closed { connection }));
    assert_eq!(world.received(), [op::RST]);
    assert_eq!(world.function.model.connections(), 0);
    // What comes late for it is refused, without an answer to the refusal.
    world.function.model.request(&Record::Send { connection, bytes: bytes(b"!") });
    world.send(Header { length: 1, ..World::header(1000, op::RW) }, b"x");
    assert_eq!(world.received(), [op::RST]);
    world.send(World::header(1000, op::RST), &[]);
    assert_eq!(world.received(), []);
    assert_eq!(world.records, []);
}

#[test]
fn only_the_one_port_of_the_host_exists() {
    let mut world = World::new();
    let good = World::header(1, op::REQUEST);
    for header in [
        Header { destination_port: 2, ..good },
        Header { destination_cid: 4, ..good },
        Header { kind: 2, ..good },
    ] {
        world.send(header, &[]);
        let (answer, _) = world.receive().expect("an answer");
        assert_eq!(answer.operation, op::RST);
        assert_eq!(answer.source_port, header.destination_port);
        assert_eq!(answer.source_cid, header.destination_cid);
    }
    world.send(Header { source_cid: 4, ..good }, &[]);
    assert_eq!(world.received(), []);
    assert_eq!(world.records, []);
}

#[test]
fn the_relay_can_close() {
    let mut world = World::new();
    let connection = world.connect(7);
    world.function.model.request(&Record::Send { connection, bytes: bytes(b"last") });
    world.function.model.request(&Record::Close { connection });
    assert_eq!(world.received(), [op::RW, op::SHUTDOWN]);
    assert_eq!(world.records.pop(), Some(Record::Closed { connection }));
    let again = world.connect(7);
    assert_ne!(again, connection);
    // A second request on a connection breaks the rules.
    world.send(World::header(7, op::REQUEST), &[]);
    assert_eq!(world.received(), [op::RST]);
    assert_eq!(world.records, [Record::Closed { connection: again }]);
}

#[test]
fn bytes_wait_for_credit() {
    let mut world = World::new();
    world.send(Header { buffer: 2, ..World::header(9, op::REQUEST) }, &[]);
    let _ = world.receive();
    let Some(Record::Connected { connection, .. }) = world.records.pop() else { panic!() };
    world.function.model.request(&Record::Send { connection, bytes: bytes(b"abcd") });
    world.run();
    assert_eq!(world.receive().expect("part").1, b"ab");
    assert_eq!(world.receive(), None);
    world.send(Header { buffer: 2, forwarded: 1, ..World::header(9, op::CREDIT_UPDATE) }, &[]);
    assert_eq!(world.receive().expect("part").1, b"c");
    assert_eq!(world.receive(), None);
    // A guest that never takes anything loses the connection in the end.
    let mut closed = false;
    for _ in 0..100 {
        world.function.model.request(&Record::Send { connection, bytes: bytes(&[1; 64]) });
        world.run();
        closed |= world.records.pop() == Some(Record::Closed { connection });
    }
    assert!(closed);
}

#[test]
fn credit_is_given_back() {
    let mut world = World::new();
    let connection = world.connect(5);
    let mut updates = 0;
    for _ in 0..100 {
        world.send(Header { length: 100, ..World::header(5, op::RW) }, &[1; 100]);
        updates += world.received().iter().filter(|o| **o == op::CREDIT_UPDATE).count();
    }
    assert_eq!(updates, 10_000 / 2048);
    let taken: usize = world
        .records
        .iter()
        .map(|r| if let Record::Data { bytes, .. } = r { bytes.as_slice().len() } else { 0 })
        .sum();
    assert_eq!(taken, 10_000);
    world.send(World::header(5, op::CREDIT_REQUEST), &[]);
    assert_eq!(world.receive().map(|p| (p.0.operation, p.0.forwarded)), Some((6, 10_000)));
    // More than the buffer at once breaks the rules.
    world.records.clear();
    world.send(Header { length: 5000, ..World::header(5, op::RW) }, &[1; 5000]);
    assert_eq!(world.records, [Record::Closed { connection }]);
}

#[test]
fn a_deaf_relay_stalls_the_guest_and_nothing_is_lost() {
    let mut world = World::new();
    world.listening = false;
    for port in 0..2 * STALL as u32 {
        world.send(World::header(port, op::REQUEST), &[]);
        while world.receive().is_some() {}
        if world.function.model.records.len() >= STALL {
            break;
        }
    }
    let before = world.function.model.connections();
    assert_eq!(before, STALL);
    world.send(World::header(9999, op::REQUEST), &[]);
    assert_eq!(world.function.model.connections(), STALL);
    world.listening = true;
    world.run();
    assert_eq!(world.records.len(), STALL + 1);
    assert_eq!(world.function.model.connections(), STALL + 1);
}

#[test]
fn the_end_is_told_of_connections_that_others_had() {
    let mut world = World::new();
    world.function.power_off();
    world.run();
    assert_eq!(world.records, []);
    world.function.model.expect_connections();
    world.function.power_off();
    world.run();
    assert_eq!(world.records, [Record::Ended]);
}

#[test]
fn a_reset_ends_everything() {
    let mut world = World::new();
    let connection = world.connect(5);
    assert_eq!(world.function.port_write(20, 1, 0), Asked::Reset);
    world.run();
    assert_eq!(world.records, [Record::Ended]);
    world.function.model.request(&Record::Send { connection, bytes: bytes(b"x") });
    assert_eq!(world.function.model.connections(), 0);
}

#[test]
fn thousands_of_connections_are_served_and_too_many_refused() {
    let mut world = World::new();
    for port in 0..socket::MAX_SOCKETS as u32 {
        world.connect(port);
    }
    world.send(World::header(u32::MAX, op::REQUEST), &[]);
    assert_eq!(world.received(), [op::RST]);
    assert_eq!(world.function.model.connections(), socket::MAX_SOCKETS);
}

#[derive(Clone, Debug)]
enum Step {
    Packet { port: u32, operation: u16, length: u32, flags: u32, buffer: u32, forwarded: u32 },
    Send(u32),
    Close(u32),
    Listen(bool),
    Receive,
}

fn any_step() -> impl Strategy<Value = Step> {
    let small = || prop_oneof![4 => 0u32..80, 1 => any::<u32>()];
    let packet = (0u32..4, 0u16..9, small(), 0u32..5, small(), small()).prop_map(
        |(port, operation, length, flags, buffer, forwarded)| Step::Packet {
            port,
            operation,
            length,
            flags,
            buffer,
            forwarded,
        },
    );
    prop_oneof![
        8 => packet,
        2 => (0u32..8).prop_map(Step::Send),
        1 => (0u32..8).prop_map(Step::Close),
        1 => any::<bool>().prop_map(Step::Listen),
        4 => Just(Step::Receive),
    ]
}

proptest! {
    /// Whatever guest and relay do: no number is used again before it was closed, records speak
    /// of open connections only, and what waits stays bounded.
    #[test]
    fn any_order_of_events_keeps_the_books(steps in prop::collection::vec(any_step(), 0..300)) {
        let mut world = World::new();
        let mut open: Vec<Connection> = Vec::new();
        let mut known: Vec<Connection> = Vec::new();
        for step in steps {
            match step {
                Step::Packet { port, operation, length, flags, buffer, forwarded } => {
                    let header = Header {
                        length, flags, buffer, forwarded, ..World::header(port, operation)
                    };
                    world.send(header, &[0; 80]);
                    while world.transmit.reap().is_some() {}
                }
                Step::Send(n) => if let Some(connection) = known.get(n as usize) {
                    let connection = *connection;
                    world.function.model.request(&Record::Send { connection, bytes: bytes(b"yy") });
                },
                Step::Close(n) => if let Some(connection) = known.get(n as usize) {
                    world.function.model.request(&Record::Close { connection: *connection });
                },
                Step::Listen(listening) => world.listening = listening,
                Step::Receive => { let _ = world.receive(); }
            }
            world.run();
            for record in std::mem::take(&mut world.records) {
                match record {
                    Record::Connected { connection, .. } => {
                        prop_assert!(!open.contains(&connection));
                        open.push(connection);
                        known.push(connection);
                    }
                    Record::Data { connection, .. } => prop_assert!(open.contains(&connection)),
                    Record::Closed { connection } => {
                        prop_assert!(open.contains(&connection));
                        open.retain(|c| *c != connection);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert!(world.function.model.outgoing.len() < 2 * STALL);
            prop_assert!(!world.function.queues[1].is_broken());
        }
        world.listening = true;
        world.run();
    }
}
