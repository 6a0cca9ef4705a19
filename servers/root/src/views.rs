//! Private views of files, which the image manager keeps: what a client writes to is copied for it.
use crate::boot::Builder;
use crate::program::RW;
use crate::{Failure, own};
use abi::{MemRights, PAGE_SIZE, RootSelector};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use backing::Tag;

/// A private view.
#[derive(Clone, Copy)]
pub struct View {
    /// Where it begins in the boot archive.
    pub from: u64,
    /// Bytes of it that are in the file; the others are zeros.
    pub in_file: u64,
    /// Bytes.
    pub length: u64,
    /// Number of the program.
    pub client: usize,
    /// Most bytes of copies.
    pub copies: u64,
}

impl Builder {
    /// Declares a view: the tag of its region.
    pub fn view(&mut self, view: View) -> Result<u64, Failure> {
        let object = (self.files.len() + self.views.len()) as u32;
        self.views.push(view);
        Tag { object, offset: 0 }.encode().ok_or_else(|| Failure("tag".into()))
    }

    /// Tells the image manager of all views, and gives it memory for copies.
    pub fn give_views(&mut self) -> Result<(), Failure> {
        let (mut list, mut quotas) = (String::new(), BTreeMap::new());
        for view in &self.views {
            list.push_str(&format!(
                "{}:{}:{}:{},",
                view.from, view.in_file, view.length, view.client
            ));
            *quotas.entry(view.client).or_insert(0) += view.copies.next_multiple_of(PAGE_SIZE);
        }
        let length: u64 = quotas.values().sum();
        if length == 0 {
            return Ok(());
        }
        let table = (length / PAGE_SIZE * 8).next_multiple_of(PAGE_SIZE);
        let ram = own(RootSelector::Ram);
        let (pool_at, table_at) =
            (self.ram.take(length, PAGE_SIZE, false)?, self.ram.take(table, PAGE_SIZE, true)?);
        let derived = self.selector();
        let rights = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
        rt::sys::mem_derive(derived, ram, pool_at, length, rights)
            .map_err(Failure::kernel("memory for private copies"))?;
        let quotas = quotas.iter().map(|(client, bytes)| format!("{client}:{bytes},"));
        let image = &mut self.programs[1];
        image.config.parameters.push(("views".into(), list));
        image.config.parameters.push(("quotas".into(), quotas.collect()));
        image.show("pool", derived, 0, length, RW, None)?;
        image.grant("pool", derived, rt::sys::ALL_RIGHTS)?;
        image.show("table", ram, table_at, table, RW, None)?;
        for (number, view) in self.views.iter().enumerate().filter(|(_, v)| v.in_file > 0) {
            let (name, archive) = (format!("view-{number}"), own(RootSelector::Archive));
            image.show(&name, archive, view.from, view.in_file, MemRights::READ, None)?;
        }
        Ok(())
    }
}
