//! Requests of a block device, carried out by a small device of its own.
use super::*;
use memory::{Fake, Memory};
use proptest::prelude::*;

const COUNT: u16 = 4;
const DATA: u32 = 1024;
const BASE: u64 = 0x1000;

/// Sees DMA memory from its physical address on.
struct Device {
    memory: Fake,
    at: Addresses,
    disk: Vec<u8>,
    next: u16,
    used: u16,
}

impl Device {
    fn descriptor(&self, table: u64, index: u16) -> (u64, u32, u16, u16) {
        let at = table - BASE + u64::from(index) * 16;
        let read16 = |offset| self.memory.read16(at + offset).expect("inside");
        let address = self.memory.read64(at).expect("inside");
        (address, self.memory.load32(at + 8).expect("inside"), read16(12), read16(14))
    }

    /// Carries out one request, if there is one: an error for sectors that do not exist.
    fn work(&mut self) -> bool {
        let shown = self.memory.read16(self.at.available - BASE + 2).expect("inside");
        if shown == self.next {
            return false;
        }
        let slot = u64::from(self.next % COUNT);
        let head = self.memory.read16(self.at.available - BASE + 4 + 2 * slot).expect("inside");
        self.next = self.next.wrapping_add(1);
        let (table, length, flags, _) = self.descriptor(self.at.descriptors, head);
        assert_eq!((length, flags), (48, 4), "an indirect table of three");
        let (header, 16, 1, 1) = self.descriptor(table, 0) else { panic!("header") };
        let (data, length, data_flags, 2) = self.descriptor(table, 1) else { panic!("data") };
        let (status, 1, 2, _) = self.descriptor(table, 2) else { panic!("status") };
        let kind = self.memory.load32(header - BASE).expect("inside");
        let at = self.memory.read64(header - BASE + 8).expect("inside") as usize * 512;
        let range = at..at + length as usize;
        let good = range.end <= self.disk.len();
        if good && kind == 1 {
            assert_eq!(data_flags, 1);
            self.memory.read(data - BASE, &mut self.disk[range]).expect("inside");
        } else if good {
            assert_eq!((kind, data_flags), (0, 3));
            self.memory.write(data - BASE, &self.disk[range]).expect("inside");
        }
        self.memory.write(status - BASE, &[u8::from(!good)]).expect("inside");
        let entry = self.at.used - BASE + 4 + 8 * u64::from(self.used % COUNT);
        self.memory.store32(entry, head.into()).expect("inside");
        self.memory.store32(entry + 4, length + 1).expect("inside");
        self.used = self.used.wrapping_add(1);
        let word = u32::from(self.used) << 16;
        self.memory.store32(self.at.used - BASE, word).expect("inside");
        true
    }
}

fn pair() -> (Requests<Fake>, Device) {
    let memory = Fake::new(0x4000);
    let requests = Requests::new(memory.clone(), BASE, 0, (COUNT, DATA), false).expect("room");
    let at = requests.addresses();
    (requests, Device { memory, at, disk: vec![0; 64 * 512], next: 0, used: 0 })
}

#[test]
fn what_is_written_is_read() {
    let (mut requests, mut device) = pair();
    for turn in 0..10u8 {
        let sector = u64::from(turn) * 3;
        for n in 0..COUNT {
            let bytes = [turn * 16 + n as u8; 700];
            requests.write(n, sector + u64::from(n) * 2, &bytes).expect("room");
        }
        assert!(requests.publish());
        while device.work() {}
        for n in 0..COUNT {
            assert_eq!(requests.finished(), Some((n, true)));
            requests.read(n, sector + u64::from(n) * 2, 512).expect("room");
        }
        assert_eq!(requests.finished(), None);
        assert!(requests.publish());
        while device.work() {}
        for n in 0..COUNT {
            assert_eq!(requests.finished(), Some((n, true)));
            let mut bytes = [0; 512];
            requests.received(n, &mut bytes).expect("inside");
            assert_eq!(bytes, [turn * 16 + n as u8; 512]);
        }
    }
}

#[test]
fn errors_are_told_and_the_request_can_be_started_again() {
    let (mut requests, mut device) = pair();
    device.disk.truncate(512);
    requests.read(2, 1, 512).expect("room");
    requests.publish();
    assert!(device.work());
    assert_eq!(requests.finished(), Some((2, false)));
    device.disk.resize(1024, 9);
    requests.again(2).expect("there is such a request");
    requests.publish();
    assert!(device.work());
    assert_eq!(requests.finished(), Some((2, true)));
    assert!(requests.read(2, 0, DATA + 1).is_err());
    assert!(requests.write(COUNT, 0, &[1]).is_err());
    assert!(requests.received(0, &mut [0; DATA as usize + 1]).is_err());
}

proptest! {
    #[test]
    fn a_hostile_device_does_no_harm(
        writes in prop::collection::vec((0u64..0x2000, any::<u32>()), 0..200),
    ) {
        let (mut requests, device) = pair();
        let mut under_way = [false; COUNT as usize];
        for (turn, (offset, value)) in writes.into_iter().enumerate() {
            device.memory.store32(offset & !3, value).expect("inside");
            let n = (turn % usize::from(COUNT)) as u16;
            if !std::mem::replace(&mut under_way[usize::from(n)], true) {
                requests.read(n, 1, 512).expect("room");
                requests.publish();
            }
            while let Some((n, _)) = requests.finished() {
                prop_assert!(std::mem::replace(&mut under_way[usize::from(n)], false));
            }
            requests.listen();
        }
    }
}
