//! What `lib/servicing` sees of the machine.
use crate::outbox::Outbox;
use alloc::format;
use core::fmt::Arguments;
use core::ops::Range;
use hostlink::relay::ToHost;
use memory::{Memory, OutOfBounds, check};
use rt::{GuestRam, Shared, time};
use servicing::{Window, World};
use wire::vsock::Record;

/// Guest-physical address of the root image, which guests map with DAX.
const IMAGE_AT: u64 = 1 << 32;

/// Guest-physical memory of a VM: its RAM, and the root image, which is only read. Constants of
/// programs lie there, such as the text that they send.
struct GuestMemory {
    ram: GuestRam,
    image: Option<Shared>,
}

impl Memory for GuestMemory {
    fn len(&self) -> u64 {
        self.image.map_or(self.ram.len(), |image| IMAGE_AT + image.len())
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        match (self.image, offset.checked_sub(IMAGE_AT)) {
            (Some(image), Some(inside)) => read_file(&image, inside, into),
            _ => self.ram.read(offset, into),
        }
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        self.ram.write(offset, from)
    }

    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        self.ram.load32(offset)
    }

    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        self.ram.store32(offset, value)
    }

    fn read64(&self, offset: u64) -> Result<u64, OutOfBounds> {
        match self.image {
            Some(_) if offset >= IMAGE_AT => {
                let mut bytes = [0; 8];
                self.read(offset, &mut bytes)?;
                Ok(u64::from_le_bytes(bytes))
            }
            _ => self.ram.read64(offset),
        }
    }
}

/// Reads a file that ends within a page: what a guest sees behind its end is zero.
fn read_file(file: &Shared, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
    let whole = file.len().next_multiple_of(abi::LARGE_PAGE_SIZE);
    check(offset, into.len() as u64, whole, 1)?;
    let there = file.len().saturating_sub(offset).min(into.len() as u64) as usize;
    let (bytes, rest) = into.split_at_mut(there);
    rest.fill(0);
    file.read(offset, bytes)
}

/// The memory of the interception form *stub*.
struct StubMemory {
    at: u64,
    code: Shared,
    data: Shared,
}

impl StubMemory {
    fn open() -> Option<Self> {
        let at = rt::config().number("stub-code-at")?;
        Some(Self { at, code: Shared::region("stub-code")?, data: Shared::region("stub-data")? })
    }
}

/// Memory of both VMs and the channels.
pub struct Surroundings {
    compute: GuestMemory,
    service: Shared,
    stub: Option<StubMemory>,
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
        let (Some(compute), Some(service)) =
            (Shared::guest_ram("ram-compute"), Shared::region("ram-service"))
        else {
            panic!("no region 'ram-compute' or 'ram-service' in the configuration");
        };
        Self {
            compute: GuestMemory { ram: compute, image: Shared::region("image") },
            service,
            stub: StubMemory::open(),
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

    fn image(&self) -> Range<u64> {
        let length = self.compute.image.map_or(0, |image| image.len());
        IMAGE_AT..IMAGE_AT + length
    }

    fn room(&self) -> bool {
        rt::heap_used() < rt::heap_size() / 4 * 3
    }

    fn window(&self) -> Option<Window<'_>> {
        self.stub.as_ref().map(|s| Window { at: s.at, code: &s.code, data: &s.data })
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
