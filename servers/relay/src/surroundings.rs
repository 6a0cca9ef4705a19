//! What `lib/servicing` sees of the machine.
use crate::outbox::Outbox;
use alloc::format;
use core::fmt::Arguments;
use hostlink::relay::ToHost;
use memory::Memory;
use rt::{Shared, time};
use servicing::World;
use wire::vsock::Record;

/// Memory of both VMs and the channels.
pub struct Surroundings {
    compute: Shared,
    service: Shared,
    /// To the compute VM's monitor.
    pub vsock_compute: Outbox,
    /// To the service VM's monitor.
    pub vsock_service: Outbox,
    /// To the host.
    pub host: Outbox,
}

impl Surroundings {
    /// From the configuration.
    ///
    /// # Panics
    /// When the configuration lacks something.
    pub fn open() -> Self {
        let ram = |name: &str| {
            let Some(ram) = Shared::region(name) else {
                panic!("no region '{name}' in the configuration");
            };
            ram
        };
        Self {
            compute: ram("ram-compute"),
            service: ram("ram-service"),
            vsock_compute: Outbox::open("vsock-compute"),
            vsock_service: Outbox::open("vsock-service"),
            host: Outbox::open("relay"),
        }
    }

    /// Sends what waits on all channels.
    pub fn flush(&self) {
        self.vsock_compute.flush();
        self.vsock_service.flush();
        self.host.flush();
    }
}

impl World for Surroundings {
    fn compute(&self) -> &dyn Memory {
        &self.compute
    }

    fn service(&self) -> &dyn Memory {
        &self.service
    }

    fn now(&self) -> u64 {
        let khz = u128::from(rt::config().tsc_khz.max(1));
        (u128::from(time::now().get()) * 1_000_000 / khz) as u64
    }

    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        if !rt::random(&mut bytes) {
            // Without a source of random numbers identities can't be proved: better to stop.
            panic!("the processor gives no random numbers");
        }
        u64::from_le_bytes(bytes)
    }

    fn relax(&self) {
        core::hint::spin_loop();
    }

    fn to_compute(&self, record: &Record) {
        send(&self.vsock_compute, record);
    }

    fn to_service(&self, record: &Record) {
        send(&self.vsock_service, record);
        // A sleeping delegate is on the other processor: it can start while this one goes on.
        self.vsock_service.flush();
    }

    fn log(&self, line: Arguments<'_>) {
        rt::log!("{line}");
        self.host.send(&ToHost::Log { text: format!("{line}") }.encode());
    }

    fn call(&self, line: Arguments<'_>) {
        self.host.send(&ToHost::Call { text: format!("{line}") }.encode());
    }

    fn service_ready(&self, ready: bool) {
        self.host.send(&ToHost::Service { ready }.encode());
    }
}

fn send(outbox: &Outbox, record: &Record) {
    let mut bytes = [0; wire::vsock::MAX_RECORD];
    let length = record.encode(&mut bytes);
    outbox.send(bytes.get(..length).unwrap_or(&[]));
}
