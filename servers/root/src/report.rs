//! What the root server does once the system is up: it reports threads that end.
use crate::boot::Builder;
use crate::{Failure, own};
use abi::{Error, Event, MESSAGE_WORDS, NO_DEADLINE, RootSelector};
use rt::{log, sys};

impl Builder {
    /// Has the end of every thread reported here; the badge is program × 256 + thread.
    pub fn watch_ends(&mut self) -> Result<(), Failure> {
        for n in 0..self.programs.len() {
            for t in 0..self.programs[n].threads.len() {
                let badge = (n << 8 | t) as u64;
                let portal = self.portal(own(RootSelector::Thread), badge, "root")?;
                sys::fault_portal(self.programs[n].threads[t].thread, portal)
                    .map_err(Failure::kernel("fault portals"))?;
            }
        }
        Ok(())
    }
}

/// Waits for ends, for ever.
pub fn serve(builder: &Builder) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        next = match next {
            Ok((Event::ThreadEnd(badge), words)) => {
                let program = builder.programs.get((badge >> 8) as usize);
                let name = program.map_or("?", |p| p.config.name.as_str());
                let (reason, ip) = (words[0], words[1]);
                log!("fatal: program '{name}' ended (reason {reason}, at {ip:#x})");
                sys::wait(NO_DEADLINE)
            }
            Ok((Event::Timeout | Event::Notification, _)) => sys::wait(NO_DEADLINE),
            Ok(_) => sys::reply_wait(Error::Refused as u64, [0; MESSAGE_WORDS], NO_DEADLINE),
            Err(_) => sys::wait(NO_DEADLINE),
        };
    }
}
