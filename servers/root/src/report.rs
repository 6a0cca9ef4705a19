//! What the root server does once the system is up: it reports threads that end, and has managers
//! started again.
use crate::boot::Builder;
use crate::{Failure, own};
use abi::{EndCause, Error, Event, MESSAGE_WORDS, Message, RootSelector, ThreadEnd};
use rt::{log, sys};

impl Builder {
    /// Has the ends of program `n`'s threads reported here; the badge is (generation × 256 + program) × 256 + thread.
    pub fn watch_ends(&mut self, n: usize, generation: u64) -> Result<(), Failure> {
        for t in 0..self.programs[n].threads.len() {
            let badge = generation << 16 | (n << 8 | t) as u64;
            let portal = self.portal(own(RootSelector::Thread), badge, "root")?;
            sys::fault_portal(self.programs[n].threads[t].thread, portal)
                .map_err(Failure::kernel("fault portals"))?;
            sys::cap_drop(abi::Selector(0), portal).map_err(Failure::kernel("fault portals"))?;
            self.give_back(portal);
        }
        Ok(())
    }
}

/// Waits for ends, for ever.
pub fn serve(mut builder: Builder) -> ! {
    let mut failures = builder.failures();
    let mut next = sys::wait(failures.carry_out(&builder));
    loop {
        if let Ok((Event::ThreadEnd(badge), words)) = &next {
            let n = (badge >> 8 & 0xff) as usize;
            // What ended together with a program that was started again meanwhile, is past.
            if failures.generations.get(n).is_some_and(|g| *g == badge >> 16) {
                builder.end_shares(n, badge & 0xff);
                ended(&mut builder, &mut failures, n, words);
            }
        }
        let refused = matches!(next, Ok((Event::Call(_) | Event::Fault(_) | Event::Exit(_), _)));
        let deadline = failures.carry_out(&builder);
        next = if refused {
            sys::reply_wait(Error::Refused as u64, [0; MESSAGE_WORDS], deadline)
        } else {
            sys::wait(deadline)
        };
    }
}

fn ended(
    builder: &mut Builder,
    failures: &mut crate::restart::Failures,
    n: usize,
    words: &Message,
) {
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
        let name = &builder.programs[manager].config.name;
        log!("error: manager '{name}' does not answer");
        builder.failed(manager, failures);
    }
    builder.failed(n, failures);
}
