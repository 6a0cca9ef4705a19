//! Descriptor tables: which numbers of a trusted process stand for what is elsewhere.
use crate::bell::{Bell, Signals, Tone};
use crate::calls::{Ear, Identity, OpenFile, View};
use crate::delegate::{Delegate, Standing};
use crate::epoll::Epoll;
use crate::filter::Filters;
use crate::wake::Wake;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::net::IpAddr;
use linux_abi::Errno;

/// Where a socket has committed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not yet.
    Undecided,
    /// The process's own kernel: it is not looked at any more.
    Local,
    /// A delegate's socket, under this number there.
    Remote(i32),
    /// What it was is gone with its delegate.
    Dead,
}

/// A socket option that was set before the socket committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptionSet {
    /// `SOL_*`.
    pub level: i32,
    /// Option.
    pub name: i32,
    /// Value.
    pub value: Vec<u8>,
}

/// An open socket, shared by all descriptors that `dup` and `fork` made of it.
#[derive(Debug)]
pub struct Resource {
    /// Unique number.
    pub id: u64,
    /// `AF_*`.
    pub domain: u32,
    /// `SOCK_*` without flags.
    pub kind: u32,
    /// Protocol.
    pub protocol: u32,
    /// Where it is.
    pub state: Cell<State>,
    /// The thread that is making it commit: its address space and FS base.
    pub committing: Cell<Option<(u32, u64)>>,
    /// Threads that wait for that.
    pub waiters: RefCell<Vec<Rc<Wake>>>,
    /// `O_NONBLOCK`.
    pub nonblocking: Cell<bool>,
    /// `SO_RCVTIMEO` in nanoseconds, zero for none.
    pub receive_timeout: Cell<u64>,
    /// `SO_SNDTIMEO`.
    pub send_timeout: Cell<u64>,
    /// `SO_RCVLOWAT`, where it is not 1.
    pub low_water: Cell<u32>,
    /// What the next call on it reports (`sk_err`).
    pub error: Cell<Option<Errno>>,
    /// It was shut down before it committed.
    pub shut: Cell<bool>,
    /// The address that its program gave it.
    pub bound: Cell<Option<(IpAddr, u16)>>,
    /// Its last `connect` was one to `AF_UNSPEC`.
    pub dissolved: Cell<bool>,
    /// It is bound in both VMs: the placeholder is a half of its own (`calls::both`).
    pub both: Cell<bool>,
    /// It listens in both VMs.
    pub listens_in_both: Cell<bool>,
    /// The own kernel's half is asked first by the next `accept`.
    pub local_first: Cell<bool>,
    /// What its program wants to be told by signals.
    pub signals: Signals,
    /// Options to be replayed.
    pub options: RefCell<Vec<OptionSet>>,
    /// Delegates that have the remote socket, and its number there.
    pub holders: RefCell<BTreeMap<u32, i32>>,
    /// It is no socket, but an epoll instance; its state is that of its remote half.
    pub epoll: Option<Epoll>,
    /// It is no socket, but a file of the service VM.
    pub file: Option<OpenFile>,
}

/// Options that are remembered for a socket that has not committed; more are an error.
pub const OPTION_LIMIT: usize = 64;

impl Resource {
    /// One that has not committed.
    #[must_use]
    pub fn new(id: u64, domain: u32, kind: u32, protocol: u32) -> Self {
        Self {
            id,
            domain,
            kind,
            protocol,
            state: Cell::new(State::Undecided),
            committing: Cell::new(None),
            waiters: RefCell::default(),
            nonblocking: Cell::new(false),
            receive_timeout: Cell::new(0),
            send_timeout: Cell::new(0),
            low_water: Cell::new(1),
            error: Cell::new(None),
            shut: Cell::new(false),
            bound: Cell::new(None),
            dissolved: Cell::new(false),
            both: Cell::new(false),
            listens_in_both: Cell::new(false),
            local_first: Cell::new(false),
            signals: Signals::default(),
            options: RefCell::default(),
            holders: RefCell::default(),
            epoll: None,
            file: None,
        }
    }

