//! Models of devices in front of a guest that does anything.
use apic::Apic;
use arbitrary::{Arbitrary, Unstructured};
use memory::{Fake, Memory};
use virtio::model::{Console, Entropy, Net, Pmem, Vsock};
use virtio::{Asked, Bars, Function, Model, PciFunction};
use wire::vsock::{Bytes, Connection, Record};

const RAM: usize = 0x8000;

/// What a driver does.
#[derive(Arbitrary, Debug)]
enum Step {
    Space {
        offset: u8,
        length: u8,
        value: u32,
    },
    Port {
        offset: u8,
        length: u8,
        value: u32,
    },
    /// One of the registers that places a queue.
    Queue {
        register: u8,
        value: u16,
    },
    Table {
        offset: u8,
        length: u8,
        value: u32,
    },
    Memory {
        word: u16,
        value: u16,
    },
    /// A descriptor with sensible numbers.
    Describe {
        queue: u8,
        number: u8,
        page: u8,
        length: u16,
        flags: u8,
        next: u8,
    },
    /// One more entry of an available ring.
    Offer {
        queue: u8,
        number: u8,
    },
    Status(u8),
    Answer {
        connection: u8,
        length: u8,
        close: bool,
    },
    Look,
}

/// A device of one kind, chosen by the first byte, and the driver's steps. With that byte's highest bit its registers are all in
/// memory, and another device takes over after each step.
pub fn virtio(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let bytes = (bytes, kind >> 7 == 1);
    match kind % 128 % 5 {
        0 => drive(Console::default, bytes, |f, memory, _| {
            f.model.output(&mut f.queues, memory, |bytes| bytes.len() / 2);
            f.model.input(&mut f.queues, memory, &[7; 40]);
        }),
        1 => drive(Entropy::default, bytes, |f, memory, _| {
            f.model.serve(&mut f.queues, memory, |bytes| bytes.fill(9));
        }),
        2 => drive(
            || Net::new([2; 6]),
            bytes,
            |f, memory, _| {
                f.model.output(&mut f.queues, memory, |frame| frame.len() % 5 != 0);
                f.model.can_input(&mut f.queues, memory);
                f.model.input(&mut f.queues, memory, &[1; 100]);
            },
        ),
        3 => drive(
            || Pmem::new(1 << 32..5 << 30),
            bytes,
            |f, memory, _| {
                f.model.serve(&mut f.queues, memory);
            },
        ),
        _ => drive(
            || Vsock::new(3, 1),
            bytes,
            |f, memory, record| {
                if let Some(record) = record {
                    f.model.request(record);
                }
                let mut room = 20;
                f.model.run(&mut f.queues, memory, |_| {
                    room -= 1;
                    room > 0
                });
            },
        ),
    }
}

/// Where queue `n` is put by a driver in its right mind.
fn place(queue: u8) -> u64 {
    0x1000 * (u64::from(queue % 3) + 1)
}

const SIZE: u16 = 8;

fn start<D: Model>(function: &mut Function<D>) {
    function.write_space(0x42, 2, 0x8000);
    for (offset, length, value) in
        [(20, 1, 1), (20, 1, 3), (8, 4, 0), (12, 4, 3 << 28), (8, 4, 1), (12, 4, 1), (20, 1, 11)]
    {
        function.port_write(offset, length, value);
    }
    for queue in 0..D::QUEUES.len() as u8 {
        let at = place(queue) as u32;
        for (offset, length, value) in [
            (22, 2, queue.into()),
            (24, 2, SIZE.into()),
            (32, 4, at),
            (36, 4, 0),
            (40, 4, at + 0x400),
            (44, 4, 0),
            (48, 4, at + 0x800),
            (52, 4, 0),
            (28, 2, 1),
        ] {
            function.port_write(offset, length, value);
        }
    }
    function.port_write(20, 1, 15);
}

fn drive<D: Model>(
    model: impl Fn() -> D,
    (bytes, changing): (&[u8], bool),
    mut work: impl FnMut(&mut Function<D>, &Fake, Option<&Record>),
) {
    let memory = Fake::new(RAM);
    let bars = match changing {
        true => Bars::Window { at: 0xe800_2000 },
        false => Bars::Split { ports: 0xc100, memory: 0xe000_1000 },
    };
    let fresh = || Function::new(model(), bars);
    let mut function = fresh();
    start(&mut function);
    let mut input = Unstructured::new(bytes);
    for _ in 0..200 {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        let record = take(&mut function, &memory, &step);
        work(&mut function, &memory, record.as_ref());
        function.publish(&memory, &mut |_| {});
        while function.msix().next_unmasked().is_some() {}
        if changing {
            let mut notes = function.notes();
            let mut next = fresh();
            assert!(next.recall(&notes), "what a driver can bring about is taken up");
            assert_eq!(next.notes(), notes);
            if let Step::Memory { word, value } = step {
                // Somebody has written over them.
                let place = usize::from(word) % notes.len();
                notes[place] ^= u64::from(value) << (word % 49);
                let mut other = fresh();
                if other.recall(&notes) {
                    let memory = copied(&memory);
                    work(&mut other, &memory, None);
                    other.publish(&memory, &mut |_| {});
                }
            }
            // What it knows beside the registers, if anything, is nobody's who takes over.
            core::mem::swap(&mut next.model, &mut function.model);
            function = next;
        }
        if input.is_empty() {
            break;
        }
    }
}

