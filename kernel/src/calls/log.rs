//! `Log`: text of programs in the kernel's log.
use super::Outcome;
use crate::kernel::Kernel;
use crate::machine::{phys, serial};
use crate::object::Space;
use abi::{Error, MemRights, USER_END};
use scheduling::Id;

/// Longest text.
const LONGEST: u64 = 4096;
/// Bytes that are copied at a time.
const PIECE: usize = 256;

/// `Log(pointer, length)`.
pub fn log(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Outcome {
    let (start, length) = (a[0], a[1]);
    if length > LONGEST {
        return Outcome::Done(Err(Error::BadArgument));
    }
    let Some(end) = start.checked_add(length).filter(|end| *end <= USER_END) else {
        return Outcome::Done(Err(Error::BadAddress));
    };
    let Ok(space) = k.spaces.get(own) else { return Outcome::Settled };
    // Everything is checked before the first byte is written.
    if let Err(outcome) = check(space, start, end) {
        return outcome;
    }
    let mut lines = Lines { space: own.index(), open: false };
    let mut buffer = [0; PIECE];
    let mut at = start;
    while at < end {
        let Some(leaf) = space.tables.walk(at) else { break };
        let count = leaf.rest.min(end - at).min(PIECE as u64) as usize;
        phys::copy_out(leaf.phys, &mut buffer[..count]);
        lines.write(&mut buffer[..count]);
        at += count as u64;
    }
    lines.end();
    Outcome::Done(Ok(()))
}

/// Is the whole text there? If not yet, the manager of the region is asked for it.
fn check(space: &Space, start: u64, end: u64) -> Result<(), Outcome> {
    let mut at = start;
    while at < end {
        match space.tables.walk(at) {
            Some(leaf) if !leaf.rights.contains(MemRights::DEVICE) => at += leaf.rest,
            Some(_) => return Err(Outcome::Done(Err(Error::BadAddress))),
            None => {
                let found = space.regions.find(abi::SpaceAddr(at));
                let managed = found.is_some_and(|(_, binding)| binding.portal.is_some());
                return Err(if managed {
                    Outcome::Fault(at)
                } else {
                    Outcome::Done(Err(Error::BadAddress))
                });
            }
        }
    }
    Ok(())
}

/// Starts each line with the number of the space, so that no program can speak in another's name,
/// or the kernel's.
struct Lines {
    space: u32,
    open: bool,
}

impl Lines {
    fn write(&mut self, bytes: &mut [u8]) {
        for line in bytes.split_inclusive_mut(|byte| *byte == b'\n') {
            if !self.open {
                serial::print(format_args!("s{}: ", self.space));
            }
            self.open = line.last() != Some(&b'\n');
            for byte in line.iter_mut().filter(|b| b.is_ascii_control()) {
                if !matches!(*byte, b'\n' | b'\t') {
                    *byte = b'?';
                }
            }
            serial::write(line);
        }
    }

    fn end(self) {
        if self.open {
            serial::write(b"\n");
        }
    }
}