    /// Takes over what `accept` takes over from the listening socket (`sk_clone_lock`).
    pub fn inherit(&self, listener: &Self) {
        self.receive_timeout.set(listener.receive_timeout.get());
        self.send_timeout.set(listener.send_timeout.get());
        self.low_water.set(listener.low_water.get());
        self.bound.set(listener.bound.get());
    }

    /// True when the program's own kernel has a half of its own: an epoll instance, or a socket
    /// that is bound in both VMs.
    #[must_use]
    pub fn has_two_halves(&self) -> bool {
        self.epoll.is_some() || self.both.get()
    }

    /// True for byte streams.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.kind == linux_abi::SOCK_STREAM
    }
}

/// What a descriptor stands for.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The socket.
    pub resource: Rc<Resource>,
    /// `FD_CLOEXEC`.
    pub close_on_exec: bool,
}

/// The user namespace of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Namespace {
    /// It has not shown yet that it is in the first one.
    #[default]
    Unknown,
    /// The one that the machine has started with.
    Initial,
    /// Another one: its ids and capabilities mean nothing outside.
    Other,
}

impl Entry {
    /// True when it has committed to the process's own kernel.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.resource.state.get() == State::Local
    }
}

/// A descriptor table. Only sockets that are, or may become, remote are in it.
#[derive(Debug)]
pub struct Table {
    /// Unique number.
    pub id: u32,
    /// Entries by descriptor.
    pub entries: RefCell<BTreeMap<i32, Entry>>,
    /// Uses by calls in service, by resource.
    holds: RefCell<BTreeMap<u64, u32>>,
    /// Wake sockets of the process.
    pub wakes: RefCell<Vec<Rc<Wake>>>,
    /// Bells of its sockets, those of the parent that `fork` left here as well.
    pub bells: RefCell<Vec<Rc<Bell>>>,
    /// Descriptors of signals that the relay has made in the process.
    pub ears: RefCell<Vec<Rc<Ear>>>,
    /// Wake sockets of the parent, and its like, that `fork` left here.
    pub inherited: RefCell<Vec<i32>>,
    /// The process's delegate.
    pub delegate: RefCell<Option<Rc<Delegate>>>,
    /// Its polls that nobody waits for.
    pub standing: Standing,
    /// Whom its delegate acts as.
    pub identity: RefCell<Rc<Identity>>,
    /// Process id, zero while it is not known.
    pub pid: Cell<i32>,
    /// The process's own seccomp filters.
    pub filters: Filters,
    /// What the process's capabilities are worth.
    pub namespace: Cell<Namespace>,
    /// What paths mean to the process.
    pub view: View,
    /// An `execve` is under way: wake sockets may close.
    pub in_exec: Cell<bool>,
    /// The process is gone.
    pub dead: Cell<bool>,
    /// Changes with the descriptors that are in it or hidden.
    pub version: Cell<u64>,
}

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(id: u32) -> Self {
        Self {
            id,
            entries: RefCell::default(),
            holds: RefCell::default(),
            wakes: RefCell::default(),
            bells: RefCell::default(),
            ears: RefCell::default(),
            inherited: RefCell::default(),
            delegate: RefCell::default(),
            standing: Standing::default(),
            identity: RefCell::default(),
            pid: Cell::new(0),
            filters: Filters::default(),
            namespace: Cell::default(),
            view: View::default(),
            in_exec: Cell::new(false),
            dead: Cell::new(false),
            version: Cell::new(0),
        }
    }

    /// What `fork` makes: same entries, no wake sockets of its own, no delegate yet.
    #[must_use]
    pub fn copy(&self, id: u32) -> Self {
        let (filters, view) = (self.filters.clone(), self.view.clone());
        let copy = Self { filters, view, ..Self::new(id) };
        copy.entries.borrow_mut().clone_from(&self.entries.borrow());
        copy.bells.borrow_mut().clone_from(&self.bells.borrow());
        copy.identity.borrow_mut().clone_from(&self.identity.borrow());
        copy.namespace.set(self.namespace.get());
        let mut inherited: Vec<i32> = self.wakes.borrow().iter().map(|w| w.fd).collect();
        inherited.extend(self.ears.borrow().iter().map(|ear| ear.fd));
        inherited.extend(self.inherited.borrow().iter());
        *copy.inherited.borrow_mut() = inherited;
        copy
    }

    /// Notes that descriptors have changed.
    pub fn changed(&self) {
        self.version.set(self.version.get() + 1);
    }

    /// The entry of a descriptor, as calls pass it (`int`: the upper half is ignored).
    #[must_use]
    pub fn get(&self, fd: u64) -> Option<Entry> {
        self.entries.borrow().get(&(fd as i32)).cloned()
    }

    /// True when there is no entry at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    /// True when some entry is remote.
    #[must_use]
    pub fn has_remote(&self) -> bool {
        self.entries.borrow().values().any(|e| matches!(e.resource.state.get(), State::Remote(_)))
    }

    /// Puts an entry; answers the one that was there.
    pub fn insert(&self, fd: i32, entry: Entry) -> Option<Entry> {
        self.changed();
        self.entries.borrow_mut().insert(fd, entry)
    }

    /// Takes an entry out.
    pub fn remove(&self, fd: i32) -> Option<Entry> {
        self.changed();
        self.entries.borrow_mut().remove(&fd)
    }

    /// Sets or clears `FD_CLOEXEC`.
    pub fn set_close_on_exec(&self, fd: i32, on: bool) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(&fd) {
            entry.close_on_exec = on;
        }
    }

    /// Takes all entries in a range out, or marks them `FD_CLOEXEC`.
    pub fn take_range(&self, first: u32, last: u32, mark_only: bool) -> Vec<Entry> {
        self.changed();
        let mut entries = self.entries.borrow_mut();
        let inside = |fd: i32| u32::try_from(fd).is_ok_and(|n| n >= first && n <= last);
        if mark_only {
            for (_, entry) in entries.iter_mut().filter(|(fd, _)| inside(**fd)) {
                entry.close_on_exec = true;
            }
            return Vec::new();
        }
        let numbers: Vec<i32> = entries.keys().copied().filter(|fd| inside(*fd)).collect();
        numbers.iter().filter_map(|fd| entries.remove(fd)).collect()
    }

    /// What `execve` does: takes out what is marked `FD_CLOEXEC`.
    pub fn exec(&self) -> Vec<Entry> {
        self.changed();
        let mut entries = self.entries.borrow_mut();
        let marked = |e: &Entry| e.close_on_exec;
        let numbers: Vec<i32> =
            entries.iter().filter(|(_, e)| marked(e)).map(|(fd, _)| *fd).collect();
        numbers.iter().filter_map(|fd| entries.remove(fd)).collect()
    }

    /// True when a descriptor is one of the relay's own in this process.
    #[must_use]
    pub fn is_hidden(&self, fd: i32) -> bool {
        self.hidden().contains(&fd)
    }

    /// The relay's own descriptors in this process.
    #[must_use]
    pub fn hidden(&self) -> Vec<i32> {
        let wakes = self.wakes.borrow();
        let open = wakes.iter().filter(|w| !w.closed.get()).map(|w| w.fd);
        let bells = self.bells.borrow();
        let ears = self.ears.borrow();
        let bells = bells.iter().map(|bell| bell.fd).chain(ears.iter().map(|ear| ear.fd));
        // A child of `vfork` has its parent's until it starts a program.
        open.chain(bells).chain(self.inherited.borrow().iter().copied()).collect()
    }

    /// The bell of that socket.
    #[must_use]
    pub fn bell(&self, resource: &Resource, tone: Tone) -> Option<Rc<Bell>> {
        let bells = self.bells.borrow();
        bells.iter().find(|bell| bell.resource == resource.id && bell.tone == tone).cloned()
    }

    /// Takes bells out.
    pub fn take_bells(&self, which: impl Fn(&Bell) -> bool) -> Vec<Rc<Bell>> {
        self.changed();
        self.bells.borrow_mut().extract_if(.., |bell| which(bell)).collect()
    }

    /// A descriptor of that socket.
    #[must_use]
    pub fn number_of(&self, resource: &Resource) -> Option<i32> {
        let entries = self.entries.borrow();
        entries.iter().find(|(_, e)| e.resource.id == resource.id).map(|(fd, _)| *fd)
    }

    /// True when no descriptor and no call of this table uses the resource any more.
    #[must_use]
    pub fn is_unused(&self, resource: &Resource) -> bool {
        self.is_number_unused(resource.id)
    }

    /// The same, of a resource's number.
    #[must_use]
    pub fn is_number_unused(&self, resource: u64) -> bool {
        !self.holds.borrow().contains_key(&resource)
            && !self.entries.borrow().values().any(|e| e.resource.id == resource)
    }

    /// The delegate's descriptors that were made only to be registered in epoll instances of this
    /// table: those of one resource, or all.
    #[must_use]
    pub fn copies(&self, resource: Option<u64>) -> Vec<Rc<Resource>> {
        let entries = self.entries.borrow();
        let instances = entries.values().filter_map(|e| e.resource.epoll.as_ref());
        instances.flat_map(|epoll| epoll.copies(resource)).collect()
    }

    pub(crate) fn hold(&self, resource: &Resource) {
        *self.holds.borrow_mut().entry(resource.id).or_default() += 1;
    }

    pub(crate) fn unhold(&self, resource: &Resource) {
        let mut holds = self.holds.borrow_mut();
        if let Some(n) = holds.get_mut(&resource.id) {
            *n -= 1;
            if *n == 0 {
                holds.remove(&resource.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resource(id: u64) -> Rc<Resource> {
        Rc::new(Resource::new(id, 2, 1, 0))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open(i32),
        Dup(i32, i32, bool),
        Close(i32),
        Range(u32, u32, bool),
        Exec,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..8).prop_map(Step::Open),
            (0..8, 0..8, any::<bool>()).prop_map(|(a, b, c)| Step::Dup(a, b, c)),
            (0..8).prop_map(Step::Close),
            (0u32..8, 0u32..8, any::<bool>()).prop_map(|(a, b, c)| Step::Range(a, b, c)),
            Just(Step::Exec),
        ]
    }

    proptest! {
        /// The table against the obvious model: a map from numbers to (resource, flag).
        #[test]
        fn behaves_like_a_map(steps in proptest::collection::vec(step(), 0..40)) {
            let table = Table::new(1);
            let mut model = BTreeMap::<i32, (u64, bool)>::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Open(fd) => {
                        let r = resource(n as u64);
                        table.insert(fd, Entry { resource: r, close_on_exec: false });
                        model.insert(fd, (n as u64, false));
                    }
                    Step::Dup(from, to, close_on_exec) => {
                        if let Some(entry) = table.get(from as u64) {
                            table.insert(to, Entry { close_on_exec, ..entry });
                            let id = model[&from].0;
                            model.insert(to, (id, close_on_exec));
                        }
                    }
                    Step::Close(fd) => {
                        prop_assert_eq!(table.remove(fd).is_some(), model.remove(&fd).is_some());
                    }
                    Step::Range(first, last, mark) => {
                        table.take_range(first, last, mark);
                        let inside = |fd: i32| fd as u32 >= first && fd as u32 <= last;
                        if mark {
                            model.iter_mut().filter(|(f, _)| inside(**f)).for_each(|(_, v)| v.1 = true);
                        } else {
                            model.retain(|fd, _| !inside(*fd));
                        }
                    }
                    Step::Exec => {
                        table.exec();
                        model.retain(|_, v| !v.1);
                    }
                }
                let copy = table.copy(2);
                let now: BTreeMap<i32, (u64, bool)> = copy.entries.borrow().iter()
                    .map(|(fd, e)| (*fd, (e.resource.id, e.close_on_exec))).collect();
                prop_assert_eq!(&now, &model);
                for entry in table.entries.borrow().values() {
                    prop_assert!(!table.is_unused(&entry.resource));
                }
            }
        }
    }

    #[test]
    fn a_resource_lives_as_long_as_a_call_uses_it() {
        let table = Table::new(1);
        let r = resource(1);
        table.insert(3, Entry { resource: r.clone(), close_on_exec: false });
        table.hold(&r);
        table.remove(3);
        assert!(!table.is_unused(&r));
        table.unhold(&r);
        assert!(table.is_unused(&r));
    }
}