fn copied(memory: &Fake) -> Fake {
    let mut bytes = vec![0; RAM];
    let copy = Fake::new(RAM);
    let done = memory.read(0, &mut bytes).and_then(|()| copy.write(0, &bytes));
    assert!(done.is_ok());
    copy
}

/// Carries a step out; a record for the sockets, if that is what it is.
fn take<D: Model>(function: &mut Function<D>, memory: &Fake, step: &Step) -> Option<Record> {
    match *step {
        Step::Space { offset, length, value } => {
            function.write_space(offset, length, value);
            let _ = function.space().read(offset, length);
        }
        Step::Port { offset, length, value } => {
            let asked = function.port_write(offset.into(), length, value);
            assert!(asked != Asked::Started || function.is_running());
            let _ = function.port_read(offset.into(), length);
        }
        Step::Queue { register, value } => {
            let offset = 22 + u16::from(register % 17) * 2;
            function.port_write(offset, 2, value.into());
        }
        Step::Table { offset, length, value } => {
            function.msix().write(offset.into(), length, value.into());
            let _ = function.msix().read(offset.into(), length);
            let at = u64::from(value) << 4 | u64::from(offset);
            function.memory_write(at, length, at);
            let _ = function.memory_read(at, length);
        }
        Step::Memory { word, value } => {
            let _ = memory.write(u64::from(word) * 2 % RAM as u64, &value.to_le_bytes());
        }
        Step::Describe { queue, number, page, length, flags, next } => {
            let at = place(queue) + 16 * u64::from(number % SIZE as u8);
            let address = 0x5000 + u64::from(page) * 0x20;
            let _ = memory.write(at, &address.to_le_bytes());
            let _ = memory.write(at + 8, &u32::from(length).to_le_bytes());
            let _ = memory.write(at + 12, &[flags % 8, 0, next % 9, 0]);
        }
        Step::Offer { queue, number } => offer(memory, queue, number),
        Step::Status(value) => {
            function.port_write(20, 1, value.into());
            if value == 0 {
                start(function);
            }
        }
        Step::Answer { connection, length, close } => {
            let connection = Connection(connection.into());
            let bytes = Bytes::new([5; 64].get(..usize::from(length % 65))?)?;
            return Some(match close {
                true => Record::Close { connection },
                false => Record::Send { connection, bytes },
            });
        }
        Step::Look => {}
    }
    None
}

fn offer(memory: &Fake, queue: u8, number: u8) {
    let ring = place(queue) + 0x400;
    let index = memory.read16(ring + 2).unwrap_or(0);
    let _ = memory.write(ring + 4 + 2 * u64::from(index % SIZE), &u16::from(number).to_le_bytes());
    let _ = memory.write(ring + 2, &index.wrapping_add(1).to_le_bytes());
}

/// What a guest and the world around it do with a local APIC.
#[derive(Arbitrary, Debug)]
enum Event {
    Write { register: u8, value: u64 },
    Deadline(u64),
    Message { address: u32, data: u32 },
    Raise(u8),
    Accept,
    End,
    Pass(u32),
}

/// The register of the task priority.
const TASK_PRIORITY: u32 = 0x808;

/// Vectors are accepted only above the processor's priority; time goes only forward.
pub fn apic(bytes: &[u8]) {
    let mut apic = Apic::new();
    let mut now = 0u64;
    let mut input = Unstructured::new(bytes);
    let _ = apic.write(0x80f, 0x1ff, now);
    for _ in 0..500 {
        let Ok(event) = Event::arbitrary(&mut input) else { break };
        match event {
            Event::Write { register, value } => {
                let _ = apic.write(0x800 + u32::from(register), value, now);
                let _ = apic.read(0x800 + u32::from(register), now);
            }
            Event::Deadline(value) => {
                let _ = apic.write(apic::MSR_TSC_DEADLINE, value, now);
            }
            Event::Message { address, data } => {
                apic.message(0xfee0_0000 | u64::from(address & 0xf_ffff), data);
            }
            Event::Raise(vector) => apic.raise(vector),
            Event::Accept => {
                let priority = apic.read(TASK_PRIORITY, now).unwrap_or(0) & 0xf0;
                let promised = apic.pending();
                let vector = apic.accept();
                assert_eq!(vector, promised);
                assert!(vector.is_none_or(|v| u64::from(v & 0xf0) > priority));
            }
            Event::End => apic.end_of_interrupt(),
            Event::Pass(time) => {
                now = now.saturating_add(time.into());
                apic.expire(now);
                assert!(apic.next_deadline().is_none_or(|next| next > now), "at {now}");
            }
        }
        let _ = (apic.serves_last(), apic.has_requests(), apic.take_nmi());
        if input.is_empty() {
            break;
        }
    }
}
