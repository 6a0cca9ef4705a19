//! Roles about files: read-only, and copied on write. The file holds at each multiple of eight the
//! number of that place.
use crate::Outcome;
use crate::board::{self, Word};
use abi::{Error, MemRights, Selector};
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::Shared;

const PAGE: u64 = 4096;
/// Bytes of the file.
pub const LENGTH: u64 = 5 * PAGE + PAGE / 2;

/// Among the program's initialised data, of which each program has its own.
static INITIALISED: AtomicU64 = AtomicU64::new(41);
/// The same, without a value in the file.
static ZERO: AtomicU64 = AtomicU64::new(0);

/// The file in this program.
pub fn file() -> Result<Shared, String> {
    Shared::region("pattern").ok_or_else(|| "no region 'pattern'".into())
}

fn word(file: &Shared, at: u64) -> u64 {
    file.read_register(at, 8).unwrap_or(u64::MAX)
}

/// Every word is the file's, but those of pages that `written` knows.
pub fn check(file: &Shared, written: impl Fn(u64) -> Option<u64>) -> Outcome {
    for at in (0..LENGTH).step_by(8) {
        let own = written(at / PAGE).filter(|_| at % PAGE == 0);
        let (found, expected) = (word(file, at), own.unwrap_or(at));
        if found != expected {
            return Err(format!("{found:#x} instead of {expected:#x} at {at:#x}"));
        }
    }
    Ok(())
}

/// A client writes its own number to some pages.
struct Client {
    file: Shared,
    number: u64,
    pages: &'static [u64],
}

impl Client {
    fn new(number: u64, pages: &'static [u64]) -> Result<Self, String> {
        Ok(Self { file: file()?, number, pages })
    }

    fn write(&self) -> Outcome {
        let data = INITIALISED.fetch_add(self.number, Ordering::SeqCst);
        let zero = ZERO.fetch_add(self.number, Ordering::SeqCst);
        if (data, zero) != (41, 0) {
            return Err(format!("data {data} and {zero} instead of 41 and 0"));
        }
        for page in self.pages {
            let _ = self.file.write_register(page * PAGE, 8, self.number);
        }
        Ok(())
    }

    fn check(&self) -> Outcome {
        check(&self.file, |page| self.pages.contains(&page).then_some(self.number))?;
        let data = (INITIALISED.load(Ordering::SeqCst), ZERO.load(Ordering::SeqCst));
        if data != (41 + self.number, self.number) {
            return Err(format!("data {data:?} after they were written"));
        }
        let heap = alloc::vec![self.number; 5000];
        if heap.iter().any(|word| *word != self.number) {
            return Err("the heap is not what it was".into());
        }
        Ok(())
    }

    /// Goes on looking at all that it has, through whatever happens to the managers.
    fn go_on(&self, rounds: Word) -> Outcome {
        let kept: alloc::vec::Vec<u64> = (0..4000).collect();
        for round in 1.. {
            self.check()?;
            if !kept.iter().copied().eq(0..4000) {
                return Err("what was on the heap has changed".into());
            }
            board::set(rounds, round);
            board::sleep(5000);
        }
        Ok(())
    }
}

/// Writes to its copy first.
pub fn first() -> Outcome {
    let client = Client::new(0x1111, &[0, 2, 5])?;
    check(&client.file, |_| None)?;
    client.write()?;
    client.check()?;
    board::set(Word::First, 1);
    board::wait_until(Word::Second, 1)?;
    client.go_on(Word::FirstRounds)
}

/// Finds the file as it was, then writes to its own copy.
pub fn second() -> Outcome {
    board::wait_until(Word::First, 1)?;
    let client = Client::new(0x2222, &[2, 3])?;
    check(&client.file, |_| None)?;
    client.write()?;
    client.check()?;
    board::set(Word::Second, 1);
    client.go_on(Word::SecondRounds)
}

/// May copy two pages.
pub fn spender() -> Outcome {
    let file = file()?;
    for page in 0..5 {
        let _ = file.write_register(page * PAGE, 8, 7);
        board::set(Word::Spent, page + 1);
    }
    Err("five pages were copied where the quota is two".into())
}

/// May only read.
pub fn reader() -> Outcome {
    let file = file()?;
    check(&file, |_| None)?;
    // Its regions are its own business, but not what their managers give.
    let region = rt::config().regions.iter().find(|region| region.name == "pattern");
    let region = region.ok_or("no region 'pattern'")?;
    let length = region.length.next_multiple_of(PAGE);
    let rights = MemRights::READ | MemRights::WRITE;
    let raised = rt::sys::region_rights(Selector(0), region.address, length, rights);
    if raised != Err(Error::NoRight) {
        return Err(format!("the right to write to a file: {raised:?}"));
    }
    board::set(Word::Read, 1);
    let _ = file.write_register(0, 8, 7);
    Err("a file was written to that is read-only".into())
}
