//! A device: where its registers are, and the steps that start it (virtio 1.2, 3.1 and 4.1).
use crate::{Addresses, F_VERSION_1};
use memory::{OutOfBounds, Registers};

/// Why a device can't be driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// A register lies outside its BAR.
    Outside(OutOfBounds),
    /// A capability that must be there is missing, or names a BAR that is not.
    Missing(&'static str),
    /// The device refused these features.
    Features(u64),
    /// There is no such queue, or it is smaller than asked for.
    Queue(u16),
    /// The device did not come out of its reset, or has no such interrupt vector.
    Stuck(&'static str),
}

impl From<OutOfBounds> for Error {
    fn from(error: OutOfBounds) -> Self {
        Error::Outside(error)
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Error::Outside(o) => write!(f, "no register of {} bytes at {:#x}", o.length, o.offset),
            Error::Missing(what) => write!(f, "{what} is missing"),
            Error::Features(features) => write!(f, "features {features:#x} were refused"),
            Error::Queue(n) => write!(f, "queue {n} is not there or too small"),
            Error::Stuck(what) => write!(f, "{what}"),
        }
    }
}

/// Message of an interrupt, as the kernel gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// Address that the device writes to.
    pub address: u64,
    /// What it writes.
    pub data: u32,
}

/// Part of a BAR.
struct Window<R> {
    bar: R,
    offset: u64,
}

impl<R: Registers> Window<R> {
    fn read(&self, offset: u64, width: u64) -> Result<u64, OutOfBounds> {
        self.bar.read_register(self.offset.wrapping_add(offset), width)
    }

    fn write(&self, offset: u64, width: u64, value: u64) -> Result<(), OutOfBounds> {
        self.bar.write_register(self.offset.wrapping_add(offset), width, value)
    }
}

/// PCI configuration registers (PCI 3.0, 6.1).
mod pci {
    pub const COMMAND: u64 = 0x04;
    /// Memory decoding, bus master, no line interrupts.
    pub const COMMAND_ON: u64 = 0x0406;
    pub const CAPABILITIES: u64 = 0x34;
    pub const CAP_VENDOR: u64 = 0x09;
    pub const CAP_MSIX: u64 = 0x11;
    pub const MSIX_ENABLE: u64 = 1 << 15;
    pub const MSIX_MASK_ALL: u64 = 1 << 14;
}

/// Registers of the common structure (virtio 1.2, 4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0;
    pub const DEVICE_FEATURE: u64 = 4;
    pub const DRIVER_FEATURE_SELECT: u64 = 8;
    pub const DRIVER_FEATURE: u64 = 12;
    pub const CONFIG_VECTOR: u64 = 16;
    pub const STATUS: u64 = 20;
    pub const QUEUE_SELECT: u64 = 22;
    pub const QUEUE_SIZE: u64 = 24;
    pub const QUEUE_VECTOR: u64 = 26;
    pub const QUEUE_ENABLE: u64 = 28;
    pub const QUEUE_NOTIFY_OFFSET: u64 = 30;
    pub const QUEUE_DESCRIPTORS: u64 = 32;
    pub const QUEUE_AVAILABLE: u64 = 40;
    pub const QUEUE_USED: u64 = 48;
}

/// `status` bits (virtio 1.2, 2.1).
mod status {
    pub const ACKNOWLEDGE: u64 = 1;
    pub const DRIVER: u64 = 2;
    pub const DRIVER_OK: u64 = 4;
    pub const FEATURES_OK: u64 = 8;
}

/// `cfg_type` values (virtio 1.2, 4.1.4).
mod structure {
    pub const COMMON: u64 = 1;
    pub const NOTIFY: u64 = 2;
    pub const DEVICE: u64 = 4;
}

/// "No interrupt" in vector registers.
const NO_VECTOR: u64 = 0xffff;
/// Bytes of an entry of the MSI-X table.
const MSIX_ENTRY: u64 = 16;
/// Most capabilities that a list of 256 bytes can hold.
const MOST_CAPABILITIES: usize = 48;
/// Reads of the status register before a reset counts as failed.
const RESET_TRIES: usize = 1_000_000;

