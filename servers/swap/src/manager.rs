//! The loop: what happens, and what is answered.
use crate::clients::{Clients, Kind};
use crate::disk::Disk;
use abi::{
    Access, Error, Event, FaultMessage, FaultReply, MESSAGE_WORDS, MemRights, NO_DEADLINE,
    PAGE_SIZE, Selector,
};
use backing::Tag;
use ledger::Row;
use memory::Memory;
use rt::{Shared, log, sys, time};
use swap_store::{Answer, Chunks, Damage, KEY, SLOT, Sizes, Swap};

/// One part in so many of the memory is for compressed pages.
const PACKED_PART: u64 = 4;
/// How long programs other than the monitor wait when a page is lost, so that the monitor ends its
/// VM before they go on with nothing.
const GRACE_US: u64 = 200_000;
/// Lost pages that are told one by one.
const MOST_REPORTS: u32 = 16;

/// The manager.
pub struct Manager {
    swap: Swap<Shared, Clients, Disk>,
    pool: Selector,
    ledger: Option<Shared>,
    /// What does not change of the row there.
    row: Row,
    /// The monitor's notification and the bits that tell it of a loss.
    monitor: Option<(Selector, u64)>,
    /// When the grace that the first loss began is over.
    grace_ends: Option<u64>,
    reports: u32,
}

fn mebibytes(pages: u32) -> u64 {
    (u64::from(pages) * PAGE_SIZE) >> 20
}

impl Manager {
    /// What the configuration asks for; `None` when that is nothing.
    pub fn from_config() -> Option<Self> {
        let config = rt::config();
        let pages = u32::try_from(config.number("pages")?).ok()?;
        let (Some(memory), Some(pool)) = (Shared::region("pool"), config.capability("pool")) else {
            panic!("no region or capability 'pool' in the configuration");
        };
        let clients = match Clients::parse(config.parameter("clients").unwrap_or("")) {
            Ok(clients) => clients,
            Err(part) => panic!("parameter 'clients' is malformed at '{part}'"),
        };
        let mut key = [0; KEY];
        // A key that can be guessed is none.
        let disk = if rt::random(&mut key) {
            Disk::open()
        } else {
            log!("the processor has no random numbers: no page goes to the disk");
            Disk::none()
        };
        let packed = memory.len() / PACKED_PART / PAGE_SIZE * PAGE_SIZE;
        let sizes = Sizes {
            pages,
            frames: ((memory.len() - packed) / PAGE_SIZE) as u32,
            chunks: (packed / Chunks::SIZE as u64) as u32,
        };
        log!(
            "{} MiB shown, {} MiB of frames, {} MiB for compressed pages, a disk for {} pages",
            mebibytes(pages),
            mebibytes(sizes.frames),
            packed >> 20,
            swap_store::Disk::slots(&disk)
        );
        let row = Row {
            size: u64::from(pages) * PAGE_SIZE,
            quota: memory.len(),
            spaces: clients.count(),
            ..Row::default()
        };
        let monitor = config.capability("monitor").map(Selector);
        let bits = config.number("monitor_bits");
        let memory = (memory, Shared::region("notes"));
        let (swap, damages) = Swap::new(memory, sizes, clients, disk, &key);
        let mut manager = Self {
            swap,
            pool: Selector(pool),
            ledger: Shared::region("ledger"),
            row,
            monitor: monitor.zip(bits),
            grace_ends: None,
            reports: MOST_REPORTS,
        };
        damages.into_iter().for_each(|damage| manager.lost(damage));
        Some(manager)
    }

    /// Serves for ever.
    pub fn serve(mut self) -> ! {
        let mut next = sys::wait(NO_DEADLINE);
        loop {
            let mut reply = match next {
                Ok((Event::Fault(badge), words)) => {
                    Some(self.fault(badge, &FaultMessage::decode(&words)))
                }
                Ok((Event::Call(_) | Event::Exit(_), _)) => Some(Err(Error::Refused)),
                Ok((Event::Timeout, _)) => {
                    sys::fault_retry();
                    None
                }
                _ => None,
            };
            // A request that finished between a fault and its being put off would wake nobody.
            if self.look_at_disk() && reply == Some(Ok(FaultReply::Later)) {
                reply = Some(Ok(FaultReply::Resume));
            }
            self.tell();
            let deadline = self.deadline();
            next = match reply {
                None => sys::wait(deadline),
                Some(Ok(answer)) => sys::reply_wait(0, answer.encode(), deadline),
                Some(Err(error)) => sys::reply_wait(error as u64, [0; MESSAGE_WORDS], deadline),
            };
        }
    }

