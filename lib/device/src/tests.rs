//! A guest in front of the devices, as their manager sees it, and notes in all states.
use super::*;
use memory::Fake;
use proptest::prelude::*;

const ROOT_IMAGE: Range<u64> = 1 << 32..(1 << 32) + 4096;
const RAM: usize = 1 << 16;
/// Where a queue of the driver lies.
const QUEUE: u32 = 0x1000;

struct Guest {
    machine: Machine,
    ram: Fake,
    raised: Vec<Msi>,
}

impl Guest {
    fn new() -> Self {
        let machine = Machine::new(&[PMEM, ENTROPY], ROOT_IMAGE);
        Self { machine, ram: Fake::new(RAM), raised: Vec::new() }
    }

    fn touch(&mut self, slot: u8, offset: u64, touch: Touch) -> u64 {
        let raise = &mut |msi| self.raised.push(msi);
        let random = &mut |bytes: &mut [u8]| bytes.fill(9);
        self.machine.access(slot, offset, touch, &mut World { ram: &self.ram, random, raise })
    }

    fn read(&mut self, slot: u8, offset: u64, width: u8) -> u64 {
        self.touch(slot, offset, Touch::Read(width))
    }

    fn write(&mut self, slot: u8, offset: u64, width: u8, value: u64) {
        self.touch(slot, offset, Touch::Write(width, value));
    }

    fn ask(&mut self, request: Request) -> u32 {
        let raise = &mut |msi| self.raised.push(msi);
        let random = &mut |bytes: &mut [u8]| bytes.fill(9);
        self.machine.request(request, &mut World { ram: &self.ram, random, raise })
    }

    fn configure(&mut self, slot: u8, offset: u8, length: u8, value: u32) {
        self.ask(Request::Write { slot, offset, length, value });
    }

    /// What a driver does with the device in a slot.
    fn start(&mut self, slot: u8) {
        self.configure(slot, 0x42, 2, 0x8000);
        for (offset, value) in [(16, 0xfee0_0000), (24, 0x31), (28, 0)] {
            self.write(slot, 0x1000 + offset, 4, value);
        }
        for (offset, width, value) in [
            (20, 1, 0),
            (20, 1, 3),
            (8, 4, 1),
            (12, 4, 1),
            (20, 1, 11),
            (24, 2, 8),
            (26, 2, 1),
            (32, 4, QUEUE.into()),
            (40, 4, u64::from(QUEUE) + 0x400),
            (48, 4, u64::from(QUEUE) + 0x800),
            (28, 2, 1),
            (20, 1, 15),
        ] {
            self.write(slot, offset, width, value);
        }
        assert_eq!(self.read(slot, 20, 1), 15);
    }

    /// One more request with one buffer that the device fills.
    fn offer(&mut self, index: u16, address: u64, length: u32) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&address.to_le_bytes());
        raw[8..12].copy_from_slice(&length.to_le_bytes());
        raw[12] = 2;
        self.ram.write(QUEUE.into(), &raw).expect("inside");
        self.ram.write(0x1404 + 2 * u64::from(index % 8), &[0, 0]).expect("inside");
        self.ram.write(0x1402, &(index + 1).to_le_bytes()).expect("inside");
    }

    fn change(&mut self) {
        let notes = self.machine.notes();
        self.machine = Machine::new(&[PMEM, ENTROPY], ROOT_IMAGE);
        assert!(self.machine.recall(&notes));
    }
}

#[test]
fn a_guest_gets_random_numbers_and_an_interrupt_from_each_successor() {
    let mut guest = Guest::new();
    guest.start(ENTROPY);
    for n in 0..3 {
        guest.offer(n, 0x8000, 4);
        guest.write(ENTROPY, 0x40, 2, 0);
        assert_eq!(guest.ram.read64(0x8000), Ok(0x0909_0909));
        assert_eq!(guest.raised, [Msi { address: 0xfee0_0000, data: 0x31 }]);
        guest.ram.write(0x8000, &[0; 4]).expect("inside");
        guest.raised.clear();
        guest.change();
    }
    guest.ask(Request::PowerOff);
    guest.offer(3, 0x8000, 4);
    guest.write(ENTROPY, 0x40, 2, 0);
    assert_eq!((guest.ram.read64(0x8000), guest.raised.len()), (Ok(0), 0));
}

