//! Private views of files.
//!
//! Configuration: parameter `views`, a list `offset:bytes in the file:bytes:client,…`, numbered on
//! from the files, the offset being one in the archive; of view `n` the region `view-n` shows what
//! of the archive it begins with. Region and capability `pool`: frames for copies; parameter `quotas`, a list
//! `client:bytes,…` of what each client may have of them; region `table`, a word for each frame, which
//! is what is left of this program should it fail.
use abi::{Error, FaultMessage, FaultReply, MemRights, PAGE_SIZE, Selector};
use alloc::format;
use alloc::vec::Vec;
use backing::accounts::Accounts;
use backing::copies::{Answer, Copies, Refusal, View, word};
use backing::{Object, tuples};
use rt::{Shared, log};

/// All views, their copies, and where these are.
pub struct Private {
    copies: Copies,
    /// Where each view's file begins in the archive, and that part of it.
    files: Vec<(u64, Option<Shared>)>,
    pool: (Shared, Selector),
    table: Shared,
}

impl Private {
    /// What the configuration declares, if it declares any.
    pub fn from_config() -> Option<Self> {
        let config = rt::config();
        let text = config.parameter("views")?;
        let mut views = Vec::new();
        let mut files = Vec::new();
        for (number, view) in tuples(text).enumerate() {
            let [base, in_file, length, client] = match view {
                Ok(view) => view,
                Err(part) => panic!("parameter 'views' is malformed at '{part}'"),
            };
            views.push(View { file: Object { base, length: in_file }, length, client });
            files.push((base, Shared::region(&format!("view-{number}"))));
        }
        let accounts = match Accounts::list(config.parameter("quotas").unwrap_or("")) {
            Ok(accounts) => accounts,
            Err(part) => panic!("parameter 'quotas' is malformed at '{part}'"),
        };
        let (Some(pool), Some(table)) = (Shared::region("pool"), Shared::region("table")) else {
            panic!("no regions 'pool' and 'table' in the configuration");
        };
        let Some(memory) = config.capability("pool") else {
            panic!("no capability 'pool' in the configuration");
        };
        let words = 0..pool.length() / PAGE_SIZE;
        let words = words.map(|frame| table.read_register(frame * 8, 8).unwrap_or(0));
        let copies = Copies::recover(views, accounts, words);
        Some(Self { copies, files, pool: (pool, Selector(memory)), table })
    }

    /// Answers a fault in a region that shows view `number` from `start` on.
    pub fn serve(
        &mut self,
        badge: u64,
        number: u32,
        start: u64,
        fault: &FaultMessage,
        archive: Selector,
    ) -> Result<FaultReply, Error> {
        let place = (fault.offset, fault.region_length);
        let answer = self.copies.answer((badge, number), start, place, fault.access);
        let (frame, region_offset, fresh) = match answer {
            Ok(Answer::File(piece)) => return Ok(crate::of_file(archive, &piece)),
            Ok(Answer::Own { frame, region_offset, fresh }) => (frame, region_offset, fresh),
            Err(refusal) => {
                log!("client {badge}, private view {number}: {refusal:?}");
                return Err(match refusal {
                    Refusal::NoView => Error::NoRegion,
                    Refusal::Foreign => Error::NoRight,
                    Refusal::Outside => Error::BadAddress,
                    Refusal::Exhausted => Error::NoMemory,
                });
            }
        };
        let at = u64::from(frame) * PAGE_SIZE;
        if let Some(from) = fresh {
            let page = (start + region_offset) / PAGE_SIZE;
            self.fill(number, frame, from, page).ok_or(Error::BadAddress)?;
        }
        Ok(FaultReply::Map {
            memory: self.pool.1,
            memory_offset: at,
            region_offset,
            length: PAGE_SIZE,
            rights: MemRights::READ | MemRights::WRITE | MemRights::EXEC,
        })
    }

    /// Fills a frame, and then writes down whose it is.
    fn fill(&self, number: u32, frame: u32, from: Object, page: u64) -> Option<()> {
        let at = u64::from(frame) * PAGE_SIZE;
        let pool = &self.pool.0;
        pool.zero(at + from.length, PAGE_SIZE.checked_sub(from.length)?).ok()?;
        if from.length > 0 {
            let (base, file) = self.files.get(number as usize)?;
            file.as_ref()?.copy_to(from.base.checked_sub(*base)?, pool, at, from.length).ok()?;
        }
        self.table.write_register(u64::from(frame) * 8, 8, word(number, page)).ok()
    }
}
