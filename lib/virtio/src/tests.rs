//! A small driver against the models, and guests that write anything anywhere.
use super::model::{Console, Entropy, Net, Pmem};
use super::*;
use memory::{Fake, Memory};
use proptest::prelude::*;

const RAM: usize = 1 << 20;
const SIZE: u16 = 8;

/// Where the test driver puts the parts of queue `n`, and its buffers.
pub(crate) fn layout(n: u64) -> Layout {
    let base = 0x1000 + n * 0x1000;
    Layout { size: SIZE, descriptors: base, available: base + 0x400, used: base + 0x800 }
}

/// The guest's side of a queue.
pub(crate) struct Driver {
    pub memory: Fake,
    layout: Layout,
    available: u16,
    used: u16,
}

impl Driver {
    pub fn new(memory: &Fake, n: u64) -> Self {
        Self { memory: memory.clone(), layout: layout(n), available: 0, used: 0 }
    }

    /// Writes a descriptor of any table.
    pub fn describe(&self, table: u64, n: u16, address: u64, length: u32, flags: u16, next: u16) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&address.to_le_bytes());
        raw[8..12].copy_from_slice(&length.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write(table + 16 * u64::from(n), &raw).expect("inside");
    }

    pub fn table(&self) -> u64 {
        self.layout.descriptors
    }

    /// Makes a chain available that starts at descriptor `head`.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available % SIZE);
        let entry = self.layout.available + 4 + 2 * slot;
        self.memory.write(entry, &head.to_le_bytes()).expect("inside");
        self.available = self.available.wrapping_add(1);
        self.memory.write(self.layout.available + 2, &self.available.to_le_bytes()).expect("in");
    }

    /// Offers one buffer.
    pub fn buffer(&mut self, n: u16, address: u64, length: u32, writable: bool) {
        self.describe(self.table(), n, address, length, u16::from(writable) * 2, 0);
        self.offer(n);
    }

    /// Sets the used index at which an interrupt is wanted.
    pub fn want_interrupt_at(&self, index: u16) {
        let event = self.layout.available + 4 + 2 * u64::from(SIZE);
        self.memory.write(event, &index.to_le_bytes()).expect("inside");
    }

    pub fn kick_wanted_at(&self) -> u16 {
        let event = self.layout.used + 4 + 8 * u64::from(SIZE);
        self.memory.read16(event).expect("inside")
    }

    /// The next chain that came back: its head and the bytes written.
    pub fn reap(&mut self) -> Option<(u16, u32)> {
        if self.memory.read16(self.layout.used + 2) == Ok(self.used) {
            return None;
        }
        let entry = self.layout.used + 4 + 8 * u64::from(self.used % SIZE);
        self.used = self.used.wrapping_add(1);
        let word = self.memory.read64(entry).expect("inside");
        Some((word as u16, (word >> 32) as u32))
    }

    pub fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read(address, &mut bytes).expect("inside");
        bytes
    }
}

/// Takes a device through the steps of a driver (virtio 1.2, 3.1.1).
pub(crate) fn start<D: Model>(function: &mut Function<D>, accept: u64) {
    function.write_space(0x42, 2, 0x8000);
    for vector in 0..=D::QUEUES.len() as u64 {
        function.msix().write(vector * 16, 4, 0xfee0_0000);
        function.msix().write(vector * 16 + 8, 4, 0x30 + vector);
        function.msix().write(vector * 16 + 12, 4, 0);
    }
    for status in [0, 1, 3] {
        function.port_write(20, 1, status);
    }
    for select in 0..2 {
        function.port_write(0, 4, select);
        function.port_write(8, 4, select);
        let offered = function.port_read(4, 4);
        let wanted = (accept >> (32 * select)) as u32;
        assert_eq!(offered & wanted, wanted);
        function.port_write(12, 4, wanted);
    }
    function.port_write(20, 1, 11);
    assert_eq!(function.port_read(20, 1), 11);
    for n in 0..D::QUEUES.len() as u32 {
        let queue = layout(n.into());
        function.port_write(22, 2, n);
        function.port_write(24, 2, SIZE.into());
        function.port_write(26, 2, n + 1);
        assert_eq!(function.port_read(26, 2), n + 1);
        for (offset, address) in [(32, queue.descriptors), (40, queue.available), (48, queue.used)]
        {
            function.port_write(offset, 4, address as u32);
            function.port_write(offset + 4, 4, (address >> 32) as u32);
        }
        function.port_write(28, 2, 1);
    }
    assert_eq!(function.port_write(20, 1, 15), Asked::Started);
    assert!(function.is_running());
}

