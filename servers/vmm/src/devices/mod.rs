//! The VM's PCI bus and its virtio devices, as the monitor sees them.
//!
//! The monitor owns one [`Devices`] and
//! * gives it every port access that [`Devices::owns_port`] claims (configuration ports
//!   `0xcf8..=0xcff` and the devices' register BARs; the virtio registers are on ports, so that
//!   kicks need no instruction decoding), and every access of the guest to
//!   [`MONITOR_WINDOW`] (MSI-X tables only; set-up and interrupt masking);
//! * calls [`Devices::notified`] when its notification shows bits;
//! * after each of these calls takes the interrupts from [`Devices::next_interrupt`] until there
//!   is none, and delivers them to its x2APIC model as messages (address `0xfee.....`, data);
//! * calls [`Devices::machine_ended`] when the VM is over.
//!
//! Some devices are modelled by another program ([`models`]), which has their registers.
mod models;
mod pipe;

use alloc::collections::VecDeque;
use core::ops::Range;
use memory::Memory;
use models::Models;
use pipe::Pipe;
pub use virtio::Msi;
use virtio::bus::{ADDRESS_PORT, DATA_PORT, HostBridge, MONITOR_WINDOW};
use virtio::model::{Console, Net, Vsock};
use virtio::{Asked, Bars, Function, MEMORY_BAR_SIZE, Model, PORT_BAR_SIZE, PciFunction};
use wire::vsock::{DOORBELL_PORT, MAX_RECORD, Record, WAKE_PORT};

/// Where the first slot's ports would lie; the others follow.
const PORTS: u16 = 0xc000;
/// Slots of the devices, as `doc/borders.md` lists them.
const SLOTS: Range<u8> = 1..7;
/// Ethernet address of the service VM's card: QEMU's user-mode network gives its first address
/// to whoever asks.
const CARD: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// What differs between VMs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The service VM has a network card, the compute VM has none.
    pub service: bool,
}

/// A device and the monitor's end of its channel.
struct Joined<D> {
    function: Function<D>,
    pipe: Pipe,
}

/// All devices of one VM.
pub struct Devices<M> {
    ram: M,
    bridge: HostBridge,
    console: Joined<Console>,
    agent: Joined<Console>,
    models: Models,
    vsock: Joined<Vsock>,
    net: Option<Joined<Net>>,
    interrupts: VecDeque<Msi>,
}

/// The device in a slot, its BARs where the guest will most likely leave them.
fn plug<D: Model>(slot: u8, model: D) -> Function<D> {
    let ports = PORTS + u16::from(slot) * PORT_BAR_SIZE;
    let memory = MONITOR_WINDOW.start + u64::from(slot) * MEMORY_BAR_SIZE;
    Function::new(model, Bars::Split { ports, memory: memory as u32 })
}

fn join<D: Model>(slot: u8, model: D, channel: &str) -> Joined<D> {
    Joined { function: plug(slot, model), pipe: Pipe::open(channel) }
}

fn socket(settings: &Settings) -> Vsock {
    let (cid, port) = if settings.service { (4, DOORBELL_PORT) } else { (3, WAKE_PORT) };
    Vsock::new(cid, port)
}

impl<M: Memory> Devices<M> {
    /// The devices of a VM with this RAM, after power-on. Opens the channels by name.
    pub fn new(ram: M, settings: &Settings) -> Self {
        let (console, agent, vsock) = if settings.service {
            ("console-service", "agent-service", "vsock-service")
        } else {
            ("console-compute", "agent-compute", "vsock-compute")
        };
        Self {
            ram,
            bridge: HostBridge::new(),
            console: join(1, Console::default(), console),
            agent: join(2, Console::default(), agent),
            models: Models::from_config(if settings.service { "service" } else { "compute" }),
            vsock: join(5, socket(settings), vsock),
            net: settings.service.then(|| join(6, Net::new(CARD), "packets")),
            interrupts: VecDeque::new(),
        }
    }

    /// After [`Devices::machine_ended`]: the devices as they are after power-on. The channels stay.
    pub fn power_on(&mut self, settings: &Settings) {
        self.bridge = HostBridge::new();
        self.console.function = plug(1, Console::default());
        self.agent.function = plug(2, Console::default());
        self.models.power_on();
        self.vsock.function = plug(5, socket(settings));
        if let Some(net) = &mut self.net {
            net.function = plug(6, Net::new(CARD));
        }
    }

