//! What all parts of the engine share.
use crate::bell::Watchers;
use crate::calls::{Passing, forget_passing};
use crate::code::Vdso;
use crate::delegate::{Delegate, Delegates, Life};
use crate::epoll::Epoll;
use crate::space::{Exec, Space};
use crate::table::{Entry, Resource, State, Table};
use crate::wake::Wakes;
use crate::world::{Census, Counters, Settings, World, add};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use policy::{Policy, Program};
use wire::Request;

/// First estimate of a wake-up, in nanoseconds.
const HOLD_AT_FIRST: u64 = 50_000;

/// Shared state. Nothing borrows a part of it across a step of a call.
pub struct Core {
    /// Surroundings.
    pub world: Rc<dyn World>,
    /// Settings.
    pub settings: Settings,
    /// Programs that may become trusted, and what they may reach.
    pub policy: Policy,
    /// Watched address spaces.
    pub spaces: RefCell<Vec<Rc<Space>>>,
    /// Programs about to start.
    pub execs: RefCell<Vec<Rc<Exec>>>,
    /// Wake sockets.
    pub wakes: Wakes,
    /// Descriptors on their way from one process to another.
    pub passing: RefCell<Vec<Passing>>,
    /// Delegates.
    pub delegates: Delegates,
    /// Delegates that tell what happens to sockets whose programs want signals.
    pub watchers: Watchers,
    /// Totals.
    pub counters: Counters,
    /// One line per remote call.
    pub verbose: Cell<bool>,
    /// The guest's vDSO, once it has been shown.
    pub vdso: RefCell<Option<Vdso>>,
    /// The processor shall forget what it remembers of page tables.
    pub flush: Cell<bool>,
    /// How long a thread takes from its wake-up to its next step, a moving average.
    wake_up: Cell<u64>,
    next: Cell<u32>,
    next_resource: Cell<u64>,
    next_tag: Cell<u64>,
}

impl Core {
    /// With nothing in it yet.
    #[must_use]
    pub fn new(world: Rc<dyn World>, settings: Settings, policy: Policy) -> Self {
        Self {
            world,
            settings,
            policy,
            spaces: RefCell::default(),
            execs: RefCell::default(),
            wakes: Wakes::default(),
            passing: RefCell::default(),
            delegates: Delegates::default(),
            watchers: Watchers::default(),
            counters: Counters::default(),
            verbose: Cell::new(false),
            vdso: RefCell::default(),
            flush: Cell::new(false),
            wake_up: Cell::new(HOLD_AT_FIRST),
            next: Cell::new(0),
            next_resource: Cell::new(0),
            next_tag: Cell::new(0),
        }
    }

    /// How long the vCPU is held for an answer. Who waits as long as sleeping would cost, and
    /// sleeps then, never loses more than half. A worker that sleeps itself takes longer.
    #[must_use]
    pub fn hold(&self, asleep: bool) -> u64 {
        if asleep { 0 } else { self.wake_up.get().min(self.settings.hold) }
    }

    /// A thread that was woken at `rung` takes its next step.
    pub fn woke_up(&self, rung: u64) {
        let taken = self.world.now().saturating_sub(rung).min(self.settings.hold);
        self.wake_up.set(self.wake_up.get() / 8 * 7 + taken / 8);
    }

    /// A number that is not in use.
    pub fn number(&self) -> u32 {
        self.next.set(self.next.get().wrapping_add(1));
        self.next.get()
    }

    /// What tells a call in service from all others.
    pub fn tag(&self) -> u64 {
        self.next_tag.set(self.next_tag.get() + 1);
        self.next_tag.get()
    }

    /// A new socket that has not committed.
    pub fn resource(&self, domain: u32, kind: u32, protocol: u32) -> Resource {
        self.next_resource.set(self.next_resource.get() + 1);
        Resource::new(self.next_resource.get(), domain, kind, protocol)
    }

    /// A new epoll instance without a remote half.
    pub fn epoll(&self) -> Resource {
        Resource { epoll: Some(Epoll::default()), ..self.resource(0, 0, 0) }
    }

