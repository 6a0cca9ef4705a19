//! What the relay knows of an epoll instance (`epoll(7)`).
//!
//! An instance has two halves: a real one in the program's own kernel, with what is local in it, and
//! a real one in the delegate, with what is remote, made when it is first needed. Remote
//! registrations carry a cookie; what the program wants to see of them is kept here.
use crate::table::Resource;
use crate::wake::Wake;
use alloc::collections::BTreeMap;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_abi::{
    EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLRDHUP, EPOLLRDNORM,
    EPOLLWRNORM, EpollEvent,
};

/// What Linux knows a registration by: the open file (here the resource) and the number.
pub type Key = (u64, i32);

/// Which half a registration is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The program's own kernel has it, and the relay remembers it: a socket that has not
    /// committed, or another epoll instance without a remote half. It may move.
    Local,
    /// The delegate.
    Remote,
    /// Both halves of another instance, or of a listener in both VMs, each in its half of this one.
    Both,
    /// It was the delegate's, which is gone.
    Lost,
}

/// A registration.
#[derive(Clone, Debug)]
pub struct Item {
    /// What is registered.
    pub resource: Weak<Resource>,
    /// Under which number.
    pub fd: i32,
    /// Its name towards the delegate.
    pub cookie: u64,
    /// What is asked for, and the program's data.
    pub event: EpollEvent,
    /// Where it is.
    pub place: Place,
    /// The delegate's descriptor that is registered, where it is not the resource's own.
    pub copy: Option<Rc<Resource>>,
    /// What the local half tells instead of the program's data, where both halves may tell what the
    /// program shall see once (`EPOLLONESHOT`).
    pub alias: Option<u64>,
    /// It has been told, and is not told again until it is modified: its loss, or what one of two halves
    /// has found.
    spent: bool,
}

/// The relay's part of an instance.
#[derive(Debug, Default)]
pub struct Epoll {
    items: RefCell<BTreeMap<u64, Item>>,
    cookies: RefCell<BTreeMap<Key, u64>>,
    next: Cell<u64>,
    /// So many items are too many to not look whether all of them still exist.
    full: Cell<usize>,
    /// Threads that wait for the local half alone.
    waiters: RefCell<Vec<Rc<Wake>>>,
    /// Something may be registered in the local half.
    pub has_local: Cell<bool>,
    /// Other instances have been registered.
    pub has_nested: Cell<bool>,
    /// The local half is looked at first in the next wait.
    pub local_first: Cell<bool>,
}

/// Items before the first look whether all of them still exist. Each that does not holds the memory
/// of its resource, some 450 bytes in all, and a server has an instance for each worker.
const FULL_AT_FIRST: usize = 16;

