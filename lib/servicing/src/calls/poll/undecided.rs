//! Sockets in a wait that have not committed, and `epoll` instances without a remote half: another thread may make
//! them remote meanwhile. Then what is waited for is divided anew.
use super::super::commit::expect;
use super::super::split::Split;
use super::{Mask, Room, wait_local};
use crate::cx::Cx;
use crate::table::{Resource, State};
use crate::wake::Wake;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_abi::{Errno, PollFd};

/// Those of one wait.
pub struct Undecided(Vec<Rc<Resource>>);

impl Undecided {
    /// Looks for them among what the program's kernel answers for.
    pub fn new(cx: &Cx, entries: &[PollFd], split: &Split) -> Self {
        let entry = |place: &usize| cx.table.get(entries.get(*place)?.fd as u64);
        let found = split.local_places.iter().filter_map(entry).map(|entry| entry.resource);
        Self(found.filter(|resource| resource.state.get() == State::Undecided).collect())
    }

    /// True when there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when one has become remote.
    pub fn changed(&self) -> bool {
        let decided = |r: &Rc<Resource>| !matches!(r.state.get(), State::Undecided | State::Local);
        self.0.iter().any(|r| decided(r) && r.committing.get().is_none())
    }

    /// A thread is to be woken when one becomes remote.
    pub fn arm(&self, wake: &Rc<Wake>) {
        for resource in &self.0 {
            match &resource.epoll {
                Some(epoll) => epoll.expect(wake),
                None => expect(resource, wake),
            }
        }
    }

    /// Waits where nothing is remote yet: until something is ready, the time is over, or one has become
    /// remote.
    ///
    /// # Errors
    /// Those of `ppoll`, and what kept the thread from waiting.
    pub async fn wait(
        &self,
        cx: &Cx,
        split: &mut Split,
        room: &Room,
        deadline: Option<u64>,
        mask: Mask,
    ) -> Result<(), Errno> {
        let lease = cx.wake().await?;
        loop {
            self.arm(lease.wake());
            if self.changed() {
                return Ok(());
            }
            let waited = wait_local(cx, split, room, (&lease, deadline), mask).await?;
            let Some(result) = waited else { continue };
            if result == 0 || split.local.iter().any(|e| e.revents != 0) {
                return Ok(());
            }
        }
    }
}
