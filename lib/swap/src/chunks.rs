//! The store of compressed pages: chunks of equal size, each page in a chain of them. So nothing is
//! ever moved, and at most one chunk less a byte is wasted for each page.
use alloc::vec;
use alloc::vec::Vec;
use memory::Memory;

/// No chunk, and no owner.
const NONE: u32 = u32::MAX;

/// The chunks, in a part of a memory.
#[derive(Debug)]
pub struct Chunks {
    /// Where the first one begins.
    base: u64,
    /// The next one of the chain, of used and of free chunks.
    next: Vec<u32>,
    /// For the first chunk of a chain: whose it is; otherwise [`NONE`].
    owner: Vec<u32>,
    /// For the first chunk of a chain: bytes stored.
    length: Vec<u16>,
    first_free: u32,
    free: u32,
    /// Chains that were claimed: whose, bytes, chunks.
    claims: Vec<(u32, u16, Vec<u32>)>,
    /// Where the search for the oldest chain goes on: chunks are used in turn, more or less.
    hand: usize,
}

impl Chunks {
    /// Bytes of a chunk.
    pub const SIZE: usize = 512;

    /// `count` free chunks that begin at `base` of the memory.
    #[must_use]
    pub fn new(base: u64, count: u32) -> Self {
        let next = (1..=count).map(|n| if n == count { NONE } else { n }).collect();
        Self {
            base,
            next,
            owner: vec![NONE; count as usize],
            length: vec![0; count as usize],
            first_free: if count == 0 { NONE } else { 0 },
            free: count,
            claims: Vec::new(),
            hand: 0,
        }
    }

    /// Free chunks.
    #[must_use]
    pub const fn free(&self) -> u32 {
        self.free
    }

    /// All chunks.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.next.len() as u32
    }

    /// True when there is room for that many bytes.
    #[must_use]
    pub fn fits(&self, length: usize) -> bool {
        length.div_ceil(Self::SIZE) <= self.free as usize
    }

    fn at(&self, chunk: u32) -> u64 {
        self.base + u64::from(chunk) * Self::SIZE as u64
    }

    /// Stores bytes (1 to 64 KiB) for an owner: the name of the chain.
    pub fn store(&mut self, memory: &impl Memory, owner: u32, bytes: &[u8]) -> Option<u32> {
        let length = u16::try_from(bytes.len()).ok()?;
        if bytes.is_empty() || !self.fits(bytes.len()) {
            return None;
        }
        let head = self.first_free;
        let mut last = head;
        let mut at = head;
        for part in bytes.chunks(Self::SIZE) {
            memory.write(self.at(at), part).ok()?;
            last = at;
            at = *self.next.get(at as usize)?;
            self.free -= 1;
        }
        self.first_free = at;
        *self.next.get_mut(last as usize)? = NONE;
        *self.owner.get_mut(head as usize)? = owner;
        *self.length.get_mut(head as usize)? = length;
        Some(head)
    }

    /// Each chunk of a chain and what follows it.
    pub fn links(&self, head: u32) -> impl Iterator<Item = (u32, u32)> {
        let mut at = head;
        (0..self.length(head).div_ceil(Self::SIZE)).map_while(move |_| {
            let link = (at, *self.next.get(at as usize)?);
            at = link.1;
            Some(link)
        })
    }

    /// A chain is said to be there, linked as `next` says: true when it is whole and nobody else has a part of it.
    /// [`Chunks::claimed`] follows, after the last one.
    pub fn claim(
        &mut self,
        head: u32,
        owner: u32,
        length: u16,
        next: impl Fn(u32) -> Option<u32>,
    ) -> bool {
        let count = usize::from(length).div_ceil(Self::SIZE);
        let all: Vec<u32> =
            core::iter::successors(Some(head), |at| next(*at)).take(count).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        sorted.dedup();
        // Free chunks are linked to those behind them, and claimed ones never to themselves.
        let free = |at: &u32| self.next.get(*at as usize).is_some_and(|next| *next != *at);
        if sorted.len() != count || !all.iter().all(free) {
            return false;
        }
        self.claims.push((owner, length, all.clone()));
        for at in all {
            if let Some(next) = self.next.get_mut(at as usize) {
                *next = at;
            }
        }
        true
    }

    /// Chunks that nobody has claimed are free.
    pub fn claimed(&mut self) {
        let claims = core::mem::take(&mut self.claims);
        let free = (0..).zip(&self.next).filter(|(at, next)| at != *next).map(|(at, _)| at);
        let free: Vec<u32> = free.collect();
        self.free = free.len() as u32;
        self.first_free = free.first().copied().unwrap_or(NONE);
        self.chain(&free);
        for (owner, length, all) in claims {
            self.chain(&all);
            let Some(head) = all.first().map(|head| *head as usize) else { continue };
            self.owner[head] = owner;
            self.length[head] = length;
        }
    }

    /// Links chunks in this order.
    fn chain(&mut self, list: &[u32]) {
        let next = list.iter().skip(1).copied().chain([NONE]);
        for (at, next) in list.iter().zip(next) {
            if let Some(place) = self.next.get_mut(*at as usize) {
                *place = next;
            }
        }
    }

    /// Bytes of a chain; 0 for a name of none.
    #[must_use]
    pub fn length(&self, head: u32) -> usize {
        self.length.get(head as usize).copied().unwrap_or(0).into()
    }

    /// Copies a chain out: how many bytes it had.
    pub fn load(&self, memory: &impl Memory, head: u32, into: &mut [u8]) -> Option<usize> {
        let length = self.length(head);
        let mut at = head;
        for part in into.get_mut(..length)?.chunks_mut(Self::SIZE) {
            memory.read(self.at(at), part).ok()?;
            at = *self.next.get(at as usize)?;
        }
        Some(length)
    }

    /// Frees a chain.
    pub fn release(&mut self, head: u32) {
        let Some(owner) = self.owner.get_mut(head as usize) else { return };
        if core::mem::replace(owner, NONE) == NONE {
            return;
        }
        let mut last = head;
        self.free += 1;
        while let Some(next) = self.next.get(last as usize).copied().filter(|next| *next != NONE) {
            last = next;
            self.free += 1;
        }
        if let Some(end) = self.next.get_mut(last as usize) {
            *end = core::mem::replace(&mut self.first_free, head);
        }
    }

    /// A chain that has been there for long, and its owner.
    pub fn oldest(&mut self) -> Option<(u32, u32)> {
        let count = self.owner.len();
        for _ in 0..count {
            let at = self.hand % count;
            self.hand = at + 1;
            if let Some(owner) = self.owner.get(at).copied().filter(|owner| *owner != NONE) {
                return Some((at as u32, owner));
            }
        }
        None
    }
}
