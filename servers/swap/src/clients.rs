//! The regions that show the memory: of the guest, of its monitor, of other programs.
use abi::{PAGE_SIZE, Selector};
use alloc::vec::Vec;
use rt::sys;
use swap_store::{MOST_SPACES, Spaces};

/// Whose region it is, which makes a difference when a page is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The virtual machine's, whose monitor is asked what to do.
    Guest,
    /// Its monitor's, which looks what is lost, and says what becomes of it.
    Monitor,
    /// Another program's that looks what is lost.
    View,
    /// Another program's. It gets an error.
    Program,
}

/// One region.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    space: Selector,
    base: u64,
    /// Whose it is.
    pub kind: Kind,
}

/// All of them; the index is the badge of the region's portal.
pub struct Clients(Vec<Client>);

impl Clients {
    /// Reads a list `space:base:kind,…`.
    ///
    /// # Errors
    /// The part that is malformed, or the one too many.
    pub fn parse(text: &str) -> Result<Self, &str> {
        let mut list = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let client = Self::client(part).filter(|_| list.len() < usize::from(MOST_SPACES));
            list.push(client.ok_or(part)?);
        }
        Ok(Self(list))
    }

    fn client(part: &str) -> Option<Client> {
        let mut words = part.split(':');
        let space = Selector(words.next()?.parse().ok()?);
        let base = words.next()?.parse().ok()?;
        let kind = match words.next()? {
            "guest" => Kind::Guest,
            "monitor" => Kind::Monitor,
            "view" => Kind::View,
            "program" => Kind::Program,
            _ => return None,
        };
        Some(Client { space, base, kind })
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// The region behind a badge.
    pub fn get(&self, badge: u64) -> Option<Client> {
        self.0.get(usize::try_from(badge).ok()?).copied()
    }

    /// Nobody who looks what is lost has something in place of this page mapped any more.
    pub fn unmap_blank(&self, page: u32) {
        let looks = |client: &&Client| matches!(client.kind, Kind::Monitor | Kind::View);
        for client in self.0.iter().filter(looks) {
            let address = client.base + u64::from(page) * PAGE_SIZE;
            // Fails only where space or region are gone, and with them the mapping.
            let _ = sys::unmap(client.space, address, PAGE_SIZE);
        }
    }

    /// The regions of a set, and the page's address there.
    fn each(&self, page: u32, spaces: u8) -> impl Iterator<Item = (Selector, u64)> {
        let in_set = move |(n, _): &(usize, &Client)| spaces & 1 << n != 0;
        let place = move |c: &Client| (c.space, c.base + u64::from(page) * PAGE_SIZE);
        self.0.iter().enumerate().filter(in_set).map(move |(_, client)| place(client))
    }
}

impl Spaces for Clients {
    fn unmap(&mut self, page: u32, spaces: u8) {
        for (space, address) in self.each(page, spaces) {
            // Fails only where space or region are gone, and with them the mapping.
            let _ = sys::unmap(space, address, PAGE_SIZE);
        }
    }

    fn used(&mut self, page: u32, spaces: u8) -> bool {
        // All are asked, since asking clears the mark.
        self.each(page, spaces).fold(false, |any, (space, address)| {
            any | sys::pages_used(space, address, PAGE_SIZE).is_ok_and(|used| used != 0)
        })
    }
}