    /// The rules of the program that a space runs; a launcher has none.
    pub fn program(&self, space: &Space) -> Option<&Program> {
        self.policy.programs.get(space.program?)
    }

    /// The watched space with that page-table root.
    pub fn space(&self, cr3: u64) -> Option<Rc<Space>> {
        let root = crate::space::root(cr3);
        self.spaces.borrow().iter().find(|s| s.cr3 == root).cloned()
    }

    /// Stops watching a space.
    pub fn forget(&self, space: &Space) {
        self.spaces.borrow_mut().retain(|s| s.id != space.id);
        space.abandon();
    }

    fn forget_all(&self, gone: impl Fn(&Space) -> bool) {
        let spaces: Vec<_> = {
            let mut spaces = self.spaces.borrow_mut();
            spaces.extract_if(.., |s| gone(s)).collect()
        };
        spaces.iter().for_each(|space| space.abandon());
    }

    /// The process of a table is gone: its sockets, its delegate and its spaces go.
    ///
    /// A table on its way into a new program stays: the space that it leaves is gone, and another
    /// process may have its page-table root before the new program makes its first call.
    pub fn bury(&self, table: &Table) {
        if table.in_exec.get() || table.dead.replace(true) {
            return;
        }
        self.forget_all(|space| space.table.id == table.id);
        self.wakes.drop_table(&*self.world, table.id);
        table.wakes.borrow_mut().clear();
        self.cut_off(table);
        // The delegate's end closes its sockets; the entries only go from the books.
        drop(core::mem::take(&mut *table.entries.borrow_mut()));
        if self.spaces.borrow().is_empty() {
            forget_passing(self);
        }
        self.pump();
    }

    /// Takes away what is remote from a table: its delegate ends, and with it the sockets.
    fn cut_off(&self, table: &Table) {
        table.standing.clear();
        let Some(delegate) = table.delegate.borrow_mut().take() else { return };
        for entry in table.entries.borrow().values() {
            entry.resource.holders.borrow_mut().remove(&delegate.id);
        }
        self.delegates.dismiss(&delegate);
    }

    /// Nothing remote belongs to a process any more, or ever will: it is not the program that it
    /// was trusted as.
    pub fn bar(&self, space: &Space) {
        space.barred.set(true);
        for table in space.tables_of_threads() {
            self.cut_off(&table);
        }
        self.pump();
    }