    /// The relay may know of connections that an earlier monitor had: the end of the machine is told in any case.
    pub fn expect_connections(&mut self) {
        self.vsock.function.model.expect_connections();
    }

    /// True where the port belongs to these devices now.
    #[must_use]
    pub fn owns_port(&mut self, port: u16) -> bool {
        (ADDRESS_PORT..DATA_PORT + 4).contains(&port) || self.port_slot(port).is_some()
    }

    /// The guest reads `length` (1, 2, 4) bytes from a port.
    pub fn port_read(&mut self, port: u16, length: u8) -> u32 {
        match port {
            ADDRESS_PORT..DATA_PORT => self.bridge.address(port, length),
            DATA_PORT..0xd00 => self.config_read(port, length),
            _ => match self.port_slot(port) {
                Some((slot, offset)) => {
                    self.function(slot).map_or(u32::MAX, |f| f.port_read(offset, length))
                }
                None => u32::MAX,
            },
        }
    }

    /// The guest writes `length` (1, 2, 4) bytes to a port.
    pub fn port_write(&mut self, port: u16, length: u8, value: u32) {
        match port {
            ADDRESS_PORT..DATA_PORT => self.bridge.set_address(port, length, value),
            DATA_PORT..0xd00 => self.config_write(port, length, value),
            _ => {
                let Some((slot, offset)) = self.port_slot(port) else { return };
                let asked = self.function(slot).map(|f| f.port_write(offset, length, value));
                if !matches!(asked, None | Some(Asked::Nothing)) {
                    self.serve(slot);
                }
            }
        }
    }

    /// The guest reads `length` (1, 2, 4, 8) bytes in [`MONITOR_WINDOW`].
    pub fn memory_read(&mut self, address: u64, length: u8) -> u64 {
        let Some((slot, offset)) = self.memory_slot(address) else { return u64::MAX };
        self.function(slot).map_or(u64::MAX, |f| f.msix().read(offset, length))
    }

    /// The guest writes `length` (1, 2, 4, 8) bytes in [`MONITOR_WINDOW`].
    pub fn memory_write(&mut self, address: u64, length: u8, value: u64) {
        let Some((slot, offset)) = self.memory_slot(address) else { return };
        if let Some(function) = self.function(slot) {
            function.msix().write(offset, length, value);
        }
        self.collect_unmasked(slot);
    }

    /// Bytes that the guest wrote to its serial port; they go to the kernel-console channel, and
    /// are dropped while it is full (a serial line has no way to say so). Answers how many went.
    pub fn serial_output(&mut self, bytes: &[u8]) -> usize {
        let sent = self.console.pipe.send_bytes(bytes);
        self.console.pipe.flush();
        sent
    }

    /// The monitor was notified with these bits (those of no channel are ignored).
    pub fn notified(&mut self, bits: u64) {
        if self.models.is_meant(bits) {
            self.models.interrupts(&mut self.interrupts);
        }
        if self.console.pipe.is_meant(bits) {
            self.serve(1);
        }
        if self.agent.pipe.is_meant(bits) {
            self.serve(2);
        }
        if self.vsock.pipe.is_meant(bits) {
            self.serve(5);
        }
        if self.net.as_ref().is_some_and(|net| net.pipe.is_meant(bits)) {
            self.serve(6);
        }
    }

    /// The next interrupt to deliver.
    pub fn next_interrupt(&mut self) -> Option<Msi> {
        self.interrupts.pop_front()
    }

    /// The VM is over: its last output goes out, and the relay hears that all its connections are
    /// gone. From now on the devices are in reset, and nothing of the guest's memory is read.
    pub fn machine_ended(&mut self) {
        for slot in SLOTS {
            self.serve(slot);
            if let Some(function) = self.function(slot) {
                function.power_off();
            }
        }
        self.serve(5);
        self.models.power_off();
        self.models.interrupts(&mut self.interrupts);
        self.interrupts.clear();
    }

    fn function(&mut self, slot: u8) -> Option<&mut dyn PciFunction> {
        Some(match slot {
            1 => &mut self.console.function,
            2 => &mut self.agent.function,
            5 => &mut self.vsock.function,
            6 => &mut self.net.as_mut()?.function,
            _ => return None,
        })
    }

