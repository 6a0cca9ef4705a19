//! Waiting: for requests, for the cancellation of a request, for sockets. The one place where a
//! wake-up could be lost.

use crate::hypervisor::Hypervisor;
use crate::pool::Slot;
use memory::OutOfBounds;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Kind, Mailbox, Posted, Registration, Response};

/// The hypervisor, or the dispatcher, has gone away: the worker ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// The dispatcher has ended.
    Dispatcher,
    /// The doorbell connection has been closed.
    Closed,
    /// The doorbell connection, or waiting for it, fails.
    Broken(Errno),
    /// The mailbox is too short, which it is not.
    Mailbox,
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dispatcher => f.write_str("the dispatcher has ended"),
            Self::Closed => f.write_str("the hypervisor has closed the connection"),
            Self::Broken(error) => write!(f, "the connection to the hypervisor fails: {error}"),
            Self::Mailbox => f.write_str("the mailbox is too short"),
        }
    }
}

impl std::error::Error for Gone {}

impl From<OutOfBounds> for Gone {
    /// Mailboxes have the right length by construction.
    fn from(_: OutOfBounds) -> Self {
        Self::Mailbox
    }
}

/// Why a wait is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// A socket is ready.
    Ready,
    /// The time is over.
    TimedOut,
    /// The request has been cancelled.
    Cancelled,
}

/// The longest time that a worker looks for the next request before it sleeps, unless told otherwise.
/// Long, because on an emulated machine to be woken takes milliseconds; workers whose requests come
/// less often do not look at all.
pub const LONGEST_SPIN: Duration = Duration::from_millis(4);
/// The shortest time for which it is worth to look at all.
const SHORTEST_SPIN: Duration = Duration::from_micros(20);
/// A request comes quickly if it comes within this many times the longest spin.
const QUICK: u32 = 4;
/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// Shrinks while spinning turns out to have been a mistake, until it is not worth it; grows again
/// when requests come quickly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Spin {
    budget: Duration,
    longest: Duration,
}

impl Spin {
    const fn up_to(longest: Duration) -> Self {
        Self { budget: longest, longest }
    }

    /// Takes note of how long the wait for a request was.
    fn learn(&mut self, waited: Duration) {
        if waited <= self.budget {
            return;
        }
        // Who slept has waited for the wake-up as well, which can take as long as the request.
        let quick = waited < self.longest * QUICK;
        self.budget = match quick {
            true => self.longest,
            false if self.budget <= SHORTEST_SPIN => Duration::ZERO,
            false => self.budget / 4,
        };
    }
}

/// A mailbox with its doorbell connection.
#[derive(Debug)]
pub struct Door<H> {
    hypervisor: H,
    connection: OwnedFd,
    mailbox: Mailbox<SlotMemory>,
    /// Hung up when the dispatcher dies.
    lifeline: Arc<OwnedFd>,
    spin: Spin,
}

/// A slot as `memory::Memory`.
#[derive(Debug)]
pub struct SlotMemory(Slot);

impl memory::Memory for SlotMemory {
    fn len(&self) -> u64 {
        self.0.memory().len()
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.0.memory().read(offset, into)
    }
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        self.0.memory().write(offset, from)
    }
    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        self.0.memory().load32(offset)
    }
    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        self.0.memory().store32(offset, value)
    }
}

/// Who a door is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Dispatcher or worker.
    pub kind: Kind,
    /// Number of the delegate.
    pub delegate: u32,
    /// Number of the worker in it.
    pub slot: u32,
    /// Proof that the relay asked for it.
    pub token: u64,
    /// The longest time that it looks for a request before it sleeps.
    pub spin: Duration,
}

impl<H: Hypervisor> Door<H> {
    /// Connects and registers.
    ///
    /// # Errors
    /// The hypervisor does not answer, or refuses.
    pub fn open(
        hypervisor: H,
        slot: Slot,
        lifeline: Arc<OwnedFd>,
        owner: Owner,
    ) -> io::Result<Self> {
        let (connection, port) = hypervisor.connect()?;
        let Owner { kind, delegate, slot: number, token, spin } = owner;
        let mailbox = Mailbox::new(SlotMemory(slot));
        mailbox
            .introduce(&Registration { kind, port, delegate, slot: number, token })
            .map_err(|_| io::ErrorKind::InvalidData)?;
        hypervisor.register(connection.as_fd(), &mailbox.memory().0)?;
        Ok(Self { hypervisor, connection, mailbox, lifeline, spin: Spin::up_to(spin) })
    }

    /// The mailbox's memory.
    pub fn memory(&self) -> &guest_sys::mailbox::Mailbox {
        self.mailbox.memory().0.memory()
    }