#[test]
fn devices_are_only_where_their_windows_are() {
    let mut guest = Guest::new();
    assert_eq!(guest.read(PMEM, 0x80, 4), 0);
    assert_eq!(guest.read(PMEM, 0x84, 4), 1);
    assert_eq!(guest.read(5, 0x84, 4), u64::MAX);
    let read = |slot, offset| Request::Read { slot, offset, length: 4 };
    assert_eq!(guest.ask(read(PMEM, 0)), 0x105b_1af4);
    assert_eq!(guest.ask(read(5, 0)), u32::MAX);
    // Elsewhere; back; switched off.
    guest.configure(PMEM, 0x10, 4, 0xe000_0000);
    assert_eq!(guest.read(PMEM, 0x84, 4), u64::MAX);
    guest.configure(PMEM, 0x10, 4, window(PMEM).start as u32);
    assert_eq!(guest.read(PMEM, 0x84, 4), 1);
    guest.configure(PMEM, 4, 2, 0);
    assert_eq!(guest.read(PMEM, 0x84, 4), u64::MAX);
    guest.ask(Request::PowerOn);
    assert_eq!(guest.read(PMEM, 0x84, 4), 1);
    // Slots that nobody asked for.
    guest.machine = Machine::new(&[ENTROPY], ROOT_IMAGE);
    assert_eq!(guest.ask(read(PMEM, 0)), u32::MAX);
    assert_eq!(guest.ask(read(ENTROPY, 0)), 0x1044_1af4);
}

#[test]
fn what_was_pending_is_raised_when_it_is_unmasked() {
    for by_table in [true, false] {
        let mut guest = Guest::new();
        guest.start(ENTROPY);
        if by_table {
            guest.write(ENTROPY, 0x1000 + 28, 4, 1);
        } else {
            guest.configure(ENTROPY, 0x42, 2, 0xc000);
        }
        guest.offer(0, 0x8000, 4);
        guest.write(ENTROPY, 0x40, 2, 0);
        assert_eq!(guest.raised, []);
        guest.change();
        if by_table {
            guest.write(ENTROPY, 0x1000 + 28, 4, 0);
        } else {
            guest.configure(ENTROPY, 0x42, 2, 0x8000);
        }
        assert_eq!(guest.raised, [Msi { address: 0xfee0_0000, data: 0x31 }]);
    }
}

#[test]
fn notes_of_one_device_that_make_no_sense_leave_the_other_one_alone() {
    let mut guest = Guest::new();
    guest.start(PMEM);
    guest.start(ENTROPY);
    let mut notes = guest.machine.notes();
    notes[1] = 99;
    assert!(!guest.machine.recall(&notes));
    assert_eq!((guest.read(PMEM, 20, 1), guest.read(ENTROPY, 20, 1)), (0, 15));
    assert!(!guest.machine.recall(&[]));
    assert_eq!(guest.read(ENTROPY, 20, 1), 0);
}

#[test]
fn requests_are_what_they_were_or_nothing() {
    for request in [
        Request::Read { slot: 3, offset: 252, length: 4 },
        Request::Write { slot: 255, offset: 255, length: 1, value: u32::MAX },
        Request::PowerOn,
        Request::PowerOff,
    ] {
        assert_eq!(Request::decode(&request.encode()), Some(request));
    }
    for words in [
        [0; 8],
        [5, 0, 0, 0, 0, 0, 0, 0],
        [1, 256, 0, 4, 0, 0, 0, 0],
        [1, 3, 253, 4, 0, 0, 0, 0],
        [1, 3, 0, 3, 0, 0, 0, 0],
        [1, 3, 0, 0, 0, 0, 0, 0],
        [2, 3, 0, 4, 1 << 32, 0, 0, 0],
    ] {
        assert_eq!(Request::decode(&words), None, "{words:?}");
    }
}

