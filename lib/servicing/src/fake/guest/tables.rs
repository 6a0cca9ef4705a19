//! Page tables of the fake compute VM.
use super::*;

impl Guest {
    pub fn frame(&mut self) -> u64 {
        self.next_frame += 0x1000;
        self.next_frame
    }

    pub fn put(&self, at: u64, value: u64) {
        self.world.compute.write(at, &value.to_le_bytes()).unwrap();
    }

    pub fn map(&mut self, cr3: u64, address: u64, frame: u64, flags: u64) {
        let mut table = cr3;
        for shift in [39, 30, 21] {
            let at = table + ((address >> shift) & 511) * 8;
            let mut entry = self.world.compute.read64(at).unwrap();
            if entry & 1 == 0 {
                entry = self.frame() | 7;
                self.put(at, entry);
            }
            table = entry & !0xfff;
        }
        self.put(table + ((address >> 12) & 511) * 8, frame | flags);
    }

    pub(super) fn leaf(&self, cr3: u64, address: u64) -> u64 {
        let mut table = cr3;
        for shift in [39, 30, 21, 12] {
            let entry = self.world.compute.read64(table + ((address >> shift) & 511) * 8).unwrap();
            if entry & 1 == 0 {
                return 0;
            }
            table = entry & !0xfff;
            if shift == 12 {
                return entry;
            }
        }
        0
    }

    /// The page-table root of a process.
    pub fn cr3(&self, process: usize) -> Option<u64> {
        Some(self.processes.get(process)?.cr3)
    }

    pub fn tables(&self, process: usize) -> paging::Space<'_, Fake> {
        paging::Space::running(&self.world.compute, self.processes[process].cr3)
    }
}
