//! A virtio device as a PCI function: the modern transport (virtio 1.2, 4.1).
//!
//! In one form all registers lie in a BAR of ports, so that no access to them needs an instruction to be
//! decoded, and the memory BAR holds the MSI-X table alone; in the other one all of them lie in one memory BAR
//! ([`Bars`]). Device numbers are those of modern-only devices.
use crate::Msi;
use crate::config_space::{
    Bars, ConfigSpace, Identity, NOTIFY, PORT_BAR_SIZE, Structure, TABLE_OFFSET, WINDOW_SIZE,
};
use crate::msix::{Msix, NO_VECTOR};
use crate::notes::{Reader, Writer};
use crate::queue::Queue;
use alloc::vec::Vec;
use memory::Memory;

/// The ring's layout and addressing follow virtio 1.0 or later.
pub const F_VERSION_1: u64 = 1 << 32;
/// Event indices instead of flags suppress kicks and interrupts.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// Chains may lie in tables of their own.
pub const F_INDIRECT: u64 = 1 << 28;

/// Registers of the common structure (virtio 1.2, 4.1.4.3), offsets in the BAR.
mod common {
    pub const DEVICE_FEATURE_SELECT: u16 = 0;
    pub const DEVICE_FEATURE: u16 = 4;
    pub const DRIVER_FEATURE_SELECT: u16 = 8;
    pub const DRIVER_FEATURE: u16 = 12;
    pub const CONFIG_VECTOR: u16 = 16;
    pub const QUEUES: u16 = 18;
    pub const STATUS: u16 = 20;
    pub const GENERATION: u16 = 21;
    pub const QUEUE_SELECT: u16 = 22;
    pub const QUEUE_SIZE: u16 = 24;
    pub const QUEUE_VECTOR: u16 = 26;
    pub const QUEUE_ENABLE: u16 = 28;
    pub const QUEUE_NOTIFY_OFFSET: u16 = 30;
    pub const QUEUE_DESCRIPTORS: u16 = 32;
    pub const QUEUE_AVAILABLE: u16 = 40;
    pub const QUEUE_USED: u16 = 48;
    pub const LENGTH: u16 = 64;
}

/// The structures in BAR 0.
const NOTIFY_PORT: u16 = 0x40;
const ISR_PORT: u16 = 0x48;
const DEVICE_PORT: u16 = 0x80;
const DEVICE_LENGTH: u16 = 0x40;
const STRUCTURES: [Structure; 4] = [
    Structure { kind: 1, offset: 0, length: common::LENGTH as u32 },
    Structure { kind: NOTIFY, offset: NOTIFY_PORT as u32, length: 4 },
    Structure { kind: 3, offset: ISR_PORT as u32, length: 4 },
    Structure { kind: 4, offset: DEVICE_PORT as u32, length: DEVICE_LENGTH as u32 },
];

/// `status` bits (virtio 1.2, 2.1).
mod status {
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
}

/// What distinguishes one kind of device from another.
pub trait Model {
    /// Device type (virtio 1.2, 5).
    const TYPE: u16;
    /// PCI class, 24 bits.
    const CLASS: u32;
    /// Sizes of the queues.
    const QUEUES: &'static [u16];

    /// Features offered, transport features excluded.
    fn features(&self) -> u64 {
        0
    }

    /// Fills in the device-specific configuration (it starts out zero).
    fn configuration(&self, _into: &mut [u8; DEVICE_CONFIG]) {}

    /// The guest's driver is ready; these are the features that it accepted.
    fn start(&mut self, _features: u64) {}

    /// The guest reset the device.
    fn reset(&mut self) {}
}

/// Bytes of device-specific configuration.
pub const DEVICE_CONFIG: usize = DEVICE_LENGTH as usize;

/// What an access to the registers asks of the device's owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// The guest put requests into this queue.
    Kick(u16),
    /// The driver is ready: look at all queues.
    Started,
    /// The device has been reset.
    Reset,
}

/// A device on the bus.
#[derive(Debug)]
pub struct Function<D> {
    /// The model.
    pub model: D,
    /// Its queues, as many as [`Model::QUEUES`] has sizes.
    pub queues: Vec<Queue>,
    space: ConfigSpace,
    msix: Msix,
    vectors: Vec<u16>,
    config_vector: u16,
    status: u8,
    device_select: u32,
    driver_select: u32,
    driver_features: u64,
    queue_select: u16,
    isr: u8,
}