/// A device that has been found.
pub struct Device<R> {
    config: R,
    common: Window<R>,
    notify: Window<R>,
    notify_multiplier: u64,
    device: Window<R>,
    msix: Window<R>,
    msix_capability: u64,
    msix_vectors: u64,
}

/// What the walk of the capability list finds.
struct Found<R> {
    common: Option<Window<R>>,
    notify: Option<(Window<R>, u64)>,
    device: Option<Window<R>>,
    msix: Option<(Window<R>, u64, u64)>,
}

impl<R: Registers> Found<R> {
    fn walk(config: &R, bar: &impl Fn(u64) -> Option<R>) -> Result<Self, Error> {
        let mut found = Self { common: None, notify: None, device: None, msix: None };
        let mut at = config.read_register(pci::CAPABILITIES, 1)? & !3;
        for _ in 0..MOST_CAPABILITIES {
            if at == 0 {
                break;
            }
            match config.read_register(at, 1)? {
                pci::CAP_VENDOR => found.vendor(config, bar, at)?,
                pci::CAP_MSIX => {
                    let control = config.read_register(at + 2, 2)?;
                    let table = config.read_register(at + 4, 4)?;
                    let window = bar(table & 7).map(|bar| Window { bar, offset: table & !7 });
                    found.msix = window.map(|window| (window, at, (control & 0x7ff) + 1));
                }
                _ => {}
            }
            at = config.read_register(at + 1, 1)? & !3;
        }
        Ok(found)
    }

    fn vendor(
        &mut self,
        config: &R,
        bar: &impl Fn(u64) -> Option<R>,
        at: u64,
    ) -> Result<(), Error> {
        let kind = config.read_register(at + 3, 1)?;
        let number = config.read_register(at + 4, 1)?;
        let offset = config.read_register(at + 8, 4)?;
        let window = || bar(number).map(|bar| Window { bar, offset });
        // The first structure of a kind that can be reached is the preferred one (4.1.4.1).
        match kind {
            structure::COMMON if self.common.is_none() => self.common = window(),
            structure::DEVICE if self.device.is_none() => self.device = window(),
            structure::NOTIFY if self.notify.is_none() => {
                let multiplier = config.read_register(at + 16, 4)?;
                self.notify = window().map(|window| (window, multiplier));
            }
            _ => {}
        }
        Ok(())
    }
}

impl<R: Registers> Device<R> {
    /// Finds the registers of the function with this configuration space; `bar` gives its memory
    /// BARs by number. Resets the device.
    ///
    /// # Errors
    /// [`Error`].
    pub fn find(config: R, bar: impl Fn(u64) -> Option<R>) -> Result<Self, Error> {
        let found = Found::walk(&config, &bar)?;
        let (notify, notify_multiplier) = found.notify.ok_or(Error::Missing("notify structure"))?;
        let (msix, msix_capability, msix_vectors) = found.msix.ok_or(Error::Missing("MSI-X"))?;
        let device = Self {
            config,
            common: found.common.ok_or(Error::Missing("common structure"))?,
            notify,
            notify_multiplier,
            device: found.device.ok_or(Error::Missing("device structure"))?,
            msix,
            msix_capability,
            msix_vectors,
        };
        let command = device.config.read_register(pci::COMMAND, 2)? | pci::COMMAND_ON;
        device.config.write_register(pci::COMMAND, 2, command)?;
        device.reset()?;
        Ok(device)
    }

