//! What happens to the relay.
use super::Machine;
use abi::vcpu::{ExitClass, reg};
use arbitrary::{Arbitrary, Unstructured};
use memory::Memory;
use paging::PAGE;
use wire::layout;
use wire::vsock::{Connection, Record};

/// An address.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Place {
    Code,
    Behind,
    Gate,
    GateReturn,
    Data(u16),
    Kernel,
    KernelReturn,
    Entry,
    Here,
    Stack(u16),
    Any(u64),
}

/// A register's content.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Value {
    Small(i8),
    Number(u16),
    At(Place),
    Any(u64),
}

/// What becomes of an entry of a page table.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Change {
    Bits(u16),
    Absent,
    ToItself,
    ToFrame(u16, u8),
    Any(u64),
}

/// One step.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// A program makes a call.
    Call {
        space: u8,
        thread: u8,
        number: u16,
        arguments: [Value; 6],
    },
    /// A thread that slept goes on.
    Again(u8),
    /// Any exit, in any state.
    Exit {
        class: u8,
        space: u8,
        user: bool,
        at: Place,
    },
    /// A register gets another value: 16 general ones, then others.
    Set {
        register: u8,
        value: Value,
    },
    /// A program's memory changes.
    Data {
        offset: u16,
        value: u64,
    },
    /// An address for `bind`, `connect`, `sendto` at the start of the data.
    Address {
        family: u8,
        port: u16,
        ip: [u8; 4],
    },
    /// Page tables change.
    Tables {
        space: u8,
        of: Place,
        level: u8,
        change: Change,
    },
    /// A delegate answers.
    Answer {
        worker: u8,
        later: u8,
        words: [Value; 6],
    },
    /// A word of a mailbox's head changes that the other side may write.
    Mailbox {
        worker: u8,
        word: u8,
        value: u32,
    },
    /// The fake delegates work, or don't.
    Freeze(bool),
    /// Bytes for a remote socket.
    Arrives {
        socket: u8,
        length: u16,
        end: bool,
    },
    /// A virtual socket of either VM does something.
    Record {
        service: bool,
        kind: u8,
        connection: u8,
        port: u8,
    },
    /// A hypercall of the service VM.
    Register {
        cr3: u16,
        address: u32,
    },
    Doorbell,
    Time(u32),
}

const CLASSES: [ExitClass; 13] = [
    ExitClass::Other,
    ExitClass::InvalidOpcode,
    ExitClass::Vmmcall,
    ExitClass::Cr3Write,
    ExitClass::Iret,
    ExitClass::Recall,
    ExitClass::Halt,
    ExitClass::Msr,
    ExitClass::Io,
    ExitClass::Cpuid,
    ExitClass::InterruptWindow,
    ExitClass::Error,
    ExitClass::SyscallMsr,
];

impl Machine {
    pub(super) fn value(&self, value: Value) -> u64 {
        match value {
            Value::Small(n) => i64::from(n) as u64,
            Value::Number(n) => n.into(),
            Value::At(place) => self.place(place),
            Value::Any(n) => n,
        }
    }

    /// Takes a step.
    pub(super) fn take(&mut self, step: &Step, input: &mut Unstructured<'_>) {
        match *step {
            Step::Call { space, thread, number, arguments } => {
                self.user(space, thread);
                let places = [reg::RDI, reg::RSI, reg::RDX, reg::R10, reg::R8, reg::R9];
                self.g.s.regs.r[reg::RAX] = u64::from(number % 460);
                for (place, value) in places.into_iter().zip(arguments) {
                    self.g.s.regs.r[place] = self.value(value);
                }
                self.run(input);
            }
            Step::Again(n) => {
                if self.asleep.is_empty() {
                    return;
                }
                let state = self.asleep.swap_remove(usize::from(n) % self.asleep.len());
                self.load(state.cr3);
                self.g.switch(&state);
                self.g.s.cr3 = state.cr3;
                self.run(input);
            }
            Step::Exit { class, space, user, at } => {
                self.load(self.space(space));
                self.g.s.cpl = if user { 3 } else { 0 };
                self.g.s.rip = self.place(at);
                self.exit(CLASSES[usize::from(class) % CLASSES.len()]);
                self.g.s.inject = 0;
            }
            Step::Set { register, value } => self.set(register, value),
            Step::Data { .. } | Step::Address { .. } | Step::Tables { .. } => self.spoil(step),
            _ => self.elsewhere(step),
        }
    }

    fn set(&mut self, register: u8, value: Value) {
        let value = self.value(value);
        let s = &mut self.g.s;
        match usize::from(register % 24) {
            n if n < 16 => s.regs.r[n] = value,
            16 => s.rip = value,
            17 => s.rflags = value,
            18 => s.exit_info1 = value,
            19 => s.exit_int_info = value,
            20 => s.segments[super::FS_INDEX].base = value,
            21 => s.segments[1].attributes = value as u16,
            22 => s.star = value,
            _ => s.kernel_gs_base = value,
        }
    }