pub(crate) const MODERN: u64 = F_VERSION_1 | F_EVENT_IDX | F_INDIRECT;

pub(crate) fn published<D: Model>(function: &mut Function<D>, memory: &Fake) -> Vec<u32> {
    let mut raised = Vec::new();
    function.publish(memory, &mut |msi: Msi| raised.push(msi.data));
    raised
}

#[test]
fn a_guest_finds_the_device_and_the_sizes_of_its_bars() {
    let mut function =
        Function::new(Console::default(), Bars::Split { ports: 0xc100, memory: 0xe000_1000 });
    assert_eq!(function.space().read(0, 4), 0x1043_1af4);
    assert_eq!(function.space().read(6, 2) & 0x10, 0x10);
    assert_eq!(function.space().port_base(), Some(0xc100));
    function.write_space(0x10, 4, u32::MAX);
    assert_eq!(function.space().read(0x10, 4), 0xffff_ff01);
    function.write_space(0x10, 4, 0xd000);
    assert_eq!(function.space().port_base(), Some(0xd000));
    function.write_space(0x14, 4, u32::MAX);
    assert_eq!(function.space().read(0x14, 4), 0xffff_f000);
    function.write_space(4, 2, 0);
    assert_eq!((function.space().port_base(), function.space().memory_base()), (None, None));

    let mut kinds = Vec::new();
    let mut at = function.space().read(0x34, 1);
    while at != 0 {
        let id = function.space().read(at as u8, 1);
        kinds.push((id, if id == 9 { function.space().read(at as u8 + 3, 1) } else { 0 }));
        at = function.space().read(at as u8 + 1, 1);
    }
    assert_eq!(kinds, [(0x11, 0), (9, 1), (9, 2), (9, 3), (9, 4)]);
    assert_eq!(function.space().msix_control() & 0x7ff, 2);
}

#[test]
fn features_must_be_offered_and_modern() {
    let mut function =
        Function::new(Entropy::default(), Bars::Split { ports: 0xc100, memory: 0xe000_1000 });
    for accepted in [[0, 0], [1, 1]] {
        function.port_write(20, 1, 0);
        for (select, value) in accepted.into_iter().enumerate() {
            function.port_write(8, 4, select as u32);
            function.port_write(12, 4, value);
        }
        function.port_write(20, 1, 11);
        assert_eq!(function.port_read(20, 1) & 8, 0);
    }
}