impl Epoll {
    /// A cookie that is not in use.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.next.set(self.next.get().wrapping_add(1));
        self.next.get()
    }

    /// Enters a registration; one under the same key is replaced.
    pub fn add(&self, resource: &Rc<Resource>, fd: i32, event: EpollEvent, place: Place) -> u64 {
        let cookie = self.cookie();
        let weak = Rc::downgrade(resource);
        let item = Item {
            resource: weak,
            fd,
            cookie,
            event,
            place,
            copy: None,
            alias: None,
            spent: false,
        };
        self.remove((resource.id, fd));
        self.items.borrow_mut().insert(cookie, item);
        self.cookies.borrow_mut().insert((resource.id, fd), cookie);
        self.prune();
        cookie
    }

    /// Forgets what nobody can have open any more, from time to time.
    fn prune(&self) {
        let mut items = self.items.borrow_mut();
        if items.len() <= self.full.get().max(FULL_AT_FIRST) {
            return;
        }
        items.retain(|_, item| item.resource.strong_count() > 0);
        self.cookies.borrow_mut().retain(|_, cookie| items.contains_key(cookie));
        self.full.set(items.len() * 2);
    }

    /// A registration.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Item> {
        let cookie = *self.cookies.borrow().get(&key)?;
        self.items.borrow().get(&cookie).cloned()
    }

    /// Changes a registration.
    pub fn change(&self, key: Key, change: impl FnOnce(&mut Item)) {
        let Some(cookie) = self.cookies.borrow().get(&key).copied() else { return };
        if let Some(item) = self.items.borrow_mut().get_mut(&cookie) {
            change(item);
        }
    }

    /// Takes a registration out.
    pub fn remove(&self, key: Key) -> Option<Item> {
        let cookie = self.cookies.borrow_mut().remove(&key)?;
        self.items.borrow_mut().remove(&cookie)
    }

    /// The registrations of a resource.
    #[must_use]
    pub fn of(&self, resource: u64) -> Vec<Item> {
        let cookies = self.cookies.borrow();
        let items = self.items.borrow();
        let mine = cookies.range((resource, i32::MIN)..=(resource, i32::MAX));
        mine.filter_map(|(_, cookie)| items.get(cookie).cloned()).collect()
    }

    /// The descriptors that were made only to be registered: of one resource, or of all.
    #[must_use]
    pub fn copies(&self, resource: Option<u64>) -> Vec<Rc<Resource>> {
        match resource {
            Some(id) => self.of(id).into_iter().filter_map(|item| item.copy).collect(),
            None => self.items.borrow().values().filter_map(|item| item.copy.clone()).collect(),
        }
    }

    /// What the program sees of an event that the delegate has found. `None`: nothing, because
    /// it is not registered any more, or has not asked for that. The second value says that it is
    /// another instance.
    #[must_use]
    pub fn told(&self, events: u32, cookie: u64) -> Option<(EpollEvent, bool)> {
        let mut items = self.items.borrow_mut();
        let item = items.get_mut(&cookie).filter(|i| i.resource.strong_count() > 0)?;
        let events = events & (item.event.events | EPOLLERR | EPOLLHUP);
        let told = EpollEvent { events, data: item.event.data };
        (events != 0 && item.tell()).then_some((told, item.place == Place::Both))
    }

    /// True when the local half may tell something under another name than the program's.
    #[must_use]
    pub fn has_aliases(&self) -> bool {
        self.items.borrow().values().any(|item| item.alias.is_some())
    }

    /// What the program sees of events of the local half.
    #[must_use]
    pub fn told_locally(&self, events: Vec<EpollEvent>) -> Vec<EpollEvent> {
        let mut items = self.items.borrow_mut();
        let mut seen = |event: EpollEvent| match items
            .values_mut()
            .find(|item| item.alias == Some(event.data))
        {
            Some(item) => item.tell().then_some(EpollEvent { data: item.event.data, ..event }),
            None => Some(event),
        };
        events.into_iter().filter_map(&mut seen).collect()
    }

    /// The delegate is gone, and all that was registered there.
    pub fn lose(&self) {
        for item in self.items.borrow_mut().values_mut() {
            match item.place {
                Place::Remote => item.place = Place::Lost,
                Place::Both => {
                    item.place = Place::Local;
                    item.copy = None;
                }
                Place::Local | Place::Lost => {}
            }
        }
    }

    /// True when something is registered that is lost.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.items.borrow().values().any(|i| i.place == Place::Lost)
    }

    /// The events of what is lost: an error, to be told by the rules of its registration.
    #[must_use]
    pub fn lost(&self, most: usize) -> Vec<EpollEvent> {
        let mut items = self.items.borrow_mut();
        let lost = items.values_mut().filter(|item| {
            item.place == Place::Lost && !item.spent && item.resource.strong_count() > 0
        });
        let told = |item: &mut Item| {
            item.spent = item.event.events & (EPOLLET | EPOLLONESHOT) != 0;
            let asked = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLRDNORM | EPOLLWRNORM;
            let events = EPOLLERR | EPOLLHUP | item.event.events & asked;
            EpollEvent { events, data: item.event.data }
        };
        lost.take(most).map(told).collect()
    }

    /// A thread waits, and is to be woken when there is a remote half.
    pub fn expect(&self, wake: &Rc<Wake>) {
        let mut waiters = self.waiters.borrow_mut();
        if !waiters.iter().any(|w| Rc::ptr_eq(w, wake)) {
            waiters.push(wake.clone());
        }
    }

    /// It does not wait any more.
    pub fn leave(&self, wake: &Rc<Wake>) {
        self.waiters.borrow_mut().retain(|w| !Rc::ptr_eq(w, wake));
    }

    /// Who waits, to be woken.
    #[must_use]
    pub fn waiters(&self) -> Vec<Rc<Wake>> {
        self.waiters.take()
    }
}

impl Item {
    /// A registration that has been modified may be told again.
    pub fn modify(&mut self, event: EpollEvent) {
        self.event = event;
        self.spent = false;
    }

    /// Whether it is to be told now.
    const fn tell(&mut self) -> bool {
        if self.alias.is_none() {
            return true;
        }
        !core::mem::replace(&mut self.spent, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_is_forgotten() {
        let (epoll, event) = (Epoll::default(), EpollEvent { events: EPOLLIN, data: 0 });
        let resource = |id| Rc::new(Resource::new(id, 2, 1, 0));
        let open: Vec<_> = (0..10).map(resource).collect();
        for one in &open {
            epoll.add(one, 3, event, Place::Remote);
        }
        // Connections that come and go.
        for id in 10..1000 {
            epoll.add(&resource(id), 4, event, Place::Remote);
            let most = 2 * open.len() + FULL_AT_FIRST;
            assert!(epoll.items.borrow().len() <= most && epoll.cookies.borrow().len() <= most);
        }
        assert!(open.iter().all(|one| epoll.get((one.id, 3)).is_some()));
    }
}