    /// Steps in the compute VM's memory.
    fn spoil(&mut self, step: &Step) {
        match *step {
            Step::Data { offset, value } => {
                let at = super::DATA + u64::from(offset % 0x7ff8);
                let _ = self.tables().write_through(at, &value.to_le_bytes());
            }
            Step::Address { family, port, ip } => {
                let mut bytes = servicing::fake::address(ip, port);
                if family % 3 == 1 {
                    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
                    bytes = vec![10, 0, 0, 80, 0, 0, 0, 0];
                    bytes.extend(mapped.into_iter().chain(ip).chain([0; 4]));
                } else if family % 3 == 2 {
                    bytes[0] = family;
                }
                let _ = self.tables().write_through(super::DATA, &bytes);
            }
            Step::Tables { space, of, level, change } => {
                self.change(self.space(space), self.place(of), level, change);
            }
            _ => {}
        }
    }

    fn change(&mut self, cr3: u64, address: u64, level: u8, change: Change) {
        let memory = &self.g.world.compute;
        let (mut table, mut at) = (cr3 & !0xfff, cr3);
        for shift in [39, 30, 21, 12].into_iter().take(usize::from(level % 4) + 1) {
            at = table + (address >> shift & 511) * 8;
            let Ok(entry) = memory.read64(at) else { return };
            table = entry & 0x000f_ffff_ffff_f000;
        }
        let Ok(entry) = memory.read64(at) else { return };
        let new = match change {
            Change::Bits(bits) => entry ^ u64::from(bits & 0xfff) ^ u64::from(bits >> 12 & 1) << 63,
            Change::Absent => 0,
            Change::ToItself => at & !0xfff | 7,
            Change::ToFrame(frame, flags) => (u64::from(frame) * PAGE) | u64::from(flags),
            Change::Any(value) => value,
        };
        self.g.put(at, new);
    }

    /// Steps of the service VM and of the monitors.
    fn elsewhere(&mut self, step: &Step) {
        match *step {
            Step::Answer { worker, later, words } => self.answer_for(worker, later, words),
            Step::Mailbox { worker, word, value } => {
                // Not what the relay writes: the fake delegates trust that.
                let word = u64::from(word % 48);
                let at = if word < 32 { layout::RESPONSE_SEQUENCE } else { layout::RESPONSE - 128 };
                let Some(base) = self.worker(worker) else { return };
                let _ = self.g.world.service.write(base + at + word * 4, &value.to_le_bytes());
            }
            Step::Freeze(frozen) => self.g.world.net.frozen.set(frozen),
            Step::Arrives { socket, length, end } => {
                let mut sockets = self.g.world.net.sockets.borrow_mut();
                let n = usize::from(socket) % sockets.len().max(1);
                let Some(socket) = sockets.values_mut().nth(n) else { return };
                socket.received.extend(vec![7; usize::from(length % 5000)]);
                socket.backlog.push_back(servicing::fake::address([10, 0, 0, 9], length));
                (socket.eof, socket.arrivals) = (end, socket.arrivals + 1);
            }
            Step::Record { service, kind, connection, port } => {
                let connection = Connection(connection.into());
                let port = u32::from(port);
                let record = match kind % 8 {
                    0 => Record::Ended,
                    1..4 => Record::Closed { connection },
                    _ => Record::Connected { connection, port: port % 4, guest_port: 5000 + port },
                };
                match service {
                    true => self.g.engine.service_record(&record),
                    false => self.g.engine.compute_record(&record),
                }
            }
            Step::Register { cr3, address } => {
                let _ = self.g.engine.register(u64::from(cr3) * PAGE, address.into());
            }
            Step::Doorbell => self.g.engine.doorbell(),
            Step::Time(time) => {
                self.g.world.pass(u64::from(time) * 1000);
                let _ = self.g.engine.tick();
            }
            _ => {}
        }
    }

    /// The mailbox of a worker.
    fn worker(&self, n: u8) -> Option<u64> {
        let workers = self.g.world.net.workers.borrow();
        workers.get(usize::from(n) % workers.len().max(1)).map(|worker| worker.base)
    }

    fn answer_for(&mut self, worker: u8, later: u8, words: [Value; 6]) {
        let Some(base) = self.worker(worker) else { return };
        let memory = self.g.world.service.clone();
        let words = words.map(|word| self.value(word));
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let _ = memory.write(base + layout::RESPONSE, &bytes);
        let asked = memory.load32(base + layout::REQUEST_SEQUENCE).unwrap_or(0);
        let number = asked.wrapping_add(u32::from(later / 64));
        let _ = memory.store32(base + layout::RESPONSE_SEQUENCE, number);
    }
}