    fn port_slot(&mut self, port: u16) -> Option<(u8, u16)> {
        SLOTS.into_iter().find_map(|slot| {
            let offset = port.checked_sub(self.function(slot)?.space().port_base()?)?;
            (offset < PORT_BAR_SIZE).then_some((slot, offset))
        })
    }

    fn memory_slot(&mut self, address: u64) -> Option<(u8, u64)> {
        SLOTS.into_iter().find_map(|slot| {
            let offset = address.checked_sub(self.function(slot)?.space().memory_base()?)?;
            (offset < MEMORY_BAR_SIZE).then_some((slot, offset))
        })
    }

    fn config_read(&mut self, port: u16, length: u8) -> u32 {
        let Some(target) = self.bridge.target(port, length) else { return u32::MAX };
        if target.slot == 0 {
            return self.bridge.space.read(target.offset, length);
        }
        if self.models.have(target.slot) {
            return self.models.read(target, length);
        }
        self.function(target.slot).map_or(u32::MAX, |f| f.space().read(target.offset, length))
    }

    fn config_write(&mut self, port: u16, length: u8, value: u32) {
        let Some(target) = self.bridge.target(port, length) else { return };
        if self.models.have(target.slot) {
            self.models.write(target, length, value);
            return self.models.interrupts(&mut self.interrupts);
        }
        if let Some(function) = self.function(target.slot) {
            function.write_space(target.offset, length, value);
            self.collect_unmasked(target.slot);
        }
    }

    fn collect_unmasked(&mut self, slot: u8) {
        while let Some(msi) = self.function(slot).and_then(|f| f.msix().next_unmasked()) {
            self.interrupts.push_back(msi);
        }
    }

    /// Does what can be done now for the device in a slot: the guest kicked one of its queues, or
    /// its channel has something new.
    fn serve(&mut self, slot: u8) {
        let Self { ram, interrupts, .. } = self;
        let mut raise = |msi| interrupts.push_back(msi);
        match slot {
            1 => serve_console(&mut self.console, ram, &mut raise),
            2 => serve_console(&mut self.agent, ram, &mut raise),
            5 => serve_vsock(&mut self.vsock, ram, &mut raise),
            6 => {
                if let Some(net) = &mut self.net {
                    serve_net(net, ram, &mut raise);
                }
            }
            _ => {}
        }
    }
}

fn serve_console<M: Memory>(joined: &mut Joined<Console>, ram: &M, raise: &mut impl FnMut(Msi)) {
    let Joined { function: Function { model, queues, .. }, pipe } = joined;
    model.output(queues, ram, |bytes| pipe.send_bytes(bytes));
    while let Some(bytes) = pipe.received() {
        let taken = model.input(queues, ram, bytes);
        if taken == 0 {
            break;
        }
        pipe.consume(taken);
    }
    pipe.flush();
    joined.function.publish(ram, raise);
}

fn serve_vsock<M: Memory>(joined: &mut Joined<Vsock>, ram: &M, raise: &mut impl FnMut(Msi)) {
    let Joined { function: Function { model, queues, .. }, pipe } = joined;
    while let Some(bytes) = pipe.received() {
        let length = bytes.len();
        match Record::decode(bytes) {
            Some(record) => model.request(&record),
            None => rt::log!("malformed record from the relay: skipped"),
        }
        pipe.consume(length);
    }
    model.run(queues, ram, |record| {
        let mut raw = [0; MAX_RECORD];
        let length = record.encode(&mut raw);
        pipe.send(raw.get(..length).unwrap_or(&[]))
    });
    pipe.flush();
    joined.function.publish(ram, raise);
}

fn serve_net<M: Memory>(joined: &mut Joined<Net>, ram: &M, raise: &mut impl FnMut(Msi)) {
    let Joined { function: Function { model, queues, .. }, pipe } = joined;
    model.output(queues, ram, |frame| pipe.send(frame));
    while model.can_input(queues, ram) {
        let Some(frame) = pipe.received() else { break };
        let length = frame.len();
        model.input(queues, ram, frame);
        pipe.consume(length);
    }
    pipe.flush();
    joined.function.publish(ram, raise);
}
