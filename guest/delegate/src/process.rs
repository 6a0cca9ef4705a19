//! A delegate as a process.

use crate::door::{Door, Owner};
use crate::errno;
use crate::hypervisor::Hypervisor;
use crate::identity;
use crate::log;
use crate::pool::Pool;
use crate::sockets::Sockets;
use crate::worker::{Control, NoControl, serve};
use guest_sys::fork::{Inherited, fork};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;
use wire::{Credentials, Kind, Request, Response};

/// Stack of a worker thread. Its buffers are on the heap or in the mailbox.
const STACK: usize = 128 * 1024;

/// What all threads of the process share.
#[derive(Debug)]
pub struct Process<H> {
    hypervisor: H,
    pool: Arc<Pool>,
    lifeline: Arc<OwnedFd>,
    sockets: Arc<Sockets>,
    delegate: u32,
    token: u64,
    spin: Duration,
}

/// What a request to fork says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Birth {
    /// The new delegate's number.
    pub delegate: u32,
    /// Its proof that the relay asked for it.
    pub token: u64,
    /// Whom it acts as.
    pub credentials: Credentials,
}

/// What a request asks of a process as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Fork a delegate.
    Fork(Birth),
    /// Start one more worker.
    Spawn {
        /// Its slot.
        slot: u32,
    },
    /// End.
    Exit,
}

impl Order {
    /// What a request means for a delegate; `None`: it may not ask for that. The dispatcher, number 0,
    /// has no workers and never ends.
    #[must_use]
    pub fn of(request: &Request, delegate: u32) -> Option<Self> {
        match *request {
            Request::Fork { delegate, token, credentials } => {
                Some(Self::Fork(Birth { delegate, token, credentials }))
            }
            Request::Spawn { slot } if delegate != 0 && slot != 0 => Some(Self::Spawn { slot }),
            Request::Exit if delegate != 0 => Some(Self::Exit),
            _ => None,
        }
    }
}

impl<H: Hypervisor> Process<H> {
    /// The dispatcher, which has no number and no sockets.
    #[must_use]
    pub fn dispatcher(
        hypervisor: H,
        pool: Arc<Pool>,
        lifeline: Arc<OwnedFd>,
        spin: Duration,
    ) -> Self {
        Self { hypervisor, pool, lifeline, sockets: Arc::default(), delegate: 0, token: 0, spin }
    }

    /// The sockets.
    #[must_use]
    pub fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// Opens a mailbox.
    ///
    /// # Errors
    /// As [`Door::open`].
    pub fn door(&self, kind: Kind, slot: u32) -> io::Result<Door<H>> {
        let owner =
            Owner { kind, delegate: self.delegate, slot, token: self.token, spin: self.spin };
        Door::open(self.hypervisor.clone(), self.pool.slot()?, self.lifeline.clone(), owner)
    }

    /// Starts a worker thread.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn spawn(&self, slot: u32) -> io::Result<()> {
        let own = self.share();
        let work = move || match own.work(slot, &NoControl) {
            Ok(()) => {}
            Err(error) => {
                log::error(format_args!("delegate {}, slot {slot}: {error}", own.delegate))
            }
        };
        Builder::new().name(format!("slot {slot}")).stack_size(STACK).spawn(work).map(drop)
    }

    /// The life of a worker.
    fn work(&self, slot: u32, control: &impl Control) -> io::Result<()> {
        let mut door = self.door(Kind::Worker, slot)?;
        serve(&mut door, &self.sockets, control).map_err(io::Error::other)
    }

    fn share(&self) -> Self {
        Self {
            hypervisor: self.hypervisor.clone(),
            pool: self.pool.clone(),
            lifeline: self.lifeline.clone(),
            sockets: self.sockets.clone(),
            delegate: self.delegate,
            token: self.token,
            spin: self.spin,
        }
    }

    /// Forks a delegate with all sockets of this process; its pid.
    fn fork(&self, birth: Birth) -> io::Result<i32> {
        // The table is whole, and unlocked for nobody but this thread, while the child is made.
        let table = self.sockets.lock();
        fork(|inherited| {
            // What the dispatcher holds is on its way to somebody: none of it is this delegate's.
            let own = table.values().filter(|_| self.delegate != 0);
            let sockets = own.map(|socket| inherited.take(socket.clone())).collect();
            match self.begin(&inherited, sockets, birth) {
                Ok(()) => 0,
                Err(error) => {
                    log::error(format_args!("delegate {}: {error}", birth.delegate));
                    1
                }
            }
        })
    }

    /// The life of a new delegate.
    fn begin(&self, inherited: &Inherited, sockets: Vec<OwnedFd>, birth: Birth) -> io::Result<()> {
        let lifeline = inherited.take(self.lifeline.clone());
        let mut keep: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        keep.extend([0, 1, 2, lifeline.as_raw_fd(), self.pool.descriptor()]);
        // Above all: the doorbell connections of the parent, which must end with the parent, and
        // the dispatcher's end of the lifeline.
        inherited.close_all_except(&keep)?;
        let own = Process {
            hypervisor: self.hypervisor.clone(),
            pool: self.pool.inherited(),
            lifeline: Arc::new(lifeline),
            sockets: Arc::new(Sockets::of(sockets)),
            delegate: birth.delegate,
            token: birth.token,
            spin: self.spin,
        };
        if let Ok(name) = CString::new(format!("delegate {}", birth.delegate)) {
            // Only for people who look at the list of processes.
            let _ = rustix::thread::set_name(&name);
        }
        // Modes of new files arrive with the trusted process's own mask applied.
        rustix::process::umask(rustix::fs::Mode::empty());
        identity::act_as(&identity::of(birth.credentials), &[])?;
        own.spawn(1)?;
        // Slot 0 ends: so does the process, whatever its other threads are doing.
        own.work(0, &own)
    }
}

impl<H: Hypervisor> Control for Process<H> {
    fn control(&self, request: &Request) -> (Response, bool) {
        let outcome = match Order::of(request, self.delegate) {
            Some(Order::Fork(birth)) => self.fork(birth).map(i64::from),
            Some(Order::Spawn { slot }) => self.spawn(slot).map(|()| 0),
            Some(Order::Exit) => return (Response::value(0), true),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        let value = outcome.unwrap_or_else(|error| match error.raw_os_error() {
            Some(number) => -i64::from(number),
            None => -errno::EINVAL,
        });
        (Response::value(value), false)
    }
}
