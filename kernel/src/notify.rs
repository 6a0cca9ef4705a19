//! Notifications: bits that are set from anywhere and wake the thread that is bound to them.
use crate::kernel::Kernel;
use crate::object::{Notification, State};
use abi::{Error, Event};
use scheduling::Id;

impl Kernel {
    /// Sets bits. The bound thread gets them at once if it waits, or else at its next wait.
    pub fn signal(&mut self, id: Id<Notification>, bits: u64) -> Result<(), Error> {
        let notification = self.notifications.get_mut(id)?;
        notification.bits |= bits;
        let Some(bound) = notification.bound else { return Ok(()) };
        let Ok(thread) = self.threads.get(bound) else { return Ok(()) };
        if !matches!(thread.state, State::Waiting) || notification.bits == 0 {
            return Ok(());
        }
        let taken = core::mem::take(&mut notification.bits);
        let cpu = thread.cpu;
        self.cpus[cpu].timers.remove(&mut self.threads, bound);
        self.finish_wait(bound, Event::Notification, Some(&[taken, 0, 0, 0, 0, 0, 0, 0]));
        Ok(())
    }
}