    /// The next request after number `done`.
    ///
    /// # Errors
    /// `Gone`.
    pub fn next(&mut self, done: u32) -> Result<Posted, Gone> {
        let start = Instant::now();
        loop {
            if let Some(posted) = self.spin(start, done)? {
                self.spin.learn(start.elapsed());
                return Ok(posted);
            }
            self.mailbox.set_sleeping(true)?;
            let early = self.mailbox.request(done)?;
            let slept = match early {
                None => self.sleep(&mut Vec::new(), None),
                Some(_) => Ok(0),
            };
            self.mailbox.set_sleeping(false)?;
            slept?;
        }
    }

    /// Looks for a request as long as the budget allows, and at least once.
    fn spin(&self, start: Instant, done: u32) -> Result<Option<Posted>, Gone> {
        loop {
            for _ in 0..LOOKS {
                if let Some(posted) = self.mailbox.request(done)? {
                    return Ok(Some(posted));
                }
                if self.spin.budget.is_zero() {
                    return Ok(None);
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= self.spin.budget {
                return Ok(None);
            }
            std::thread::yield_now();
        }
    }

    /// Waits until one of the sockets is ready, the deadline has passed, or the request is
    /// cancelled. The results are in `sockets`.
    ///
    /// # Errors
    /// `Gone`.
    pub fn wait<'a>(
        &'a self,
        sequence: u32,
        sockets: &mut Vec<PollFd<'a>>,
        deadline: Option<Instant>,
    ) -> Result<Woken, Gone> {
        loop {
            self.mailbox.set_sleeping(true)?;
            let outcome = if self.mailbox.cancelled(sequence)? {
                Ok(0)
            } else {
                self.sleep(sockets, deadline)
            };
            self.mailbox.set_sleeping(false)?;
            let ready = outcome?;
            if self.mailbox.cancelled(sequence)? {
                return Ok(Woken::Cancelled);
            }
            if ready > 0 {
                return Ok(Woken::Ready);
            }
            if deadline.is_some_and(|end| Instant::now() >= end) {
                return Ok(Woken::TimedOut);
            }
        }
    }

    /// Sleeps until a socket is ready, the doorbell rings, or the deadline has passed; the number
    /// of sockets that are ready.
    fn sleep<'a>(
        &'a self,
        sockets: &mut Vec<PollFd<'a>>,
        deadline: Option<Instant>,
    ) -> Result<usize, Gone> {
        let count = sockets.len();
        sockets.push(PollFd::new(&self.connection, PollFlags::IN));
        sockets.push(PollFd::from_borrowed_fd(self.lifeline.as_fd(), PollFlags::empty()));
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let outcome = poll(sockets, left.as_ref());
        let rung = sockets.drain(count..).map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>();
        match outcome {
            Err(Errno::INTR) | Ok(0) => return Ok(0),
            Err(error) => return Err(Gone::Broken(error)),
            Ok(_) => {}
        }
        if rung.get(1).copied().unwrap_or(true) {
            return Err(Gone::Dispatcher);
        }
        if rung.first().copied().unwrap_or(true) {
            self.answer_bell()?;
        }
        Ok(sockets.iter().filter(|fd| !fd.revents().is_empty()).count())
    }

    /// Takes the bytes off the doorbell connection; they mean nothing but "look".
    fn answer_bell(&self) -> Result<(), Gone> {
        let mut bytes = [0; 64];
        match rustix::io::read(&self.connection, &mut bytes) {
            Ok(0) => Err(Gone::Closed),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(Gone::Broken(error)),
        }
    }

    /// True when the request has been cancelled.
    ///
    /// # Errors
    /// `Gone`.
    pub fn cancelled(&self, sequence: u32) -> Result<bool, Gone> {
        Ok(self.mailbox.cancelled(sequence)?)
    }

    /// Sends the response.
    ///
    /// # Errors
    /// `Gone`.
    pub fn respond(&self, sequence: u32, response: &Response) -> Result<(), Gone> {
        if self.mailbox.respond(sequence, response)? {
            self.hypervisor.doorbell(self.connection.as_fd());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_pays_only_while_requests_come_quickly() {
        let mut spin = Spin::up_to(LONGEST_SPIN);
        for _ in 0..10 {
            spin.learn(LONGEST_SPIN / 2);
        }
        assert!(spin.budget >= LONGEST_SPIN / 2);
        for _ in 0..10 {
            spin.learn(LONGEST_SPIN * 10);
        }
        assert_eq!(spin.budget, Duration::ZERO);
    }
}