    /// Writes the ledger.
    fn tell(&self) {
        let Some(ledger) = &self.ledger else { return };
        let (now, counters) = (self.swap.now(), self.swap.counters());
        let bytes = |pages: u32| u64::from(pages) * PAGE_SIZE;
        let row = Row {
            resident: bytes(now.resident),
            resident_most: bytes(now.resident_most),
            shown: bytes(now.shown),
            packed: bytes(now.packed),
            packed_bytes: now.packed_bytes,
            disk: u64::from(now.away) * SLOT as u64,
            faults: counters.faults,
            put_off: counters.later,
            unpacked: counters.unpacked,
            read: counters.read,
            packings: counters.packed,
            written: counters.written,
            dropped: counters.dropped,
            lost: counters.lost,
            ..self.row
        };
        let _ = row.write(ledger, 0);
    }

    fn deadline(&self) -> u64 {
        self.grace_ends.filter(|end| *end > time::now().get()).unwrap_or(NO_DEADLINE)
    }

    /// Takes what the disk has done; true when that was anything.
    fn look_at_disk(&mut self) -> bool {
        let mut news = false;
        loop {
            self.swap.disk.kick();
            while let Some((request, good)) = self.swap.disk.finished() {
                news = true;
                if let Some(damage) = self.swap.finished(request, good) {
                    self.lost(damage);
                }
            }
            if !self.swap.disk.listen() {
                break;
            }
        }
        if news {
            self.swap.disk.kick();
            sys::fault_retry();
        }
        news
    }

    fn fault(&mut self, badge: u64, fault: &FaultMessage) -> Result<FaultReply, Error> {
        let client = self.swap.spaces.get(badge).ok_or(Error::NoRegion)?;
        let offset = Tag::decode(fault.tag).offset.checked_add(fault.offset);
        let page = offset.and_then(|at| u32::try_from(at / PAGE_SIZE).ok());
        let page = page.ok_or(Error::BadAddress)?;
        let write = fault.access == Access::Write;
        let mut answer = self.swap.fault(page, badge as u8, write);
        if answer == Answer::Lost && client.kind != Kind::Guest {
            // The VM is about to end: what its monitor and others read no longer matters, but they
            // must go on.
            if client.kind == Kind::Program && self.in_grace() {
                return Ok(FaultReply::Later);
            }
            self.swap.forget(page);
            answer = self.swap.fault(page, badge as u8, write);
        }
        match answer {
            Answer::Map { frame, write } => {
                let read = MemRights::READ | MemRights::EXEC;
                Ok(FaultReply::Map {
                    memory: self.pool,
                    memory_offset: u64::from(frame) * PAGE_SIZE,
                    region_offset: fault.offset & !(PAGE_SIZE - 1),
                    length: PAGE_SIZE,
                    rights: if write { read | MemRights::WRITE } else { read },
                })
            }
            Answer::Later => Ok(FaultReply::Later),
            Answer::Lost => Err(Error::Gone),
            Answer::Full => {
                log!("memory, compressed memory and disk are full");
                Err(Error::Quota)
            }
            Answer::Outside => Err(Error::BadAddress),
        }
    }

    fn in_grace(&self) -> bool {
        self.grace_ends.is_some_and(|end| time::now().get() < end)
    }

    /// A page is lost. The monitor is told at once: programs that need the page wait for that.
    fn lost(&mut self, damage: Damage) {
        let Damage { page, slot, forged } = damage;
        if self.reports > 0 {
            self.reports -= 1;
            let why = if forged { "does not hold what was written there" } else { "has errors" };
            let address = u64::from(page) * PAGE_SIZE;
            log!("the page at {address:#x} is lost: place {slot} of the disk {why}");
        }
        if self.grace_ends.is_none() {
            self.grace_ends = Some(time::now().get() + time::microseconds(GRACE_US));
            if let Some((monitor, bits)) = self.monitor {
                let _ = sys::signal(monitor, bits);
            }
        }
    }
}
