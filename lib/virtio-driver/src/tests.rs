use super::*;
use memory::{Fake, Memory, OutOfBounds, Registers};
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use virtio::model::Console;
use virtio::{Bars, Function, PciFunction};

const BASE: u64 = 0x10_0000;
const SIZE: u16 = 4;

/// The console model as a device: the driver's DMA memory is the model's guest memory, from
/// [`BASE`] on.
#[derive(Clone)]
struct Machine {
    console: Rc<RefCell<Function<Console>>>,
    part: Part,
}

#[derive(Clone, Copy)]
enum Part {
    Config,
    Ports,
    Table,
}

impl Registers for Machine {
    fn read_register(&self, offset: u64, width: u64) -> Result<u64, OutOfBounds> {
        let mut console = self.console.borrow_mut();
        Ok(match self.part {
            Part::Config => console.space().read(offset as u8, width as u8).into(),
            Part::Ports => console.port_read(offset as u16, width as u8).into(),
            Part::Table => console.msix().read(offset, width as u8),
        })
    }

    fn write_register(&self, offset: u64, width: u64, value: u64) -> Result<(), OutOfBounds> {
        let mut console = self.console.borrow_mut();
        match self.part {
            Part::Config => console.write_space(offset as u8, width as u8, value as u32),
            Part::Ports => {
                let _ = console.port_write(offset as u16, width as u8, value as u32);
            }
            Part::Table => console.msix().write(offset, width as u8, value),
        }
        Ok(())
    }
}

/// Guest memory seen from [`BASE`] on.
#[derive(Clone)]
struct Dma(Fake);

impl Memory for Dma {
    fn len(&self) -> u64 {
        self.0.len() - BASE
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.0.read(offset + BASE, into)
    }
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        self.0.write(offset + BASE, from)
    }
    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        self.0.load32(offset + BASE)
    }
    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        self.0.store32(offset + BASE, value)
    }
}

fn machine() -> (Machine, Fake) {
    let console = Rc::new(RefCell::new(Function::new(
        Console::default(),
        Bars::Split { ports: 0xc100, memory: 0xe000_1000 },
    )));
    (Machine { console, part: Part::Config }, Fake::new(BASE as usize + 0x1_0000))
}

fn find(machine: &Machine) -> Device<Machine> {
    let bar = |n| {
        let part = [Part::Ports, Part::Table].get(n as usize).copied()?;
        Some(Machine { part, ..machine.clone() })
    };
    Device::find(machine.clone(), bar).expect("a modern device")
}

/// A driver's two queues, joined to the model.
struct Pair {
    machine: Machine,
    memory: Fake,
    device: Device<Machine>,
    from: Queue<Dma>,
    to: Queue<Dma>,
}

impl Pair {
    fn new(wanted: u64) -> Self {
        let (machine, memory) = machine();
        let device = find(&machine);
        let agreed = device.negotiate(wanted).expect("agreed");
        assert_eq!(agreed & F_EVENT_IDX, wanted);
        device.set_interrupt(Interrupt { address: 0xfee0_0000, data: 0x41 }).expect("vectors");
        let queue = |start, direction| {
            let dma = Dma(memory.clone());
            Queue::new(dma, BASE, start, (SIZE, 64), direction, wanted != 0).expect("room")
        };
        let mut from = queue(0, Direction::FromDevice);
        let mut to = queue(footprint(SIZE, 64), Direction::ToDevice);
        device.set_queue(0, SIZE, from.addresses()).expect("queue 0");
        device.set_queue(1, SIZE, to.addresses()).expect("queue 1");
        assert_eq!(device.set_queue(2, SIZE, to.addresses()), Err(Error::Queue(2)));
        device.start().expect("started");
        assert!(from.publish());
        assert!(!from.listen());
        to.quiet();
        Self { machine, memory, device, from, to }
    }

    /// Fills all buffers and kicks; answers what the model saw.
    fn send(&mut self, byte: u8) -> Vec<u8> {
        while let Some(n) = self.to.own_buffer() {
            self.to.write(n, 0, &[byte; 5]).expect("inside");
            self.to.submit(n, 5);
        }
        assert!(self.to.publish());
        self.device.kick(1, self.device.doorbell(1).expect("doorbell"));
        let console = &mut *self.machine.console.borrow_mut();
        let Function { model, queues, .. } = &mut *console;
        let mut seen = Vec::new();
        model.output(queues, &self.memory, |bytes| {
            seen.extend_from_slice(bytes);
            bytes.len()
        });
        seen
    }

    /// The model gives input; answers the interrupts' messages.
    fn input(&mut self, bytes: &[u8]) -> Vec<(u64, u32)> {
        let console = &mut *self.machine.console.borrow_mut();
        let Function { model, queues, .. } = &mut *console;
        assert_eq!(model.input(queues, &self.memory, bytes), bytes.len());
        let mut raised = Vec::new();
        console.publish(&self.memory, &mut |msi| raised.push((msi.address, msi.data)));
        raised
    }
}

#[test]
fn driver_and_model_understand_each_other() {
    for wanted in [F_EVENT_IDX, 0] {
        let mut pair = Pair::new(wanted);
        for turn in 0..10 {
            assert_eq!(pair.send(turn), [turn; 20]);
            assert_eq!(pair.input(&[turn; 100]), [(0xfee0_0000, 0x41)]);
            for expected in [64, 36] {
                let (n, length) = pair.from.next_used().expect("a buffer");
                assert_eq!(length, expected);
                let mut bytes = [0; 36];
                pair.from.read(n, 0, &mut bytes).expect("inside");
                assert_eq!(bytes, [turn; 36]);
                pair.from.submit(n, 64);
            }
            assert_eq!(pair.from.next_used(), None);
            pair.from.publish();
            assert!(!pair.from.listen());
        }
    }
}

#[test]
fn a_queue_that_does_not_fit_is_refused() {
    let dma = Dma(Fake::new(BASE as usize + 4096));
    let new = |start, size, buffer| {
        Queue::new(dma.clone(), BASE, start, (size, buffer), Direction::ToDevice, true).is_ok()
    };
    assert!(new(0, 4, 64));
    assert!(!new(4096 - 64, 4, 64));
    assert!(!new(0, 3, 64));
    assert!(!new(0, 512, 0));
    assert!(!new(8, 4, 64));
    assert!(!new(0, 4, 4096));
}

proptest! {
    /// A device that writes anything anywhere into the queue: the driver never gets a buffer
    /// twice, or one that does not exist, and its loops end.
    #[test]
    fn a_hostile_device_does_no_harm(
        writes in prop::collection::vec((0u64..0x400, any::<u32>(), any::<bool>()), 0..200),
        from_device: bool,
    ) {
        let memory = Fake::new(BASE as usize + 0x1000);
        let dma = Dma(memory.clone());
        let direction = if from_device { Direction::FromDevice } else { Direction::ToDevice };
        let mut queue = Queue::new(dma.clone(), BASE, 0, (SIZE, 64), direction, true).expect("room");
        let mut held = [!from_device; SIZE as usize];
        for (offset, value, small) in writes {
            dma.store32(offset & !3, if small { value & 0x7_0007 } else { value }).expect("inside");
            while let Some((n, length)) = queue.next_used() {
                prop_assert!(!std::mem::replace(&mut held[usize::from(n)], true));
                prop_assert!(length <= 64);
            }
            if let Some(n) = queue.own_buffer() {
                prop_assert!(held[usize::from(n)]);
                held[usize::from(n)] = false;
                queue.submit(n, value);
            }
            queue.publish();
            queue.listen();
        }
    }
}