#[test]
fn console_bytes_go_both_ways_with_one_interrupt_a_batch() {
    let memory = Fake::new(RAM);
    let mut function =
        Function::new(Console::default(), Bars::Split { ports: 0xc100, memory: 0xe000_1000 });
    start(&mut function, MODERN);
    let mut output = Driver::new(&memory, 1);
    memory.write(0x8000, b"hello, world").expect("inside");
    output.buffer(0, 0x8000, 5, false);
    output.buffer(1, 0x8005, 7, false);
    let mut seen = Vec::new();
    let Function { model, queues, .. } = &mut function;
    // The sink takes three bytes of the second request at first.
    model.output(queues, &memory, |bytes| {
        let taken = if bytes.len() == 7 { 3 } else { bytes.len() };
        seen.extend_from_slice(&bytes[..taken]);
        taken
    });
    assert_eq!(seen, b"hello, w");
    model.output(queues, &memory, |bytes| {
        seen.extend_from_slice(bytes);
        bytes.len()
    });
    assert_eq!(seen, b"hello, world");
    assert_eq!(output.kick_wanted_at(), 2);
    // Completed output is shown at once, and told after half a queue at the latest.
    assert_eq!(published(&mut function, &memory), []);
    assert_eq!((output.reap(), output.reap(), output.reap()), (Some((0, 0)), Some((1, 0)), None));

    for n in 0..2 {
        output.buffer(n, 0x8000, 5, false);
        let Function { model, queues, .. } = &mut function;
        model.output(queues, &memory, |bytes| bytes.len());
        let told = published(&mut function, &memory);
        assert_eq!(told.len(), usize::from(n == 1));
    }

    let mut input = Driver::new(&memory, 0);
    let Function { model, queues, .. } = &mut function;
    assert_eq!(model.input(queues, &memory, b"nobody"), 0);
    input.buffer(0, 0x9000, 4, true);
    input.buffer(1, 0x9100, 4, true);
    assert_eq!(model.input(queues, &memory, b"abcdef"), 6);
    assert_eq!(published(&mut function, &memory), [0x31]);
    assert_eq!((input.reap(), input.reap()), (Some((0, 4)), Some((1, 2))));
    assert_eq!((input.bytes(0x9000, 4), input.bytes(0x9100, 2)), (b"abcd".into(), b"ef".into()));
}

#[test]
fn interrupts_come_only_where_the_guest_wants_them() {
    let memory = Fake::new(RAM);
    let mut function =
        Function::new(Entropy::default(), Bars::Split { ports: 0xc100, memory: 0xe000_1000 });
    start(&mut function, MODERN);
    let mut driver = Driver::new(&memory, 0);
    driver.want_interrupt_at(2);
    for n in 0..4 {
        driver.buffer(n, 0x8000 + 16 * u64::from(n), 16, true);
        let Function { model, queues, .. } = &mut function;
        model.serve(queues, &memory, |bytes| bytes.fill(7));
        let raised = published(&mut function, &memory);
        assert_eq!(raised.is_empty(), n != 2, "{n}");
        assert_eq!(driver.reap(), Some((n, 16)));
    }
    assert_eq!(driver.bytes(0x8000, 64), [7; 64]);
    assert_eq!(function.port_read(0x48, 1), 1);
    assert_eq!(function.port_read(0x48, 1), 0);
}

#[test]
fn without_event_indices_flags_suppress() {
    let memory = Fake::new(RAM);
    let mut function =
        Function::new(Console::default(), Bars::Split { ports: 0xc100, memory: 0xe000_1000 });
    start(&mut function, F_VERSION_1);
    let mut driver = Driver::new(&memory, 1);
    driver.buffer(0, 0x8000, 4, false);
    let mut flags = None;
    let Function { model, queues, .. } = &mut function;
    model.output(queues, &memory, |bytes| {
        flags = Some(memory.read16(layout(1).used).expect("inside"));
        bytes.len()
    });
    assert_eq!(flags, Some(1));
    assert_eq!(memory.read16(layout(1).used), Ok(0));
    memory.write(layout(1).available, &[1, 0]).expect("inside");
    assert_eq!(published(&mut function, &memory), []);
    assert_eq!(driver.reap(), Some((0, 0)));
}

#[test]
fn indirect_chains_are_followed_once() {
    let memory = Fake::new(RAM);
    let mut queue = Queue::new(SIZE);
    queue.layout = layout(0);
    queue.enable(true);
    let mut driver = Driver::new(&memory, 0);
    driver.describe(driver.table(), 3, 0x8000, 32, 4, 0);
    driver.describe(0x8000, 0, 0x9000, 8, 1, 1);
    driver.describe(0x8000, 1, 0x9100, 16, 2, 0);
    driver.offer(3);
    let mut chain = Chain::new();
    assert!(queue.pop(&memory, &mut chain));
    assert_eq!((chain.head, chain.readable_length(), chain.writable_length()), (3, 8, 16));
    // A table inside a table is refused.
    driver.describe(0x8000, 1, 0x9100, 16, 4, 0);
    driver.offer(3);
    assert!(!queue.pop(&memory, &mut chain));
    assert!(queue.is_broken());
}

