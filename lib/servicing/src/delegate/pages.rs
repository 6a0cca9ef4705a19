//! The memory of a mailbox: pages of the service VM that lie anywhere.
use alloc::vec::Vec;
use linux_abi::Errno;
use memory::{Memory, OutOfBounds, check};
use paging::{Access, PAGE, Space};
use wire::layout;

/// The pages of a mailbox, in order, as one memory.
#[derive(Clone, Copy)]
pub struct Pages<'w> {
    pub(super) memory: &'w dyn Memory,
    pub(super) frames: &'w [u64],
}

impl Pages<'_> {
    fn each(
        &self,
        offset: u64,
        length: usize,
        mut part: impl FnMut(u64, usize, usize) -> Result<(), OutOfBounds>,
    ) -> Result<(), OutOfBounds> {
        check(offset, length as u64, self.len(), 1)?;
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let inside = at % PAGE;
            let outside = OutOfBounds { offset, length: length as u64 };
            let frame = self.frames.get((at / PAGE) as usize).ok_or(outside)?;
            let n = ((PAGE - inside) as usize).min(length - done);
            part(frame + inside, done, n)?;
            done += n;
        }
        Ok(())
    }
}

impl Memory for Pages<'_> {
    fn len(&self) -> u64 {
        self.frames.len() as u64 * PAGE
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        let length = into.len();
        self.each(offset, length, |at, from, n| match into.get_mut(from..from + n) {
            Some(to) => self.memory.read(at, to),
            None => Err(OutOfBounds { offset, length: length as u64 }),
        })
    }
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        let length = from.len();
        self.each(offset, length, |at, first, n| match from.get(first..first + n) {
            Some(bytes) => self.memory.write(at, bytes),
            None => Err(OutOfBounds { offset, length: length as u64 }),
        })
    }
    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        let frame = self.frame(offset)?;
        self.memory.load32(frame)
    }
    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        let frame = self.frame(offset)?;
        self.memory.store32(frame, value)
    }
}

impl Pages<'_> {
    /// Where an aligned word lies.
    fn frame(&self, offset: u64) -> Result<u64, OutOfBounds> {
        check(offset, 4, self.len(), 4)?;
        let frame = self.frames.get((offset / PAGE) as usize);
        Ok(frame.ok_or(OutOfBounds { offset, length: 4 })? + offset % PAGE)
    }
}

/// The physical pages of a mailbox.
pub(super) fn frames(memory: &dyn Memory, cr3: u64, address: u64) -> Result<Vec<u64>, Errno> {
    if !address.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let space = Space::running(memory, cr3);
    let mut frames = Vec::with_capacity((layout::LENGTH / PAGE) as usize);
    for n in 0..layout::LENGTH / PAGE {
        let at = address.checked_add(n * PAGE).ok_or(Errno::EFAULT)?;
        let found = space.find(at, Access::Write).map_err(|_| Errno::EFAULT)?;
        check(found.physical, PAGE, memory.len(), PAGE).map_err(|_| Errno::EFAULT)?;
        frames.push(found.physical);
    }
    Ok(frames)
}
