//! Devices that another program models. Their registers are regions of its own, of which the monitor hears nothing; what is left
//! here is their configuration space, which that program is asked about, and their interrupts.
use super::pipe::Pipe;
use abi::{Error, Selector};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use device_models::{Request, interrupt};
use rt::{log, sys, time};
use virtio::Msi;
use virtio::bus::Target;

/// Microseconds that are worth waiting for that program to be started again: a guest that looks for its devices meanwhile would not find
/// them, and never look again.
const PATIENCE_US: u64 = 3_000_000;

/// The program that models them, as its monitor sees it.
pub struct Models {
    portal: Option<Selector>,
    slots: Vec<u8>,
    pipe: Pipe,
    /// It was waited for in vain; until it answers again, nothing waits.
    given_up: bool,
    /// What it has still to be told before anything else.
    due: Option<Request>,
}

impl Models {
    /// What the configuration says of the machine with that name. The devices are as after power-on.
    pub fn from_config(machine: &str) -> Self {
        let config = rt::config();
        let list = config.parameter("models").unwrap_or("");
        let mut models = Self {
            portal: config.capability("models").map(Selector),
            slots: list.split('+').filter_map(|slot| slot.parse().ok()).collect(),
            pipe: Pipe::open(&format!("interrupts-{machine}")),
            given_up: false,
            due: None,
        };
        models.power_on();
        models
    }

    /// True for the slots of such devices.
    pub fn have(&self, slot: u8) -> bool {
        self.slots.contains(&slot)
    }

    /// The machine is about to start.
    pub fn power_on(&mut self) {
        self.must(Request::PowerOn);
    }

    /// The machine is over.
    pub fn power_off(&mut self) {
        self.must(Request::PowerOff);
    }

    /// Reads configuration space; ones where nobody answers.
    pub fn read(&mut self, Target { slot, offset }: Target, length: u8) -> u32 {
        self.ask(Request::Read { slot, offset, length }).unwrap_or(u32::MAX)
    }

    /// Writes configuration space.
    pub fn write(&mut self, Target { slot, offset }: Target, length: u8, value: u32) {
        self.ask(Request::Write { slot, offset, length, value });
    }

    /// True when these bits of the monitor's notification speak of interrupts.
    pub fn is_meant(&self, bits: u64) -> bool {
        self.pipe.is_meant(bits)
    }

    /// Takes the interrupts that have come.
    pub fn interrupts(&mut self, into: &mut VecDeque<Msi>) {
        while let Some(record) = self.pipe.received() {
            let length = record.len();
            match interrupt::decode(record) {
                Some(msi) => into.push_back(msi),
                None => log!("malformed interrupt from the model of a device: skipped"),
            }
            self.pipe.consume(length);
        }
        self.pipe.flush();
    }

    /// Asks for what must not be forgotten.
    fn must(&mut self, request: Request) {
        self.due = None;
        if self.portal.is_some() && self.ask(request).is_none() {
            self.due = Some(request);
        }
    }

    fn ask(&mut self, request: Request) -> Option<u32> {
        if let Some(due) = self.due {
            self.call(due)?;
            self.due = None;
        }
        self.call(request)
    }

    /// `None` where there is no answer. A call that its program did not live to answer is made again.
    fn call(&mut self, request: Request) -> Option<u32> {
        let portal = self.portal?;
        let end = time::now().get().saturating_add(time::microseconds(PATIENCE_US));
        loop {
            match sys::call(portal, request.encode()) {
                Ok(words) => {
                    self.given_up = false;
                    return u32::try_from(words[0]).ok();
                }
                // That is an answer.
                Err(Error::Refused | Error::BadArgument) => return None,
                Err(_) if !self.given_up && time::now().get() < end => sys::yield_now(),
                Err(error) => {
                    if !self.given_up {
                        log!("the model of a device does not answer: {}", error.text());
                    }
                    self.given_up = true;
                    return None;
                }
            }
        }
    }
}
