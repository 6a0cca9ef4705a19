//! ELF files of native programs: text straight from the boot archive, data as private views of it (of
//! pinned programs: copied).
use crate::boot::Builder;
use crate::given::Filled;
use crate::views::View;
use crate::{Failure, own};
use abi::RootSelector;
use alloc::format;
use backing::Tag;
use executable::{Executable, HEAD};
use rt::sys::{Bind, Pinned};

/// What the file of a program says, checked.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Executable, Failure> {
    let head = &bytes[..HEAD.min(bytes.len())];
    Executable::read(head, bytes.len() as u64, &system::PROGRAM)
        .map_err(|defect| Failure(format!("'{name}' can't be run: {defect}")))
}

impl Builder {
    /// Gives program `n` its code and data.
    pub fn load_program(&mut self, n: usize) -> Result<(), Failure> {
        let declared = self.description.programs[n].clone();
        let bytes = self.contents(&declared.file)?;
        let (number, file) = self.file(&declared.file)?;
        let start = file.offset;
        let space = self.programs[n].space;
        for segment in parse(&declared.file, &bytes)?.segments {
            let length = segment.in_memory;
            let write = segment.is_data();
            let (base, rights, from) = (segment.address, segment.rights, start + segment.offset);
            let in_file = segment.in_file;
            if declared.pinned {
                let given = &mut self.programs[n].given;
                if !write {
                    let memory = own(RootSelector::Archive);
                    given.pinned(space, Pinned { base, memory, offset: from, length, rights })?;
                    continue;
                }
                let at = self.ram.take(length, 4096, false)?;
                let memory = own(RootSelector::Ram);
                given.pinned(space, Pinned { base, memory, offset: at, length, rights })?;
                self.fill(n, Filled { at, length, from, in_file })?;
                continue;
            }
            let cpu = self.programs[n].threads[0].cpu;
            let portal = self.manager_on(1, cpu, n as u64, rights)?;
            let tag = if write {
                self.view(View { from, in_file, length, client: n, copies: length })?
            } else {
                let tag = Tag { object: number, offset: segment.offset };
                tag.encode().ok_or_else(|| Failure("tag".into()))?
            };
            // Code comes in large pieces, data by the page that is copied.
            let hint = if write { 12 } else { 21 };
            let bind = Bind { space, base, length, portal, tag, rights, hint };
            let what = format!("code and data of {}", declared.name);
            self.programs[n].given.managed(bind).map_err(Failure::kernel(what))?;
        }
        Ok(())
    }
}
