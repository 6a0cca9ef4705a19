//! Memory managers that fail are started again, and go on where they were: what they know of their
//! memory they have written down in memory of the root server's. Clients notice nothing but the
//! time, for the kernel keeps their faults for the next manager.
use crate::Failure;
use crate::boot::Builder;
use abi::NO_DEADLINE;
use alloc::vec::Vec;
use backing::restarts::Restarts;
use rt::{log, sys, time};

/// What is known of failures.
pub struct Failures {
    /// For each program.
    restarts: Vec<Restarts>,
    /// Managers that are to fail, and when (in ticks): the machine's words `fail.NAME=MILLISECONDS,…`, for tests.
    planned: Vec<(usize, u64)>,
    /// How often each program was started again; in the badges of what it reports.
    pub generations: Vec<u64>,
}

impl Builder {
    /// Nothing has failed yet.
    pub fn failures(&self) -> Failures {
        let count = self.programs.len();
        let start = time::now().get();
        let mut planned = Vec::new();
        for (n, program) in self.description.programs.iter().enumerate() {
            let word = alloc::format!("fail.{}", program.name);
            let times = system::word(&self.info.command_line, &word).unwrap_or("");
            let times = times.split(',').filter_map(|t| t.parse::<u64>().ok());
            planned
                .extend(times.map(|t| {
                    (n, start.saturating_add(time::microseconds(t.saturating_mul(1000))))
                }));
        }
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
        self.make_again(n)?;
        failures.generations[n] += 1;
        self.watch_ends(n, failures.generations[n])?;
        // It must have time before it is asked, for those who ask run on other processors too.
        self.start_program(n)?;
        self.manage_again(n, false)
    }
}

impl Failures {
    /// Has those fail whose time has come. Returns when the next one's comes.
    pub fn carry_out(&mut self, builder: &Builder) -> u64 {
        let now = time::now().get();
        self.planned.retain(|(n, at)| {
            if *at <= now {
                let program = &builder.programs[*n];
                log!("manager '{}' is made to fail", program.config.name);
                let _ = sys::destroy(program.threads[0].thread);
            }
            *at > now
        });
        self.planned.iter().map(|(_, at)| *at).min().unwrap_or(NO_DEADLINE)
    }
}