impl<D: Model> Function<D> {
    /// The device after power-on, its BARs at these places.
    #[must_use]
    pub fn new(model: D, bars: Bars) -> Self {
        let msix = Msix::new(D::QUEUES.len() as u16 + 1);
        let mut space = ConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: 0x1040 + D::TYPE,
            class: D::CLASS,
            revision: 1,
            subsystem: 0x40,
        });
        space.add_bars(bars);
        space.add_capabilities(msix.count(), &STRUCTURES);
        Self {
            queues: D::QUEUES.iter().map(|size| Queue::new(*size)).collect(),
            vectors: D::QUEUES.iter().map(|_| NO_VECTOR).collect(),
            config_vector: NO_VECTOR,
            model,
            space,
            msix,
            status: 0,
            device_select: 0,
            driver_select: 0,
            driver_features: 0,
            queue_select: 0,
            isr: 0,
        }
    }

    /// True while the driver is ready and its queues make sense.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK
    }

    /// Features that the driver accepted.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.driver_features
    }

    /// Shows the guest what the queues have given back, and hands on the interrupts due.
    pub fn publish<M: Memory>(&mut self, memory: &M, raise: &mut impl FnMut(Msi)) {
        let mut broken = false;
        for (queue, vector) in self.queues.iter_mut().zip(&self.vectors) {
            if queue.publish(memory) {
                self.isr |= 1;
                if let Some(message) = self.msix.raise(*vector) {
                    raise(message);
                }
            }
            broken |= queue.is_enabled() && queue.is_broken();
        }
        if broken && self.is_running() {
            self.status |= status::NEEDS_RESET;
            self.isr |= 2;
            if let Some(message) = self.msix.raise(self.config_vector) {
                raise(message);
            }
        }
    }

    /// The state, as words that [`Function::recall`] understands.
    #[must_use]
    pub fn notes(&self) -> Vec<u64> {
        let mut notes = Writer::default();
        notes.put(D::TYPE.into());
        self.space.note(&mut notes);
        self.msix.note(&mut notes);
        for (queue, vector) in self.queues.iter().zip(&self.vectors) {
            queue.note(&mut notes);
            notes.put((*vector).into());
        }
        notes.put(self.driver_features);
        let small = [
            self.config_vector.into(),
            self.status.into(),
            self.device_select,
            self.driver_select,
            self.queue_select.into(),
            self.isr.into(),
        ];
        small.into_iter().for_each(|word| notes.put(word.into()));
        notes.0
    }

    /// Goes on with a state that was noted. False where the words make no sense: the device is then of no more
    /// use, and is to be made anew.
    #[must_use]
    pub fn recall(&mut self, words: &[u64]) -> bool {
        let mut notes = Reader::new(words);
        self.take_up(&mut notes).is_some() && notes.is_at_end()
    }

    fn take_up(&mut self, notes: &mut Reader<'_>) -> Option<()> {
        if notes.next()? != u64::from(D::TYPE) {
            return None;
        }
        self.space.recall(notes)?;
        self.msix.recall(notes)?;
        self.msix.set_control(self.space.msix_control());
        for n in 0..self.queues.len() {
            self.queues.get_mut(n)?.recall(notes)?;
            let vector = notes.small::<u16>()?;
            *self.vectors.get_mut(n)? = self.checked_vector(vector.into());
        }
        self.driver_features = notes.next()?;
        let vector = notes.small::<u16>()?;
        self.config_vector = self.checked_vector(vector.into());
        self.status = notes.small()?;
        self.device_select = notes.small()?;
        self.driver_select = notes.small()?;
        self.queue_select = notes.small()?;
        self.isr = notes.small()?;
        // No driver gets that far with features that were not offered.
        let accepted = self.status & status::FEATURES_OK != 0;
        (!accepted || self.accepts_features()).then_some(())
    }

    /// True where the driver's features are offered ones, and modern.
    fn accepts_features(&self) -> bool {
        self.driver_features & !self.offered() == 0 && self.driver_features & F_VERSION_1 != 0
    }

    fn offered(&self) -> u64 {
        self.model.features() | F_VERSION_1 | F_EVENT_IDX | F_INDIRECT
    }

    fn reset(&mut self) {
        self.status = 0;
        self.device_select = 0;
        self.driver_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        self.isr = 0;
        self.config_vector = NO_VECTOR;
        self.vectors.fill(NO_VECTOR);
        self.queues.iter_mut().for_each(Queue::reset);
        self.model.reset();
    }

    fn set_status(&mut self, value: u8) -> Asked {
        if value == 0 {
            self.reset();
            return Asked::Reset;
        }
        let new = value & !self.status;
        self.status |= value & !status::NEEDS_RESET;
        if new & status::FEATURES_OK != 0 && !self.accepts_features() {
            self.status &= !status::FEATURES_OK;
        }
        if new & status::DRIVER_OK != 0 {
            self.model.start(self.driver_features);
            return Asked::Started;
        }
        Asked::Nothing
    }

    fn enable_queue(&mut self) {
        let event_idx = self.driver_features & F_EVENT_IDX != 0;
        if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select))
            && !queue.is_enabled()
        {
            queue.enable(event_idx);
        }
    }

    fn common_read(&self, offset: u16) -> u32 {
        let n = usize::from(self.queue_select);
        let queue = self.queues.get(n);
        let layout = queue.map(|q| q.layout).unwrap_or_default();
        let half = |word: u64, base: u16| (word >> (8 * (offset - base))) as u32;
        match offset {
            common::DEVICE_FEATURE_SELECT => self.device_select,
            common::DEVICE_FEATURE => half_of(self.offered(), self.device_select),
            common::DRIVER_FEATURE_SELECT => self.driver_select,
            common::DRIVER_FEATURE => half_of(self.driver_features, self.driver_select),
            common::CONFIG_VECTOR => self.config_vector.into(),
            common::QUEUES => self.queues.len() as u32,
            common::STATUS => self.status.into(),
            common::GENERATION => 0,
            common::QUEUE_SELECT => self.queue_select.into(),
            common::QUEUE_SIZE => layout.size.into(),
            common::QUEUE_VECTOR => self.vectors.get(n).copied().unwrap_or(NO_VECTOR).into(),
            common::QUEUE_ENABLE => queue.is_some_and(Queue::is_enabled).into(),
            common::QUEUE_NOTIFY_OFFSET => 0,
            common::QUEUE_DESCRIPTORS | 36 => half(layout.descriptors, common::QUEUE_DESCRIPTORS),
            common::QUEUE_AVAILABLE | 44 => half(layout.available, common::QUEUE_AVAILABLE),
            common::QUEUE_USED | 52 => half(layout.used, common::QUEUE_USED),
            _ => 0,
        }
    }

    fn common_write(&mut self, offset: u16, value: u32) -> Asked {
        match offset {
            common::DEVICE_FEATURE_SELECT => self.device_select = value,
            common::DRIVER_FEATURE_SELECT => self.driver_select = value,
            common::DRIVER_FEATURE if self.status & status::FEATURES_OK == 0 => {
                set_half(&mut self.driver_features, self.driver_select, value);
            }
            common::CONFIG_VECTOR => self.config_vector = self.checked_vector(value),
            common::STATUS => return self.set_status(value as u8),
            common::QUEUE_SELECT => self.queue_select = value as u16,
            common::QUEUE_VECTOR => {
                let vector = self.checked_vector(value);
                if let Some(slot) = self.vectors.get_mut(usize::from(self.queue_select)) {
                    *slot = vector;
                }
            }
            common::QUEUE_ENABLE if value as u16 == 1 => self.enable_queue(),
            _ => self.queue_write(offset, value),
        }
        Asked::Nothing
    }

    fn queue_write(&mut self, offset: u16, value: u32) {
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        if queue.is_enabled() {
            return;
        }
        let layout = &mut queue.layout;
        match offset {
            common::QUEUE_SIZE => layout.size = value as u16,
            common::QUEUE_DESCRIPTORS => set_half(&mut layout.descriptors, 0, value),
            36 => set_half(&mut layout.descriptors, 1, value),
            common::QUEUE_AVAILABLE => set_half(&mut layout.available, 0, value),
            44 => set_half(&mut layout.available, 1, value),
            common::QUEUE_USED => set_half(&mut layout.used, 0, value),
            52 => set_half(&mut layout.used, 1, value),
            _ => {}
        }
    }

    fn checked_vector(&self, value: u32) -> u16 {
        let vector = value as u16;
        if vector < self.msix.count() { vector } else { NO_VECTOR }
    }

    /// What lies at an offset of the memory BAR.
    fn place(&self, offset: u64) -> Place {
        match self.space.bars() {
            Some(Bars::Window { .. }) => match offset {
                // Fits: it is less than a page.
                0..TABLE_OFFSET => Place::Register(offset as u16),
                TABLE_OFFSET..WINDOW_SIZE => Place::Table(offset - TABLE_OFFSET),
                _ => Place::Nothing,
            },
            _ => Place::Table(offset),
        }
    }

    fn device_read(&self, offset: u16, length: u8) -> u32 {
        let mut image = [0; DEVICE_CONFIG];
        self.model.configuration(&mut image);
        let at = usize::from(offset);
        let bytes = image.get(at..at + usize::from(length.min(4))).unwrap_or(&[]);
        bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
    }
}

