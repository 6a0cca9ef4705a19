//! Memory managers that fail are started again, and go on where they were: what they know of their
//! memory they have written down in memory of the root server's. Clients notice nothing but the
//! time, for the kernel keeps their faults for the next manager. A monitor that fails is started again too, but its virtual
//! machine is over: the new monitor says so, and starts it again as after any other end.
use crate::boot::Builder;
use crate::planned::Planned;
use crate::{Failure, guard};
use alloc::vec::Vec;
use backing::restarts::Restarts;
use rt::{log, sys, time};

/// What is known of failures.
pub struct Failures {
    /// For each program.
    restarts: Vec<Restarts>,
    /// Failures on demand.
    pub planned: Planned,
    /// How often each program was started again; in the badges of what it reports.
    pub generations: Vec<u64>,
}

impl Builder {
    /// Nothing has failed yet.
    pub fn failures(&self) -> Failures {
        let count = self.programs.len();
        let planned = Planned::from_words(self);
        let restarts = (0..count).map(|_| Restarts::default()).collect();
        Failures { restarts, planned, generations: alloc::vec![0; count] }
    }

    /// The manager of the region at an address of program `client`.
    pub fn manager_at(&self, client: usize, address: u64) -> Option<usize> {
        let managed = &self.programs.get(client)?.given.managed;
        let bind = managed.iter().find(|b| (b.base..b.base + b.length).contains(&address))?;
        self.manager(bind.portal)
    }

    /// Program `n` has failed.
    pub fn failed(&mut self, n: usize, failures: &mut Failures) {
        if !self.description.programs[n].restart {
            return;
        }
        failures.planned.let_go(n);
        let name = self.programs[n].config.name.clone();
        let hope = failures.restarts[n].again(time::to_microseconds(time::now().get()));
        let done = if hope {
            self.start_again(n, failures)
        } else {
            log!("fatal: manager '{name}' has failed too often: it stays off");
            let _ = sys::destroy(self.programs[n].space);
            self.manage_again(n, true)
        };
        match done {
            Ok(()) if hope => log!("manager '{name}' was started again"),
            Ok(()) => {}
            Err(Failure(text)) => {
                log!("fatal: manager '{name}' could not be started again: {text}");
                let _ = self.manage_again(n, true);
            }
        }
    }

    fn start_again(&mut self, n: usize, failures: &mut Failures) -> Result<(), Failure> {
        self.renew_machines(n)?;
        self.make_again(n)?;
        failures.generations[n] += 1;
        self.watch_ends(n, failures.generations[n])?;
        // It must have time before it is asked, for those who ask run on other processors too.
        self.start_program(n)?;
        self.manage_again(n, false)?;
        self.start_machines(Some(n), failures.generations[n])?;
        guard::started_again(n, failures.generations[n]);
        Ok(())
    }
}