    fn reset(&self) -> Result<(), Error> {
        self.common.write(common::STATUS, 1, 0)?;
        for _ in 0..RESET_TRIES {
            if self.common.read(common::STATUS, 1)? == 0 {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(Error::Stuck("the device does not come out of its reset"))
    }

    fn add_status(&self, bits: u64) -> Result<u64, Error> {
        let status = self.common.read(common::STATUS, 1)? | bits;
        self.common.write(common::STATUS, 1, status)?;
        Ok(self.common.read(common::STATUS, 1)?)
    }

    /// Accepts those of `wanted` that the device offers, `VERSION_1` always; answers what was
    /// agreed.
    ///
    /// # Errors
    /// `Features`, when the device does not agree.
    pub fn negotiate(&self, wanted: u64) -> Result<u64, Error> {
        self.add_status(status::ACKNOWLEDGE)?;
        self.add_status(status::DRIVER)?;
        let mut offered = 0;
        for half in 0..2 {
            self.common.write(common::DEVICE_FEATURE_SELECT, 4, half)?;
            offered |= self.common.read(common::DEVICE_FEATURE, 4)? << (32 * half);
        }
        let agreed = offered & (wanted | F_VERSION_1);
        for half in 0..2 {
            self.common.write(common::DRIVER_FEATURE_SELECT, 4, half)?;
            let word = agreed >> (32 * half) & 0xffff_ffff;
            self.common.write(common::DRIVER_FEATURE, 4, word)?;
        }
        let status = self.add_status(status::FEATURES_OK)?;
        if agreed & F_VERSION_1 == 0 || status & status::FEATURES_OK == 0 {
            return Err(Error::Features(agreed));
        }
        Ok(agreed)
    }

    /// Programs MSI-X: vector 0 has this message, all others are masked. Configuration changes
    /// raise no interrupt.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_interrupt(&self, interrupt: Interrupt) -> Result<(), Error> {
        let control = self.msix_capability + 2;
        let on = pci::MSIX_ENABLE | pci::MSIX_MASK_ALL;
        self.config.write_register(control, 2, on)?;
        for vector in 0..self.msix_vectors {
            let entry = vector * MSIX_ENTRY;
            let used = vector == 0;
            let message = if used { interrupt } else { Interrupt { address: 0, data: 0 } };
            self.msix.write(entry, 4, message.address & 0xffff_ffff)?;
            self.msix.write(entry + 4, 4, message.address >> 32)?;
            self.msix.write(entry + 8, 4, message.data.into())?;
            self.msix.write(entry + 12, 4, u64::from(!used))?;
        }
        self.config.write_register(control, 2, pci::MSIX_ENABLE)?;
        self.common.write(common::CONFIG_VECTOR, 2, NO_VECTOR)?;
        Ok(())
    }

    /// Tells the device where queue `number` lies; its interrupts are vector 0.
    ///
    /// # Errors
    /// `Queue`, `Stuck`.
    pub fn set_queue(&self, number: u16, size: u16, at: Addresses) -> Result<(), Error> {
        self.common.write(common::QUEUE_SELECT, 2, number.into())?;
        if self.common.read(common::QUEUE_SIZE, 2)? < u64::from(size) {
            return Err(Error::Queue(number));
        }
        self.common.write(common::QUEUE_SIZE, 2, size.into())?;
        self.common.write(common::QUEUE_VECTOR, 2, 0)?;
        if self.common.read(common::QUEUE_VECTOR, 2)? != 0 {
            return Err(Error::Stuck("the device has no interrupt vector to spare"));
        }
        let places = [
            (common::QUEUE_DESCRIPTORS, at.descriptors),
            (common::QUEUE_AVAILABLE, at.available),
            (common::QUEUE_USED, at.used),
        ];
        for (register, address) in places {
            self.common.write(register, 4, address & 0xffff_ffff)?;
            self.common.write(register + 4, 4, address >> 32)?;
        }
        self.common.write(common::QUEUE_ENABLE, 2, 1)?;
        Ok(())
    }

    /// Where queue `number` is kicked; for [`Device::kick`].
    ///
    /// # Errors
    /// `Outside`.
    pub fn doorbell(&self, number: u16) -> Result<u64, Error> {
        self.common.write(common::QUEUE_SELECT, 2, number.into())?;
        let offset = self.common.read(common::QUEUE_NOTIFY_OFFSET, 2)?;
        Ok(offset * self.notify_multiplier)
    }

    /// Starts the device.
    ///
    /// # Errors
    /// `Outside`.
    pub fn start(&self) -> Result<(), Error> {
        self.add_status(status::DRIVER_OK).map(|_| ())
    }

    /// Kicks queue `number`, whose doorbell is `doorbell`.
    pub fn kick(&self, number: u16, doorbell: u64) {
        // A doorbell outside its BAR would be the device's own doing: it is simply not rung.
        let _ = self.notify.write(doorbell, 2, number.into());
    }

    /// Reads device-specific configuration.
    ///
    /// # Errors
    /// `Outside`.
    pub fn read(&self, offset: u64, width: u64) -> Result<u64, Error> {
        Ok(self.device.read(offset, width)?)
    }
}