fn half_of(word: u64, select: u32) -> u32 {
    match select {
        0 => word as u32,
        1 => (word >> 32) as u32,
        _ => 0,
    }
}

fn set_half(word: &mut u64, select: u32, value: u32) {
    match select {
        0 => *word = *word & !0xffff_ffff | u64::from(value),
        1 => *word = *word & 0xffff_ffff | u64::from(value) << 32,
        _ => {}
    }
}

/// What lies at an offset of a memory BAR.
enum Place {
    Register(u16),
    Table(u64),
    Nothing,
}

/// A function of any kind, as the bus sees it.
pub trait PciFunction {
    /// Configuration space.
    fn space(&self) -> &ConfigSpace;
    /// Writes configuration space.
    fn write_space(&mut self, offset: u8, length: u8, value: u32);
    /// Reads `length` bytes (1, 2, 4) of the port BAR.
    fn port_read(&mut self, offset: u16, length: u8) -> u32;
    /// Writes `length` bytes (1, 2, 4) of the port BAR.
    fn port_write(&mut self, offset: u16, length: u8, value: u32) -> Asked;
    /// Reads `length` bytes (1, 2, 4, 8) of the memory BAR. Registers are not read 8 bytes at once (virtio 1.2,
    /// 4.1.3.1): those read as zero.
    fn memory_read(&mut self, offset: u64, length: u8) -> u64;
    /// Writes `length` bytes (1, 2, 4, 8) of the memory BAR; registers not 8 bytes at once.
    fn memory_write(&mut self, offset: u64, length: u8, value: u64) -> Asked;
    /// The MSI-X table and pending bits.
    fn msix(&mut self) -> &mut Msix;
    /// Resets the device, as its driver could.
    fn power_off(&mut self);
}

