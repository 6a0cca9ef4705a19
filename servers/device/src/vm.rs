//! One virtual machine: its devices, and what this program sees of it.
use abi::FaultMessage;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use device_models::{AREA, Kept, Machine, Request, World, interrupt};
use ledger::Row;
use platform::code;
use platform::delivery::{self, GENERAL_PROTECTION};
use rt::{Channel, GuestRam, Shared, VcpuPage, log};
use virtio::{Msi, WINDOW_SIZE};

/// Odd accesses of a machine that are reported: it cannot flood the log.
const REPORTS: u32 = 32;

/// The machine.
pub struct Vm {
    /// Its number, the badge of its portals.
    pub number: u64,
    name: String,
    machine: Machine,
    ram: GuestRam,
    page: VcpuPage,
    kept: Kept<Shared>,
    interrupts: Channel,
    ledger: Option<Shared>,
    /// Its rows of the ledger, one a slot, from this number on.
    rows: Vec<(u8, Row)>,
    first_row: u64,
    reports: u32,
}

/// An entry of the list of machines.
struct Entry<'a> {
    name: &'a str,
    thread: u64,
    root_image: (u64, u64),
    slots: Vec<u8>,
}

impl<'a> Entry<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.split(':');
        let name = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let (thread, start, length) = (number()?, number()?, number()?);
        let slots = words.next()?.split('+').map(|slot| slot.parse().ok());
        let slots = slots.collect::<Option<Vec<u8>>>()?;
        words.next().is_none().then_some(Self { name, thread, root_image: (start, length), slots })
    }
}

fn needed<T>(found: Option<T>, what: &str, name: &str) -> T {
    match found {
        Some(found) => found,
        None => panic!("the configuration lacks {what} '{name}'"),
    }
}

impl Vm {
    /// The machines that a thread serves.
    pub fn all(thread: u64) -> Vec<Self> {
        let list = rt::config().parameter("machines").unwrap_or("");
        let mut all = Vec::new();
        let mut row = 0;
        for (number, part) in (0..).zip(list.split(',').filter(|part| !part.is_empty())) {
            let Some(entry) = Entry::parse(part) else {
                panic!("parameter 'machines' is malformed at '{part}'");
            };
            let rows = entry.slots.len() as u64;
            if entry.thread == thread {
                all.push(Self::new(number, &entry, row));
            }
            row += rows;
        }
        all
    }

    fn new(number: u64, entry: &Entry<'_>, first_row: u64) -> Self {
        let (start, length) = entry.root_image;
        let named = |what: &str| format!("{what}-{}", entry.name);
        let (ram, page, channel) = (named("ram"), named("vcpu"), named("interrupts"));
        let notes = needed(Shared::region("notes"), "region", "notes");
        let row = Row { size: WINDOW_SIZE, spaces: 1, ..Row::default() };
        let kept = Kept::new(notes, number.saturating_mul(AREA)).ok();
        let mut vm = Self {
            number,
            name: entry.name.to_string(),
            machine: Machine::new(&entry.slots, start..start.saturating_add(length)),
            ram: needed(Shared::guest_ram(&ram), "region", &ram),
            page: needed(VcpuPage::region(&page), "region", &page),
            kept: needed(kept, "room in region", "notes"),
            interrupts: needed(Channel::open(&channel), "channel", &channel),
            ledger: Shared::region("ledger"),
            rows: entry.slots.iter().map(|slot| (*slot, row)).collect(),
            first_row,
            reports: REPORTS,
        };
        if let Some(words) = vm.kept.read()
            && !vm.machine.recall(&words)
        {
            log!("{} VM: notes of its devices that make no sense: they are reset", vm.name);
        }
        vm
    }

    /// The guest's access to the registers of a device. Its processor's state is this program's until the answer; it
    /// touches no more of it than the instruction does.
    pub fn access(&mut self, fault: &FaultMessage) {
        let (mut page, ram, offset) = (self.page, self.ram, fault.offset);
        // Regions' tags are slots.
        let slot = fault.tag as u8;
        let done = self.with(|machine, world| {
            page.with(|state| {
                let done = code::carry_out(&ram, state, |touch| {
                    machine.access(slot, offset, touch, world)
                });
                if !done {
                    delivery::raise(state, GENERAL_PROTECTION, Some(0));
                }
                done
            })
        });
        if !done && self.reports > 0 {
            self.reports -= 1;
            log!(
                "{} VM: strange access to device {slot}+{offset:#x} by {:#x}",
                self.name,
                fault.ip
            );
        }
        self.count(slot);
    }

    /// What its monitor asks for.
    pub fn request(&mut self, request: Request) -> u32 {
        self.with(|machine, world| machine.request(request, world))
    }

    /// Works on the devices. First interrupts go out, then what was done is written down: whoever takes over in between
    /// does it once more, and an interrupt too many does no harm.
    fn with<R>(&mut self, work: impl FnOnce(&mut Machine, &mut World<'_, GuestRam>) -> R) -> R {
        let Self { machine, ram, interrupts, name, .. } = self;
        let mut raised = false;
        let raise = &mut |msi: Msi| {
            raised = true;
            // There is room for all that a machine can raise before its monitor runs.
            if interrupts.tx.push(&interrupt::encode(msi)).is_err() {
                log!("{name} VM: its monitor takes no interrupts: one is lost");
            }
        };
        let random = &mut |bytes: &mut [u8]| {
            rt::random(bytes);
        };
        let result = work(machine, &mut World { ram, random, raise });
        if raised {
            self.interrupts.notify();
        }
        if self.kept.write(&self.machine.notes()).is_err() {
            log!("{} VM: no room for the notes of its devices", self.name);
        }
        result
    }

    fn count(&mut self, slot: u8) {
        let Some(ledger) = &self.ledger else { return };
        let row = (self.first_row..).zip(&mut self.rows).find(|(_, (of, _))| *of == slot);
        if let Some((number, (_, row))) = row {
            row.faults += 1;
            // What finds no room there is told to nobody.
            let _ = row.write(ledger, number);
        }
    }
}