#[test]
fn nonsense_in_the_rings_breaks_the_device_and_tells_the_driver() {
    type Spoil = fn(&mut Driver);
    let spoilers: [Spoil; 4] = [
        |d| d.offer(SIZE),
        |d| {
            // A circle.
            d.describe(d.table(), 0, 0x8000, 1, 1, 0);
            d.offer(0);
        },
        |d| {
            // Readable behind writable.
            d.describe(d.table(), 0, 0x8000, 1, 3, 1);
            d.describe(d.table(), 1, 0x8000, 1, 0, 0);
            d.offer(0);
        },
        |d| d.memory.write(layout(0).available + 2, &100u16.to_le_bytes()).expect("inside"),
    ];
    for spoil in spoilers {
        let memory = Fake::new(RAM);
        let mut function =
            Function::new(Entropy::default(), Bars::Split { ports: 0xc100, memory: 0xe000_1000 });
        start(&mut function, MODERN);
        function.port_write(16, 2, 0);
        spoil(&mut Driver::new(&memory, 0));
        let Function { model, queues, .. } = &mut function;
        model.serve(queues, &memory, |_| {});
        assert_eq!(published(&mut function, &memory), [0x30]);
        assert_eq!(published(&mut function, &memory), []);
        assert!(!function.is_running());
        assert_eq!(function.port_read(20, 1) & 64, 64);
        function.port_write(20, 1, 0);
        start(&mut function, MODERN);
    }
}

#[test]
fn flushes_of_persistent_memory_succeed_and_other_requests_fail() {
    let memory = Fake::new(RAM);
    let mut function = Function::new(
        Pmem::new(1 << 32..5 << 30),
        Bars::Split { ports: 0xc100, memory: 0xe000_1000 },
    );
    start(&mut function, MODERN);
    assert_eq!((function.port_read(0x80, 4), function.port_read(0x84, 4)), (0, 1));
    assert_eq!((function.port_read(0x88, 4), function.port_read(0x8c, 4)), (1 << 30, 0));
    let mut driver = Driver::new(&memory, 0);
    for (n, kind) in [0u32, 1].into_iter().enumerate() {
        memory.write(0x8000, &kind.to_le_bytes()).expect("inside");
        memory.write(0x8010, &[0xee; 4]).expect("inside");
        driver.describe(driver.table(), 0, 0x8000, 4, 1, 1);
        driver.describe(driver.table(), 1, 0x8010, 4, 2, 0);
        driver.offer(0);
        let Function { model, queues, .. } = &mut function;
        model.serve(queues, &memory);
        let _ = published(&mut function, &memory);
        assert_eq!(driver.reap(), Some((0, 4)));
        assert_eq!(driver.bytes(0x8010, 4), [n as u8, 0, 0, 0]);
    }
}

