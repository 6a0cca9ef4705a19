//! Files that a client may write to: its pages are the file's own until it writes to one, which is
//! then copied for it alone.
//!
//! Which frame holds a copy of what stands in a table of words, one a frame, that outlives the manager
//! ([`Copies::recover`]); so a manager that is started anew loses no copy.
use crate::accounts::Accounts;
use crate::{CHUNK, Object, PAGE, Piece};
use abi::Access;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A private view of a part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// The part. It begins at a page of the manager's memory.
    pub file: Object,
    /// Bytes of the view. What is behind the part is zero.
    pub length: u64,
    /// Who may see it, and pays for its copies.
    pub client: u64,
}

/// What to map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Pages of the file itself, which nobody may write to.
    File(Piece),
    /// A page of the client's own.
    Own {
        /// Its frame.
        frame: u32,
        /// Offset in the region.
        region_offset: u64,
        /// The copy is new: this part of the memory with the file comes first in it, and zeros behind.
        fresh: Option<Object>,
    },
}

/// Why there is nothing to map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There is no such view.
    NoView,
    /// It is another client's.
    Foreign,
    /// Outside of the view.
    Outside,
    /// The client's quota, or the manager's memory for copies, is used up.
    Exhausted,
}

/// All views and all copies.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    views: Vec<View>,
    accounts: Accounts,
    /// View and page → frame.
    owned: BTreeMap<(u32, u64), u32>,
    free: Vec<u32>,
}

const VIEW_SHIFT: u32 = 40;

/// The table's word for a frame with a copy of a page of a view. Free frames have the word 0.
#[must_use]
pub const fn word(view: u32, page: u64) -> u64 {
    (view as u64 + 1) << VIEW_SHIFT | page
}

impl Copies {
    /// Takes over what the table says, one word for each frame. What makes no sense there, or is there twice, is a free frame.
    pub fn recover(
        views: Vec<View>,
        accounts: Accounts,
        table: impl IntoIterator<Item = u64>,
    ) -> Self {
        let mut copies = Self { views, accounts, ..Self::default() };
        for (frame, word) in (0..).zip(table) {
            let (view, page) = (word >> VIEW_SHIFT, word & ((1 << VIEW_SHIFT) - 1));
            let view = view.checked_sub(1).and_then(|v| u32::try_from(v).ok());
            let known = view.and_then(|v| Some((v, copies.views.get(v as usize)?)));
            match known {
                Some((number, view))
                    if page < view.length.div_ceil(PAGE)
                        && !copies.owned.contains_key(&(number, page)) =>
                {
                    copies.accounts.take_over(view.client, PAGE);
                    copies.owned.insert((number, page), frame);
                }
                _ => copies.free.push(frame),
            }
        }
        copies.free.reverse();
        copies
    }

    /// Pages that are copies.
    #[must_use]
    pub fn count(&self, view: u32) -> u64 {
        self.owned.range((view, 0)..=(view, u64::MAX)).count() as u64
    }

    /// An access of `client` at `offset` of a region of `region_length` bytes that shows view
    /// `number` from `start` on.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn answer(
        &mut self,
        (client, number): (u64, u32),
        start: u64,
        (offset, region_length): (u64, u64),
        access: Access,
    ) -> Result<Answer, Refusal> {
        let view = *self.views.get(number as usize).ok_or(Refusal::NoView)?;
        if view.client != client {
            return Err(Refusal::Foreign);
        }
        let at = start.checked_add(offset).ok_or(Refusal::Outside)?;
        if offset >= region_length || at >= view.length.next_multiple_of(PAGE) {
            return Err(Refusal::Outside);
        }
        let page = at / PAGE;
        let region_offset = offset - offset % PAGE;
        if let Some(frame) = self.owned.get(&(number, page)) {
            return Ok(Answer::Own { frame: *frame, region_offset, fresh: None });
        }
        let whole = (page + 1) * PAGE <= view.file.length;
        if whole && access != Access::Write {
            let piece = self.shared(number, &view, page, (start, region_length));
            return piece.map(Answer::File).ok_or(Refusal::Outside);
        }
        let frame = *self.free.last().ok_or(Refusal::Exhausted)?;
        self.accounts.charge(client, PAGE).map_err(|_| Refusal::Exhausted)?;
        self.free.pop();
        self.owned.insert((number, page), frame);
        let length = view.file.length.saturating_sub(page * PAGE).min(PAGE);
        let base = view.file.base.saturating_add(page * PAGE);
        Ok(Answer::Own { frame, region_offset, fresh: Some(Object { base, length }) })
    }

    /// The pages around one that the region shows, the file holds whole, and nobody has copied: at
    /// most a chunk.
    fn shared(
        &self,
        number: u32,
        view: &View,
        page: u64,
        (start, region_length): (u64, u64),
    ) -> Option<Piece> {
        let key = |page: u64| (number, page);
        let before = self.owned.range(key(0)..key(page)).next_back().map_or(0, |(k, _)| k.1 + 1);
        let after =
            self.owned.range(key(page)..=key(u64::MAX)).next().map_or(u64::MAX, |(k, _)| k.1);
        let chunk = CHUNK / PAGE;
        let first = before.max(page - page % chunk).max(start / PAGE);
        let region_end = start.checked_add(region_length)? / PAGE;
        let end = after.min((page - page % chunk).saturating_add(chunk));
        let end = end.min(view.file.length / PAGE).min(region_end);
        if first > page || page >= end {
            return None;
        }
        Some(Piece {
            memory_offset: view.file.base.checked_add(first * PAGE)?,
            region_offset: first * PAGE - start,
            length: (end - first) * PAGE,
            chunk: page / chunk,
        })
    }
}

#[cfg(test)]
mod tests;
