//! What the engine reaches of the machine around it: both memories, time, records, lines.
use super::guarded::Guarded;
use super::processor;
use super::service::Service;
use crate::{Window, World};
use memory::{Fake, Memory};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Arguments;
use wire::vsock::Record;

/// Where the guest sees the stub's memory.
const WINDOW_AT: u64 = 0x4000_0000;
/// Where the root image is; its first page is the code of all programs.
pub const IMAGE: std::ops::Range<u64> = 32 << 20..40 << 20;

pub struct Fakes {
    pub compute: Fake,
    guarded: Guarded,
    pub service: Fake,
    clock: Cell<u64>,
    random: Cell<u64>,
    /// No memory is left.
    pub full: Cell<bool>,
    pub wakes: RefCell<VecDeque<Record>>,
    pub rings: RefCell<VecDeque<Record>>,
    pub lines: RefCell<Vec<String>>,
    pub net: Service,
    pub window: processor::Window,
}

impl Default for Fakes {
    fn default() -> Self {
        let compute = Fake::new(IMAGE.end as usize);
        Self {
            guarded: Guarded::new(compute.clone()),
            compute,
            service: Fake::new(64 << 20),
            clock: Cell::new(1),
            random: Cell::new(7),
            full: Cell::new(false),
            wakes: RefCell::default(),
            rings: RefCell::default(),
            lines: RefCell::default(),
            net: Service::default(),
            window: processor::Window::default(),
        }
    }
}

impl Fakes {
    /// Lets time pass, in nanoseconds.
    pub fn pass(&self, time: u64) {
        self.clock.set(self.clock.get().saturating_add(time));
    }
}

impl World for Fakes {
    fn compute(&self) -> &dyn Memory {
        &self.guarded
    }
    fn service(&self) -> &dyn Memory {
        &self.service
    }
    fn image(&self) -> std::ops::Range<u64> {
        IMAGE
    }
    fn room(&self) -> bool {
        !self.full.get()
    }
    fn window(&self) -> Option<Window<'_>> {
        Some(Window { at: WINDOW_AT, code: &self.window.code, data: &self.window.data })
    }
    fn now(&self) -> u64 {
        self.clock.set(self.clock.get() + 1000);
        self.clock.get()
    }
    fn random(&self) -> u64 {
        self.random.set(self.random.get().wrapping_mul(6364136223846793005).wrapping_add(99));
        self.random.get()
    }
    fn relax(&self) {
        self.net.run(&self.service);
    }
    fn to_compute(&self, record: &Record) {
        self.wakes.borrow_mut().push_back(*record);
    }
    fn to_service(&self, record: &Record) {
        self.rings.borrow_mut().push_back(*record);
    }
    fn log(&self, line: Arguments<'_>) {
        self.lines.borrow_mut().push(line.to_string());
    }
    fn call(&self, line: Arguments<'_>) {
        self.lines.borrow_mut().push(line.to_string());
    }
}
