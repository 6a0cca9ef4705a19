//! What the steps of a call in service work with: calls of the program's own kernel, its memory,
//! scratch memory, waiting.
mod memory;

use crate::core::Core;
use crate::cpu::Saved;
use crate::delegate::{Completion, Lease, Life};
use crate::filter::{Decision, Subject};
use crate::space::{Back, Exchange, LocalCall, Space, Via};
use crate::table::{Entry, Resource, State, Table};
use crate::wake::{Wake, WakeLease};
use crate::world::{Kind, add};
use alloc::rc::Rc;
use core::cell::Cell;
use core::future::poll_fn;
use core::task::Poll;
use linux_abi::{
    AF_VSOCK, Errno, F_DUPFD_CLOEXEC, POLLIN, PollFd, SIGSET_SIZE, SOCK_CLOEXEC, SOCK_STREAM,
    check, nr,
};
use paging::PAGE;
use wire::{Request, Response};

/// Context id of the hypervisor on virtual sockets.
const HOST_CID: u32 = 2;
/// Requests of one call before the program's own kernel has its turn.
const REQUESTS: u32 = 64;
/// Descriptors of wake sockets lie from here on, where the limit allows it.
const HIGH_DESCRIPTORS: [u64; 3] = [1000, 200, 50];

/// A page of scratch memory in the process.
pub struct Scratch {
    space: Rc<Space>,
    index: u32,
    /// Its address.
    pub address: u64,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.space.give_scratch(self.index);
    }
}

/// A resource in use by a call: it stays open meanwhile, whatever happens to its descriptors.
pub struct Hold {
    core: Rc<Core>,
    table: Rc<Table>,
    /// The socket.
    pub resource: Rc<Resource>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.table.unhold(&self.resource);
        self.core.close_unused(&self.table, &self.resource);
    }
}

/// The context of one call in service.
pub struct Cx {
    /// Shared state.
    pub core: Rc<Core>,
    /// The process.
    pub space: Rc<Space>,
    /// The thread's descriptors.
    pub table: Rc<Table>,
    /// FS base of the thread.
    pub fs: u64,
    /// Registers at the call.
    pub saved: Saved,
    /// Call number.
    pub number: u64,
    /// Arguments.
    pub arguments: [u64; 6],
    /// How it was carried out, for the books.
    pub kind: Cell<Kind>,
    /// It has been counted already.
    pub again: Cell<bool>,
    /// How often it waited for something that was not for it.
    pub in_vain: Cell<u32>,
    /// Requests since the program's own kernel was last let go on.
    pub requests: Cell<u32>,
    /// Meeting point with the engine.
    pub exchange: Rc<Exchange>,
}

impl Cx {
    /// For a call that starts now.
    #[must_use]
    pub fn new(
        core: Rc<Core>,
        space: Rc<Space>,
        table: Rc<Table>,
        fs: u64,
        saved: Saved,
        exchange: Rc<Exchange>,
    ) -> Self {
        let (number, arguments) = (saved.number(), saved.arguments());
        let (kind, again) = (Cell::new(Kind::Local), Cell::new(false));
        let (in_vain, requests) = (Cell::new(0), Cell::new(0));
        Self {
            core,
            space,
            table,
            fs,
            saved,
            number,
            arguments,
            kind,
            again,
            in_vain,
            requests,
            exchange,
        }
    }

    /// An argument as `int`.
    #[must_use]
    pub fn int(&self, n: usize) -> i32 {
        self.arguments.get(n).map_or(0, |a| *a as i32)
    }

    /// Notes that a delegate takes part.
    pub fn note(&self, kind: Kind) {
        self.kind.set(kind);
    }

    // ----- the program's own kernel -----

    /// True when the program's own filters let a call pass that is made on its behalf.
    fn passes(&self, number: u64, arguments: [u64; 6]) -> Result<(), Errno> {
        let gate = self.space.gate.get().map_or(self.saved.rip, |gate| gate.address);
        self.passes_at(gate, number, arguments)
    }