    /// Closes what no descriptor of the table uses any more, without waiting.
    pub fn release(&self, table: &Table, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.close_unused(table, &entry.resource);
        }
        self.pump();
    }

    /// Closes the remote socket if nothing of this table uses it any more.
    pub fn close_unused(&self, table: &Table, resource: &Resource) {
        let Some((delegate, fd)) = self.unused(table, resource) else { return };
        delegate.order(Request::Close { fd });
    }

    /// The delegate's descriptor that has to be closed, when nothing of this table uses the
    /// resource any more. It is taken off the books.
    pub fn unused(&self, table: &Table, resource: &Resource) -> Option<(Rc<Delegate>, i32)> {
        let State::Remote(_) = resource.state.get() else { return None };
        if !table.is_unused(resource) {
            return None;
        }
        let delegate = table.delegate.borrow().clone()?;
        let fd = resource.holders.borrow_mut().remove(&delegate.id)?;
        self.watchers.move_on(self, delegate.id, |r| r.id == resource.id);
        table.standing.forget(fd);
        for copy in table.copies(Some(resource.id)) {
            if let Some(fd) = copy.holders.borrow_mut().remove(&delegate.id) {
                delegate.order(Request::Close { fd });
            }
        }
        Some((delegate, fd))
    }

    /// The table's delegate, if it lives; a new one of the dispatcher's where it does not.
    pub fn delegate(&self, table: &Table) -> Option<Rc<Delegate>> {
        let current = table.delegate.borrow().clone();
        if let Some(delegate) = current.filter(|d| d.life() != Life::Dead) {
            return Some(delegate);
        }
        if table.dead.get() {
            return None;
        }
        let dispatcher = self.delegates.dispatcher()?;
        Some(self.start_delegate(table, &dispatcher).0)
    }

    /// Starts a delegate for a table.
    pub fn start_delegate(
        &self,
        table: &Table,
        parent: &Delegate,
    ) -> (Rc<Delegate>, Rc<crate::delegate::Completion>) {
        let whom = table.identity.borrow().whom;
        let credentials =
            wire::Credentials { uid: whom.uid, gid: whom.gid, capabilities: whom.capabilities };
        let (delegate, completion) = self.delegates.start(&*self.world, parent, credentials);
        *table.delegate.borrow_mut() = Some(delegate.clone());
        add(&self.counters.delegates, 1);
        self.pump();
        (delegate, completion)
    }

    /// Takes in what delegates have answered.
    pub fn pump(&self) {
        self.delegates.pump(&*self.world, &self.wakes);
        self.watchers.pump(self);
    }

    /// The tables of all processes, children that are still to come included.
    pub(crate) fn tables(&self) -> Vec<Rc<Table>> {
        let mut tables = Vec::new();
        for space in self.spaces.borrow().iter() {
            tables.push(space.table.clone());
            tables.extend(space.forks.borrow().iter().map(|f| f.table.clone()));
        }
        tables.extend(self.execs.borrow().iter().map(|e| e.table.clone()));
        tables
    }

    /// A wake socket of a table has closed. When it was the last one, the process is gone,
    /// unless it is about to become another program.
    pub fn lifeline_closed(&self, table: u32) {
        let Some(table) = self.tables().into_iter().find(|t| t.id == table) else { return };
        let alive = table.wakes.borrow().iter().any(|w| !w.closed.get());
        if !alive && !table.in_exec.get() {
            self.bury(&table);
        }
    }

    /// The compute VM is gone.
    pub fn bury_all(&self) {
        for table in self.tables() {
            table.in_exec.set(false);
            self.bury(&table);
        }
        self.forget_all(|_| true);
        self.execs.borrow_mut().clear();
    }

    /// Gives up on what is overdue. Answers when to look again.
    pub fn tick(&self) -> Option<u64> {
        let now = self.world.now();
        let late: Vec<_> =
            self.execs.borrow().iter().filter(|e| e.deadline <= now).cloned().collect();
        for exec in late {
            self.world.log(format_args!(
                "{} did not start",
                alloc::string::String::from_utf8_lossy(&exec.path)
            ));
            self.execs.borrow_mut().retain(|e| !Rc::ptr_eq(e, &exec));
            exec.table.in_exec.set(false);
            if exec.table.wakes.borrow().iter().all(|w| w.closed.get()) {
                self.bury(&exec.table);
            }
        }
        let mut lost = Vec::new();
        let mut next = self.delegates.tick(&*self.world, &self.wakes, self.settings.patience);
        for space in self.spaces.borrow().iter() {
            space.forks.borrow_mut().retain(|fork| {
                // A parent that is suspended by `vfork` waits as long as it takes.
                let late = fork.deadline <= now && !fork.shares_memory;
                if late {
                    lost.push(fork.table.clone());
                } else if !fork.shares_memory {
                    next = Some(next.map_or(fork.deadline, |n| n.min(fork.deadline)));
                }
                !late
            });
        }
        for table in lost {
            self.bury(&table);
        }
        let execs = self.execs.borrow();
        execs.iter().map(|e| e.deadline).chain(next).min()
    }

    /// What exists now.
    #[must_use]
    pub fn census(&self) -> Census {
        let spaces = self.spaces.borrow();
        let trusted = || spaces.iter().filter(|s| s.role == crate::space::Role::Trusted);
        let (delegates, workers) = self.delegates.census();
        Census {
            processes: trusted().count() as u64,
            delegates,
            workers,
            descriptors: trusted().map(|s| s.table.entries.borrow().len() as u64).sum(),
            in_service: trusted().map(|s| s.in_service() as u64).sum(),
        }
    }
}