#[test]
fn frames_go_both_ways_and_what_does_not_fit_is_dropped() {
    let memory = Fake::new(RAM);
    let mut function = Function::new(
        Net::new([1, 2, 3, 4, 5, 6]),
        Bars::Split { ports: 0xc100, memory: 0xe000_1000 },
    );
    start(&mut function, MODERN);
    assert_eq!(function.port_read(0x80, 4), 0x0403_0201);
    let (mut receive, mut transmit) = (Driver::new(&memory, 0), Driver::new(&memory, 1));
    memory.write(0x800c, &[9; 60]).expect("inside");
    transmit.describe(transmit.table(), 0, 0x8000, 12, 1, 1);
    transmit.describe(transmit.table(), 1, 0x800c, 60, 0, 0);
    transmit.offer(0);
    transmit.buffer(2, 0x8000, 2000, false);
    transmit.buffer(3, RAM as u64, 60, false);
    let mut frames = Vec::new();
    let Function { model, queues, .. } = &mut function;
    model.output(queues, &memory, |_| false);
    model.output(queues, &memory, |frame| {
        frames.push(frame.to_vec());
        true
    });
    assert_eq!(frames, [vec![9; 60]]);
    let _ = published(&mut function, &memory);
    assert_eq!(std::iter::from_fn(|| transmit.reap()).count(), 3);

    let Function { model, queues, .. } = &mut function;
    assert!(!model.can_input(queues, &memory));
    receive.buffer(0, 0x9000, 1530, true);
    receive.buffer(1, 0xa000, 20, true);
    assert!(model.can_input(queues, &memory));
    assert!(model.input(queues, &memory, &[5; 100]));
    assert!(model.input(queues, &memory, &[5; 100]));
    assert!(!model.input(queues, &memory, &[5; 100]));
    let _ = published(&mut function, &memory);
    assert_eq!((receive.reap(), receive.reap()), (Some((0, 112)), Some((1, 0))));
    assert_eq!(receive.bytes(0x900a, 2), [1, 0]);
    assert_eq!(receive.bytes(0x900c, 100), [5; 100]);
}

proptest! {
    /// Registers and configuration space take any access.
    #[test]
    fn any_register_access_is_survived(
        accesses in prop::collection::vec((0u8..3, any::<u16>(), 1u8..9, any::<u32>()), 0..200),
    ) {
        let memory = Fake::new(0x4000);
        let mut function = Function::new(Console::default(), Bars::Split { ports: 0xc100, memory: 0xe000_1000 });
        for (kind, offset, length, value) in accesses {
            let small = offset % 0x140;
            match kind {
                0 => {
                    function.write_space(offset as u8, length, value);
                    let _ = function.space().read(offset as u8, length);
                }
                1 => {
                    function.port_write(small, length, value % 0x4000);
                    let _ = function.port_read(small, length);
                }
                _ => {
                    function.msix().write(offset.into(), length, value.into());
                    let _ = function.msix().read(offset.into(), length);
                }
            }
            let Function { model, queues, .. } = &mut function;
            model.output(queues, &memory, |bytes| bytes.len());
            model.input(queues, &memory, b"input");
            let _ = published(&mut function, &memory);
            while function.msix().next_unmasked().is_some() {}
        }
    }

    /// Rings with anything in them: every model ends its work.
    #[test]
    fn any_ring_contents_are_survived(
        words in prop::collection::vec((0u64..0x1000, any::<u16>(), 0u8..4), 0..400),
        rounds in 1usize..4,
    ) {
        let memory = Fake::new(0x8000);
        let mut console = Function::new(Console::default(), Bars::Split { ports: 0xc100, memory: 0xe000_1000 });
        let mut net = Function::new(Net::new([0; 6]), Bars::Split { ports: 0xc200, memory: 0xe000_2000 });
        start(&mut console, MODERN);
        start(&mut net, MODERN);
        for round in words.chunks(words.len() / rounds + 1) {
            for (word, value, style) in round {
                // Small values make indices and flags that get further than random ones.
                let value = match style { 0 => *value, 1 => value & 7, 2 => value & 3, _ => 0x1000 };
                memory.write(0x1000 + word * 2, &value.to_le_bytes()).expect("inside");
            }
            let Function { model, queues, .. } = &mut console;
            model.output(queues, &memory, |bytes| bytes.len() / 2);
            model.input(queues, &memory, &[1; 100]);
            let _ = published(&mut console, &memory);
            let Function { model, queues, .. } = &mut net;
            model.output(queues, &memory, |frame| frame.len() % 2 == 0);
            model.input(queues, &memory, &[1; 100]);
            let _ = published(&mut net, &memory);
        }
    }
}