    /// The same, for a call from the `SYSCALL` at this address.
    ///
    /// # Errors
    /// What the filters answer.
    pub fn passes_at(&self, at: u64, number: u64, arguments: [u64; 6]) -> Result<(), Errno> {
        if self.table.filters.is_empty() {
            return Ok(());
        }
        let behind = at.wrapping_add(crate::cpu::SYSCALL_LENGTH);
        match self.table.filters.decide(&Subject { number, arguments, behind }) {
            Decision::Allow => Ok(()),
            Decision::Fail(error) if error != Errno(0) => Err(error),
            Decision::Fail(_) | Decision::Stop => Err(Errno::EPERM),
        }
    }

    async fn call(&self, number: u64, arguments: [u64; 6], via: Via) -> Back {
        if let Err(error) = self.passes(number, arguments) {
            return Back::Result(error.result());
        }
        add(&self.core.counters.helpers, 1);
        self.requests.set(0);
        self.exchange.wanted.set(Some(LocalCall { number, arguments, via }));
        poll_fn(|_| match self.exchange.back.take() {
            Some(back) => Poll::Ready(back),
            None => Poll::Pending,
        })
        .await
    }

    /// Has the program's kernel carry out a call; a restarted one is simply made again.
    pub async fn local(&self, number: u64, arguments: [u64; 6]) -> i64 {
        self.local_via(number, arguments, Via::Gate).await
    }

    /// The same, coming back where `via` says.
    pub async fn local_via(&self, number: u64, arguments: [u64; 6], via: Via) -> i64 {
        loop {
            if let Back::Result(result) = self.call(number, arguments, via).await {
                return result;
            }
        }
    }

    /// The same for a call that waits: the caller wants to know about restarts.
    pub async fn local_once(&self, number: u64, arguments: [u64; 6]) -> Back {
        self.call(number, arguments, Via::Gate).await
    }

    /// The original call, as the program made it, coming back here.
    pub async fn original(&self) -> i64 {
        self.local(self.number, self.arguments).await
    }

    /// To be called for each request. A service VM that answers at once, and always so that the call has
    /// to ask again, must not hold the processor: from time to time the program's own kernel has
    /// its turn, with interrupts, signals and other threads.
    pub async fn take_turns(&self) {
        self.requests.set(self.requests.get() + 1);
        if self.requests.get() > REQUESTS {
            // Fails, and is a call that sandboxes allow.
            self.local(nr::read, [u64::MAX, 0, 0, 0, 0, 0]).await;
            self.requests.set(0);
        }
    }

    /// A page of scratch memory.
    ///
    /// # Errors
    /// `ENOMEM` when all are in use.
    pub fn scratch(&self) -> Result<Scratch, Errno> {
        let (index, address) = self.space.take_scratch().ok_or(Errno::ENOMEM)?;
        Ok(Scratch { space: self.space.clone(), index, address })
    }

    // ----- resources -----

    /// Keeps a resource open during the call.
    #[must_use]
    pub fn hold(&self, entry: &Entry) -> Hold {
        self.table.hold(&entry.resource);
        let resource = entry.resource.clone();
        Hold { core: self.core.clone(), table: self.table.clone(), resource }
    }

    /// The delegate's descriptor of a remote socket.
    ///
    /// # Errors
    /// `ECONNRESET` when its delegate is gone (`EIO` for sockets without connections).
    pub fn remote_fd(&self, resource: &Resource) -> Result<i32, Errno> {
        let lost = if resource.is_stream() { Errno::ECONNRESET } else { Errno::EIO };
        let State::Remote(_) = resource.state.get() else { return Err(lost) };
        let delegate = self.table.delegate.borrow();
        let delegate = delegate.as_ref().filter(|d| d.life() != Life::Dead).ok_or(lost)?;
        resource.holders.borrow().get(&delegate.id).copied().ok_or(lost)
    }

    // ----- waiting -----

    /// Takes a wake socket of the process, making one if all are in use.
    ///
    /// # Errors
    /// What kept the program's kernel from making one.
    pub async fn wake(&self) -> Result<WakeLease, Errno> {
        self.table.wakes.borrow_mut().retain(|w| !w.closed.get());
        if let Some(lease) = WakeLease::take(&self.table.wakes.borrow()) {
            return Ok(lease);
        }
        let (fd, port) = self.connect_wake().await?;
        let wake = self.core.wakes.add(fd, port, self.table.id).ok_or(Errno::EIO)?;
        self.table.wakes.borrow_mut().push(wake);
        self.table.changed();
        WakeLease::take(&self.table.wakes.borrow()).ok_or(Errno::EIO)
    }

