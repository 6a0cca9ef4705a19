//! The disk: a modern `virtio-blk-pci`.
use alloc::format;
use alloc::string::{String, ToString};
use rt::{Shared, log};
use swap_store::SLOT;
use virtio_driver::{Device, F_EVENT_IDX, F_INDIRECT, Interrupt, Requests, SECTOR};

/// Requests that can be under way.
const REQUESTS: u16 = 64;
const SECTORS: u64 = SLOT as u64 / SECTOR;

/// The running device.
struct Running {
    device: Device<Shared>,
    requests: Requests<Shared>,
    doorbell: u64,
    slots: u32,
}

/// The disk, if there is one.
pub struct Disk(Option<Running>);

impl Disk {
    /// No disk: what can't be compressed fills the memory up.
    pub const fn none() -> Self {
        Self(None)
    }

    /// The disk that the configuration names.
    pub fn open() -> Self {
        if rt::config().region("config").is_none() {
            return Self::none();
        }
        match Running::start() {
            Ok(running) => Self(Some(running)),
            Err(error) => {
                log!("the disk can't be driven, pages stay in memory: {error}");
                Self::none()
            }
        }
    }

    /// Lets the device see what was started.
    pub fn kick(&mut self) {
        if let Some(running) = &mut self.0
            && running.requests.publish()
        {
            running.device.kick(0, running.doorbell);
        }
    }

    /// A request that has finished, and whether it was carried out.
    pub fn finished(&mut self) -> Option<(u16, bool)> {
        self.0.as_mut()?.requests.finished()
    }

    /// Asks for an interrupt; true when a request has finished meanwhile.
    pub fn listen(&mut self) -> bool {
        self.0.as_mut().is_some_and(|running| running.requests.listen())
    }
}

impl Running {
    fn start() -> Result<Self, String> {
        let show = |e: virtio_driver::Error| e.to_string();
        let region = |name: &str| Shared::region(name).ok_or(format!("no region '{name}'"));
        let device = Device::find(region("config")?, |n| Shared::region(&format!("bar{n}")));
        let device = device.map_err(show)?;
        let features = device.negotiate(F_EVENT_IDX | F_INDIRECT).map_err(show)?;
        if features & F_INDIRECT == 0 {
            return Err("it knows no indirect descriptors".into());
        }
        let base = rt::config().region("dma").and_then(|r| r.physical);
        let base = base.ok_or("DMA memory without physical address")?;
        let size = (REQUESTS, SLOT as u32);
        let event_idx = features & F_EVENT_IDX != 0;
        let requests = Requests::new(region("dma")?, base, 0, size, event_idx);
        let requests = requests.map_err(|_| "too little DMA memory")?;
        let (address, data) = rt::bind_interrupt()?;
        device.set_interrupt(Interrupt { address, data }).map_err(show)?;
        device.set_queue(0, REQUESTS, requests.addresses()).map_err(show)?;
        let doorbell = device.doorbell(0).map_err(show)?;
        device.start().map_err(show)?;
        // `capacity`, in sectors (virtio 1.2, 5.2.4).
        let word = |offset| device.read(offset, 4).map_err(show);
        let sectors = word(0)? | word(4)? << 32;
        let slots = u32::try_from(sectors / SECTORS).unwrap_or(u32::MAX - 1);
        Ok(Self { device, requests, doorbell, slots })
    }
}

impl swap_store::Disk for Disk {
    fn slots(&self) -> u32 {
        self.0.as_ref().map_or(0, |running| running.slots)
    }

    fn requests(&self) -> u16 {
        if self.0.is_some() { REQUESTS } else { 0 }
    }

    fn write(&mut self, request: u16, slot: u32, bytes: &[u8]) {
        let mut record = [0; SLOT];
        let whole = bytes.len().next_multiple_of(SECTOR as usize);
        let (Some(place), Some(running)) = (record.get_mut(..bytes.len()), &mut self.0) else {
            return;
        };
        place.copy_from_slice(bytes);
        let record = record.get(..whole).unwrap_or(&[]);
        // There are as many requests as the queue has buffers, of the size of a slot.
        let _ = running.requests.write(request, u64::from(slot) * SECTORS, record);
    }

    fn read(&mut self, request: u16, slot: u32, length: usize) {
        let Some(running) = &mut self.0 else { return };
        let whole = length.next_multiple_of(SECTOR as usize) as u32;
        let _ = running.requests.read(request, u64::from(slot) * SECTORS, whole);
    }

    fn again(&mut self, request: u16) {
        if let Some(running) = &mut self.0 {
            let _ = running.requests.again(request);
        }
    }

    fn received(&self, request: u16, into: &mut [u8]) {
        if let Some(running) = &self.0 {
            let _ = running.requests.received(request, into);
        }
    }
}
