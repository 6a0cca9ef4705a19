//! Models of a virtual machine's devices that need nothing but its memory, outside of its monitor: persistent memory and the
//! source of random numbers. Each has a window of registers in the guest-physical space whose manager carries out the guest's
//! accesses ([`Machine::access`]); configuration space is the monitor's business, which passes on what concerns these
//! devices ([`Request`]). What their manager has to know it writes down ([`Kept`]), for whoever goes on in its place.
//!
//! Pure: memory, random numbers and interrupts are passed in. All that the guest says, and all that was written down, may be anything.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod interrupt;
mod kept;
mod request;
#[cfg(test)]
mod tests;

pub use kept::{AREA, Kept};
pub use request::Request;

use alloc::vec::Vec;
use core::ops::Range;
use memory::Memory;
use platform::code::Touch;
use virtio::bus::window;
use virtio::model::{Entropy, Pmem};
use virtio::{Asked, Bars, Function, Model, Msi, PciFunction};

/// Slot of the persistent memory, as `doc/borders.md` lists them.
pub const PMEM: u8 = 3;
/// Slot of the source of random numbers.
pub const ENTROPY: u8 = 4;

/// What surrounds a machine's devices.
pub struct World<'a, M> {
    /// The guest's memory.
    pub ram: &'a M,
    /// Fills a buffer with random numbers.
    pub random: &'a mut dyn FnMut(&mut [u8]),
    /// Takes a message for the machine's interrupt controller; the guest has chosen what is in it.
    pub raise: &'a mut dyn FnMut(Msi),
}

/// The devices of one virtual machine that are modelled here.
#[derive(Debug)]
pub struct Machine {
    slots: Vec<u8>,
    root_image: Range<u64>,
    pmem: Function<Pmem>,
    entropy: Function<Entropy>,
}

/// The device in a slot, after power-on. If the guest moves it elsewhere, it finds nothing there.
fn plug<D: Model>(slot: u8, model: D) -> Function<D> {
    // Windows lie below 4 GiB.
    Function::new(model, Bars::Window { at: window(slot).start as u32 })
}

impl Machine {
    /// The devices in these slots, after power-on; in others there is none. `root_image`: guest-physical
    /// addresses of the persistent memory.
    #[must_use]
    pub fn new(slots: &[u8], root_image: Range<u64>) -> Self {
        Self {
            slots: slots.into(),
            pmem: plug(PMEM, Pmem::new(root_image.clone())),
            entropy: plug(ENTROPY, Entropy::default()),
            root_image,
        }
    }

    /// The guest touches a slot's window, at this offset. What it reads.
    pub fn access<M: Memory>(
        &mut self,
        slot: u8,
        offset: u64,
        touch: Touch,
        world: &mut World<'_, M>,
    ) -> u64 {
        let here = window(slot).start;
        // Elsewhere, or switched off, there is nothing here.
        let function = self.function(slot).filter(|f| f.space().memory_base() == Some(here));
        let Some(function) = function else { return u64::MAX };
        match touch {
            Touch::Read(width) => function.memory_read(offset, width),
            Touch::Write(width, value) => {
                let asked = function.memory_write(offset, width, value);
                if asked != Asked::Nothing {
                    self.serve(slot, world);
                }
                self.collect_unmasked(slot, world);
                0
            }
        }
    }

    /// Carries out what the monitor asks for. What the guest reads, where it is about a read.
    pub fn request<M: Memory>(&mut self, request: Request, world: &mut World<'_, M>) -> u32 {
        match request {
            Request::Read { slot, offset, length } => {
                return self.function(slot).map_or(u32::MAX, |f| f.space().read(offset, length));
            }
            Request::Write { slot, offset, length, value } => {
                if let Some(function) = self.function(slot) {
                    function.write_space(offset, length, value);
                    self.collect_unmasked(slot, world);
                }
            }
            Request::PowerOn => *self = Self::new(&self.slots, self.root_image.clone()),
            Request::PowerOff => {
                self.pmem.power_off();
                self.entropy.power_off();
            }
        }
        0
    }

    /// The state of all devices.
    #[must_use]
    pub fn notes(&self) -> Vec<u64> {
        let mut all = Vec::new();
        for one in [self.pmem.notes(), self.entropy.notes()] {
            all.push(one.len() as u64);
            all.extend(one);
        }
        all
    }

    /// Goes on with a state that was noted. False where some of it makes no sense: the device concerned is
    /// then as after power-on.
    pub fn recall(&mut self, words: &[u64]) -> bool {
        let mut fresh = Self::new(&self.slots, self.root_image.clone());
        core::mem::swap(self, &mut fresh);
        let (first, rest) = part(words);
        let (second, rest) = part(rest);
        let pmem = self.pmem.recall(first);
        let entropy = self.entropy.recall(second);
        if !pmem {
            self.pmem = plug(PMEM, Pmem::new(self.root_image.clone()));
        }
        if !entropy {
            self.entropy = plug(ENTROPY, Entropy::default());
        }
        pmem && entropy && rest.is_empty()
    }

    fn function(&mut self, slot: u8) -> Option<&mut dyn PciFunction> {
        if !self.slots.contains(&slot) {
            return None;
        }
        match slot {
            PMEM => Some(&mut self.pmem),
            ENTROPY => Some(&mut self.entropy),
            _ => None,
        }
    }

    /// Answers all requests of the device in a slot.
    fn serve<M: Memory>(&mut self, slot: u8, world: &mut World<'_, M>) {
        let World { ram, random, raise } = world;
        match slot {
            PMEM => {
                self.pmem.model.serve(&mut self.pmem.queues, *ram);
                self.pmem.publish(*ram, raise);
            }
            ENTROPY => {
                self.entropy.model.serve(&mut self.entropy.queues, *ram, random);
                self.entropy.publish(*ram, raise);
            }
            _ => {}
        }
    }

    fn collect_unmasked<M>(&mut self, slot: u8, world: &mut World<'_, M>) {
        while let Some(msi) = self.function(slot).and_then(|f| f.msix().next_unmasked()) {
            (world.raise)(msi);
        }
    }
}

/// A part with its length in front, and what is behind it. A length that is wrong leaves nothing.
fn part(words: &[u64]) -> (&[u64], &[u64]) {
    let Some((length, rest)) = words.split_first() else { return (&[], &[]) };
    let length = usize::try_from(*length).unwrap_or(usize::MAX);
    rest.split_at_checked(length).unwrap_or((&[], &[]))
}