    /// Makes a connection to the hypervisor: its descriptor and own port.
    ///
    /// # Errors
    /// What kept the program's kernel from making one.
    pub async fn connect_wake(&self) -> Result<(i32, u32), Errno> {
        loop {
            // A signal ends the attempt (`vsock_connect` is never restarted), not the call for which it is made.
            match self.try_connect_wake().await {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    async fn try_connect_wake(&self) -> Result<(i32, u32), Errno> {
        let scratch = self.scratch()?;
        let kind = u64::from(SOCK_STREAM | SOCK_CLOEXEC);
        let socket = [u64::from(AF_VSOCK), kind, 0, 0, 0, 0];
        let low = check(self.local(nr::socket, socket).await)? as u64;
        let mut fd = low;
        for lowest in HIGH_DESCRIPTORS {
            let command = u64::from(F_DUPFD_CLOEXEC);
            let high = self.local(nr::fcntl, [low, command, lowest, 0, 0, 0]).await;
            if let Ok(high) = check(high) {
                fd = high as u64;
                self.local(nr::close, [low, 0, 0, 0, 0, 0]).await;
                break;
            }
        }
        // struct sockaddr_vm: family, reserved, port, cid, flags and zeros.
        let mut address = [0; 16];
        address[..2].copy_from_slice(&(AF_VSOCK as u16).to_le_bytes());
        address[4..8].copy_from_slice(&wire::vsock::WAKE_PORT.to_le_bytes());
        address[8..12].copy_from_slice(&HOST_CID.to_le_bytes());
        let at = scratch.address;
        self.write(at, &address).await?;
        self.write(at + 64, &16u32.to_le_bytes()).await?;
        let connected = check(self.local(nr::connect, [fd, at, 16, 0, 0, 0]).await);
        let named = match connected {
            Ok(_) => check(self.local(nr::getsockname, [fd, at, at + 64, 0, 0, 0]).await),
            Err(error) => Err(error),
        };
        if let Err(error) = named {
            self.local(nr::close, [fd, 0, 0, 0, 0, 0]).await;
            return Err(error);
        }
        let name: [u8; 8] = self.array(at).await?;
        let port = u32::from_le_bytes([name[4], name[5], name[6], name[7]]);
        Ok((fd as i32, port))
    }

    /// Reads the bytes off a wake socket that `ppoll` found readable.
    pub async fn drain(&self, wake: &Wake, scratch: &Scratch) -> Result<(), Errno> {
        let fd = wake.fd as u64;
        let read = [fd, scratch.address + PAGE - 64, 64, 0, 0, 0];
        match check(self.local(nr::read, read).await) {
            // A handler ran first; the caller looks again.
            Err(Errno::EINTR) => Ok(()),
            Ok(0) | Err(_) => {
                wake.closed.set(true);
                Err(Errno::EIO)
            }
            Ok(n) => {
                wake.consumed(u32::try_from(n).unwrap_or(u32::MAX));
                Ok(())
            }
        }
    }

    /// Puts the thread to sleep, deaf to signals, until `done`; `arm` says where the wake-up
    /// comes from and is called before each sleep. For waits that end soon.
    ///
    /// # Errors
    /// What kept the thread from waiting.
    pub async fn sleep_deaf(
        &self,
        done: impl Fn() -> bool,
        arm: impl Fn(&Rc<Wake>),
    ) -> Result<(), Errno> {
        let lease = self.wake().await?;
        let scratch = self.scratch()?;
        let (wake, at) = (lease.wake(), scratch.address);
        let entry = PollFd { fd: wake.fd, events: POLLIN, revents: 0 };
        loop {
            arm(wake);
            self.core.pump();
            if done() {
                return Ok(());
            }
            if wake.outstanding.get() > 0 {
                self.drain(wake, &scratch).await?;
                continue;
            }
            self.write(at, &entry.encode()).await?;
            self.write(at + 8, &u64::MAX.to_le_bytes()).await?;
            let poll = [at, 1, 0, at + 8, SIGSET_SIZE, 0];
            if self.passes(nr::ppoll, poll).is_err() {
                // Not deaf, but asleep.
                self.drain(wake, &scratch).await?;
            } else {
                check(self.local(nr::ppoll, poll).await)?;
            }
            self.core.woke_up(wake.rung.get());
        }
    }

    /// Waits for a request of the control slot.
    ///
    /// # Errors
    /// What kept the thread from waiting.
    pub async fn completed(&self, completion: &Rc<Completion>) -> Result<Response, Errno> {
        self.spin(self.core.hold(false), || {
            self.core.pump();
            completion.get().is_some()
        });
        let done = || completion.get().is_some();
        if !done() {
            self.sleep_deaf(done, |wake| completion.set_waiter(Some(wake.clone()))).await?;
        }
        completion.set_waiter(None);
        completion.get().ok_or(Errno::EIO)
    }

    /// Holds the vCPU for a bounded time.
    pub fn spin(&self, limit: u64, mut done: impl FnMut() -> bool) -> bool {
        let world = &self.core.world;
        let end = world.now().saturating_add(limit);
        loop {
            if done() {
                return true;
            }
            if world.now() >= end {
                return false;
            }
            world.relax();
        }
    }

    /// A free worker of the process's delegate, waiting for the delegate if need be.
    ///
    /// # Errors
    /// `ENETDOWN` when there is no service.
    pub async fn worker(&self) -> Result<Lease, Errno> {
        let limit = self.core.settings.workers;
        loop {
            if self.space.barred.get() {
                return Err(Errno::EPERM);
            }
            self.core.pump();
            let delegate = self.core.delegate(&self.table).ok_or(Errno::ENETDOWN)?;
            if let Some(lease) = delegate.lease(&self.core.world, limit) {
                crate::calls::introduce(self, &lease).await?;
                return Ok(lease);
            }
            let ready = || {
                delegate.life() == Life::Dead || delegate.lease(&self.core.world, limit).is_some()
            };
            let hold = self.core.hold(false);
            let soon = self.spin(hold, || {
                self.core.pump();
                ready()
            });
            if !soon {
                self.sleep_deaf(ready, |wake| delegate.wait(wake.clone())).await?;
            }
            if delegate.life() == Life::Dead {
                return Err(Errno::ENETDOWN);
            }
        }
    }

    /// Sends a request that does not wait, and waits for its response.
    ///
    /// # Errors
    /// What kept the thread from waiting.
    pub async fn ask(&self, lease: &Lease, request: &Request) -> Result<Response, Errno> {
        if self.kind.get() == Kind::Local {
            self.note(Kind::Remote);
        }
        self.take_turns().await;
        let (completion, asleep) = lease.post(request);
        self.answer(lease, &completion, asleep).await
    }

    /// Waits for the response to a request that does not wait.
    ///
    /// # Errors
    /// What kept the thread from waiting.
    pub async fn answer(
        &self,
        lease: &Lease,
        completion: &Rc<Completion>,
        asleep: bool,
    ) -> Result<Response, Errno> {
        self.spin(self.core.hold(asleep), || lease.check(&self.core.wakes));
        if completion.get().is_none() {
            let done = || {
                lease.check(&self.core.wakes);
                completion.get().is_some()
            };
            self.sleep_deaf(done, |wake| {
                completion.set_waiter(Some(wake.clone()));
                lease.want_doorbell();
            })
            .await?;
            completion.set_waiter(None);
        }
        let response = completion.get().ok_or(Errno::EIO)?;
        if lease.delegate.life() == Life::Dead {
            return Err(Errno::ECONNRESET);
        }
        Ok(response)
    }

    /// A request without data: its result.
    ///
    /// # Errors
    /// Its error.
    pub async fn simple(&self, request: &Request) -> Result<i64, Errno> {
        let lease = self.worker().await?;
        check(self.ask(&lease, request).await?.value)
    }
}
