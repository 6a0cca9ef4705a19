//! What the root server does once the system is up: it reports threads that end, and has managers
//! started again.
use crate::boot::Builder;
use crate::restart::Failures;
use crate::{Failure, own};
use abi::{EndCause, Error, Event, MESSAGE_WORDS, Message, RootSelector, Selector, ThreadEnd};
use rt::{log, sys};

impl Builder {
    /// Has the ends of program `n`'s threads reported here; the badge is (generation × 256 + program) × 256 + thread.
    /// Machines are numbered on behind the programs.
    pub fn watch_ends(&mut self, n: usize, generation: u64) -> Result<(), Failure> {
        for t in 0..self.programs[n].threads.len() {
            self.watch_end(self.programs[n].threads[t].thread, n << 8 | t, generation)?;
        }
        Ok(())
    }

    /// The same for one thread or vCPU.
    pub fn watch_end(
        &mut self,
        thread: Selector,
        number: usize,
        generation: u64,
    ) -> Result<(), Failure> {
        let badge = generation << 16 | number as u64;
        let portal = self.portal(own(RootSelector::Thread), badge, "root")?;
        sys::fault_portal(thread, portal).map_err(Failure::kernel("fault portals"))?;
        sys::cap_drop(Selector(0), portal).map_err(Failure::kernel("fault portals"))?;
        self.give_back(portal);
        Ok(())
    }

    /// Something happened to virtual machine `m`: its processor has ended, or a fault of it was late.
    fn machine_report(&mut self, failures: &mut Failures, m: usize, words: &Message) {
        let name = &self.machines[m].name;
        let Some(end) = ThreadEnd::decode(words) else { return };
        let EndCause::Late { address } = end.cause else {
            return log!("error: the processor of virtual machine '{name}' ended: {end}");
        };
        log!("error: virtual machine '{name}' waited too long at {address:#x}");
        if let Some(manager) = self.guest_manager_at(m, address) {
            self.does_not_answer(manager, failures);
        }
    }

    fn does_not_answer(&mut self, manager: usize, failures: &mut Failures) {
        log!("error: manager '{}' does not answer", self.programs[manager].config.name);
        self.failed(manager, failures);
    }
}

/// Waits for ends, for ever.
pub fn serve(mut builder: Builder) -> ! {
    let mut failures = builder.failures();
    let mut next = sys::wait(failures.planned.carry_out(&mut builder));
    loop {
        if let Ok((Event::Notification, words)) = &next {
            builder.silent(words[0], &mut failures);
        }
        if let Ok((Event::ThreadEnd(badge), words)) = &next {
            let n = (badge >> 8 & 0xff) as usize;
            let machine = n.checked_sub(builder.programs.len());
            // A machine's processor is made anew with its monitor.
            let program = machine.map_or(n, |m| builder.machines[m].monitor);
            // What ended together with a program that was started again meanwhile, is past.
            if failures.generations.get(program).is_some_and(|g| *g == badge >> 16) {
                match machine {
                    Some(m) => builder.machine_report(&mut failures, m, words),
                    None => {
                        builder.end_shares(n, badge & 0xff);
                        ended(&mut builder, &mut failures, n, words);
                    }
                }
            }
        }
        let refused = matches!(next, Ok((Event::Call(_) | Event::Fault(_) | Event::Exit(_), _)));
        let deadline = failures.planned.carry_out(&mut builder);
        next = if refused {
            sys::reply_wait(Error::Refused as u64, [0; MESSAGE_WORDS], deadline)
        } else {
            sys::wait(deadline)
        };
    }
}

fn ended(builder: &mut Builder, failures: &mut Failures, n: usize, words: &Message) {
    let name = &builder.programs[n].config.name;
    let weight = if builder.description.programs[n].restart { "error" } else { "fatal" };
    let end = ThreadEnd::decode(words);
    match &end {
        Some(end) => log!("{weight}: program '{name}' ended: {end}"),
        None => log!("{weight}: program '{name}' ended: {words:x?}"),
    }
    if let Some(EndCause::Late { address }) = end.map(|end| end.cause)
        && let Some(manager) = builder.manager_at(n, address)
    {
        builder.does_not_answer(manager, failures);
    }
    builder.failed(n, failures);
}