#[test]
fn interrupts_are_what_they_were_or_nothing() {
    let msi = Msi { address: u64::MAX - 1, data: 7 };
    let record = interrupt::encode(msi);
    assert_eq!(interrupt::decode(&record), Some(msi));
    assert_eq!((interrupt::decode(&record[..11]), interrupt::decode(&[0; 13])), (None, None));
}

/// Memory that is lost after so many writes, as for somebody who ends.
struct Ending {
    memory: Fake,
    left: core::cell::Cell<usize>,
}

impl Ending {
    fn goes_on(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }
}

impl Memory for &Ending {
    fn len(&self) -> u64 {
        self.memory.len()
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), memory::OutOfBounds> {
        self.memory.read(offset, into)
    }
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), memory::OutOfBounds> {
        // Byte by byte: it may end in between.
        from.iter()
            .zip(offset..)
            .filter(|_| self.goes_on())
            .try_for_each(|(byte, at)| self.memory.write(at, &[*byte]))
    }
    fn load32(&self, offset: u64) -> Result<u32, memory::OutOfBounds> {
        self.memory.load32(offset)
    }
    fn store32(&self, offset: u64, value: u32) -> Result<(), memory::OutOfBounds> {
        if self.goes_on() { self.memory.store32(offset, value) } else { Ok(()) }
    }
}

proptest! {
    /// Wherever the writer ends, the old notes are there or the new ones.
    #[test]
    fn notes_are_old_or_new(
        first in prop::collection::vec(any::<u64>(), 0..40),
        second in prop::collection::vec(any::<u64>(), 0..40),
        third in prop::collection::vec(any::<u64>(), 0..40),
        left in 0usize..400,
    ) {
        let memory = Fake::new(AREA as usize);
        let kept = |memory: &Fake| Kept::new(memory.clone(), 0).expect("room");
        prop_assert_eq!(kept(&memory).read(), None);
        kept(&memory).write(&first).expect("room");
        kept(&memory).write(&second).expect("room");
        let ending = Ending { memory: memory.clone(), left: left.into() };
        Kept::new(&ending, 0).expect("room").write(&third).expect("room");
        let found = kept(&memory).read();
        let new = found.as_ref() == Some(&third);
        prop_assert!(new || found.as_ref() == Some(&second));
        prop_assert!(new || left < 8 * (third.len() + 1) + 1);
        prop_assert_eq!(kept(&memory).write(&[0; 4096]).is_ok(), false);
    }

    /// Whatever is found there, and whatever the guest and its monitor do then: no harm.
    #[test]
    fn anything_may_be_written_there(
        bytes in prop::collection::vec((0u64..AREA - 8, prop::num::u64::ANY), 0..60),
        real in any::<bool>(),
        steps in prop::collection::vec((0u8..4, 2u8..6, any::<u16>(), 0usize..4, any::<u64>()), 0..100),
    ) {
        let memory = Fake::new(AREA as usize);
        let mut guest = Guest::new();
        guest.start(ENTROPY);
        let mut kept = Kept::new(memory.clone(), 0).expect("room");
        if real {
            kept.write(&guest.machine.notes()).expect("room");
        } else {
            memory.store32(0, 1).expect("inside");
        }
        for (at, value) in bytes {
            memory.write(8 + at % (AREA - 16), &(value >> (value % 64)).to_le_bytes()).expect("inside");
        }
        guest.machine.recall(&kept.read().unwrap_or_default());
        for (kind, slot, at, width, value) in steps {
            let width = [1, 2, 4, 8][width];
            match kind {
                0 => guest.configure(slot, at as u8, width.min(4), value as u32),
                1 => {
                    let at = u64::from(at) % (RAM as u64 - 8);
                    guest.ram.write(at, &value.to_le_bytes()).expect("inside");
                }
                2 => guest.write(slot, u64::from(at) % 0x60, width, value % 0x2000),
                _ => {
                    guest.read(slot, u64::from(at), width);
                }
            }
            kept.write(&guest.machine.notes()).expect("room");
        }
    }
}
