//! The loop: what happens, and what is answered.
use crate::clients::{Clients, Kind};
use crate::disk::Disk;
use abi::{
    Access, Error, Event, FaultMessage, FaultReply, MESSAGE_WORDS, MemRights, Message, NO_DEADLINE,
    PAGE_SIZE, Selector,
};
use alloc::vec::Vec;
use backing::Tag;
use backing::losses::Request;
use ledger::Row;
use memory::{Losses, Memory};
use rt::{Shared, log, sys};
use swap_store::{Answer, Chunks, Damage, KEY, SLOT, Sizes, Swap};

/// One part in so many of the memory is for compressed pages.
const PACKED_PART: u64 = 4;
/// Lost pages that are told one by one.
const MOST_REPORTS: u32 = 16;

/// The manager.
pub struct Manager {
    swap: Swap<Shared, Clients, Disk>,
    pool: Selector,
    ledger: Option<Shared>,
    /// What does not change of the row there.
    row: Row,
    losses: Option<Losses<Shared>>,
    /// Where in the pool the page is that those see who look what is lost.
    blank: u64,
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
        let Some(blank) = memory.len().checked_sub(PAGE_SIZE).filter(|_| packed >= PAGE_SIZE)
        else {
            panic!("region 'pool' is too small: {} bytes", memory.len());
        };
        let sizes = Sizes {
            pages,
            frames: ((memory.len() - packed) / PAGE_SIZE) as u32,
            chunks: ((packed - PAGE_SIZE) / Chunks::SIZE as u64) as u32,
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
        let losses = Shared::region("losses").map(Losses::new);
        let memory = (memory, Shared::region("notes"));
        let (swap, damages) = Swap::new(memory, sizes, clients, disk, &key);
        let mut manager = Self {
            swap,
            pool: Selector(pool),
            ledger: Shared::region("ledger"),
            row,
            losses,
            blank,
            reports: MOST_REPORTS,
        };
        manager.inherit(damages);
        Some(manager)
    }

    /// What is lost from the start, in the order of the pages. Others may look meanwhile, who still see what a manager before this one has
    /// shown them.
    fn inherit(&mut self, damages: Vec<Damage>) {
        if let Some(losses) = &self.losses {
            let pages: Vec<u64> = damages.iter().map(|damage| damage.page.into()).collect();
            losses.renew(|page| pages.binary_search(&page).is_ok());
        }
        damages.into_iter().for_each(|damage| self.lost(damage));
    }

    /// Serves for ever.
    pub fn serve(mut self) -> ! {
        let mut next = sys::wait(NO_DEADLINE);
        loop {
            let mut reply = match next {
                Ok((Event::Fault(badge), words)) => {
                    Some(self.fault(badge, &FaultMessage::decode(&words)))
                }
                Ok((Event::Call(badge), words)) => {
                    // Whoever calls looks at the status alone.
                    Some(self.call(badge, &words).map(|()| FaultReply::Resume))
                }
                Ok((Event::Exit(_), _)) => Some(Err(Error::Refused)),
                _ => None,
            };
            // A request that finished between a fault and its being put off would wake nobody.
            if self.look_at_disk() && reply == Some(Ok(FaultReply::Later)) {
                reply = Some(Ok(FaultReply::Resume));
            }
            self.tell();
            next = match reply {
                None => sys::wait(NO_DEADLINE),
                Some(Ok(answer)) => sys::reply_wait(0, answer.encode(), NO_DEADLINE),
                Some(Err(error)) => sys::reply_wait(error as u64, [0; MESSAGE_WORDS], NO_DEADLINE),
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
        let answer = self.swap.fault(page, badge as u8, write);
        if answer == Answer::Lost {
            // Before anybody sees something in its place.
            self.note_loss(page, true);
            if matches!(client.kind, Kind::Monitor | Kind::View) {
                let rights = MemRights::READ | MemRights::WRITE;
                return Ok(self.show(self.blank, fault.offset, rights));
            }
        }
        match answer {
            Answer::Map { frame, write } => {
                let read = MemRights::READ | MemRights::EXEC;
                let rights = if write { read | MemRights::WRITE } else { read };
                Ok(self.show(u64::from(frame) * PAGE_SIZE, fault.offset, rights))
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

    fn show(&self, at: u64, offset: u64, rights: MemRights) -> FaultReply {
        FaultReply::Map {
            memory: self.pool,
            memory_offset: at,
            region_offset: offset & !(PAGE_SIZE - 1),
            length: PAGE_SIZE,
            rights,
        }
    }

    /// Carries out what the monitor says about a page. Others that call, such as the root server to see that there is an answer, are refused.
    fn call(&mut self, badge: u64, words: &Message) -> Result<(), Error> {
        let is_monitor = self.swap.spaces.get(badge).is_some_and(|c| c.kind == Kind::Monitor);
        let request = Request::decode(words).filter(|_| is_monitor).ok_or(Error::Refused)?;
        match request {
            Request::Whole { page } => {
                self.swap.spaces.unmap_blank(page);
                self.swap.forget(page);
                self.note_loss(page, false);
            }
            Request::Lose { page } => {
                if !self.swap.lose(page) {
                    return Err(Error::BadState);
                }
                self.note_loss(page, true);
            }
        }
        Ok(())
    }

    fn note_loss(&self, page: u32, lost: bool) {
        if let Some(losses) = &self.losses {
            losses.set(page.into(), lost);
        }
    }

    /// A page is lost. Whoever needs it will find that out.
    fn lost(&mut self, damage: Damage) {
        let Damage { page, slot, forged } = damage;
        self.note_loss(page, true);
        if self.reports > 0 {
            self.reports -= 1;
            let why = if forged { "does not hold what was written there" } else { "has errors" };
            let address = u64::from(page) * PAGE_SIZE;
            log!("the page at {address:#x} is lost: place {slot} of the disk {why}");
        }
    }
}