impl<D: Model> PciFunction for Function<D> {
    fn space(&self) -> &ConfigSpace {
        &self.space
    }

    fn write_space(&mut self, offset: u8, length: u8, value: u32) {
        self.space.write(offset, length, value);
        self.msix.set_control(self.space.msix_control());
    }

    fn port_read(&mut self, offset: u16, length: u8) -> u32 {
        match offset {
            0..common::LENGTH => self.common_read(offset),
            ISR_PORT => u32::from(core::mem::take(&mut self.isr)),
            DEVICE_PORT..PORT_BAR_SIZE => self.device_read(offset - DEVICE_PORT, length),
            _ => 0,
        }
    }

    fn port_write(&mut self, offset: u16, length: u8, value: u32) -> Asked {
        match offset {
            NOTIFY_PORT if length == 2 => Asked::Kick(value as u16),
            0..common::LENGTH => self.common_write(offset, value),
            _ => Asked::Nothing,
        }
    }

    fn memory_read(&mut self, offset: u64, length: u8) -> u64 {
        match self.place(offset) {
            Place::Register(offset) if length <= 4 => self.port_read(offset, length).into(),
            Place::Table(offset) => self.msix.read(offset, length),
            _ => 0,
        }
    }

    fn memory_write(&mut self, offset: u64, length: u8, value: u64) -> Asked {
        match self.place(offset) {
            Place::Register(offset) if length <= 4 => self.port_write(offset, length, value as u32),
            Place::Table(offset) => {
                self.msix.write(offset, length, value);
                Asked::Nothing
            }
            _ => Asked::Nothing,
        }
    }

    fn msix(&mut self) -> &mut Msix {
        &mut self.msix
    }

    fn power_off(&mut self) {
        self.reset();
    }
}
