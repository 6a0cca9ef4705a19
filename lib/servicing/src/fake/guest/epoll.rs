//! Epoll instances of the little kernel.
use super::kernel::Effect;
use super::{Guest, Kind};
use crate::fake::instance::{Instance, Level};
use linux_abi::nr;
use std::rc::Rc;

impl Guest {
    fn level(&self, process: usize, file: u64) -> Option<Level> {
        let mut files = self.processes[process].files.values();
        let found = files.find(|f| Rc::as_ptr(&f.bytes) as u64 == file)?;
        Some(match found.kind {
            // A socket that is not connected (`tcp_poll`).
            Kind::Inet if !found.listens.get() => (0x14, 0),
            Kind::Epoll => (u32::from(self.instance_is_ready(process, &found.epoll.borrow())), 0),
            _ => (u32::from(!found.bytes.borrow().is_empty()), found.arrivals.get()),
        })
    }

    fn instance_is_ready(&self, process: usize, instance: &Instance) -> bool {
        instance.is_ready(&|file| self.level(process, file))
    }

    /// What `poll` says of a descriptor.
    pub(super) fn readable(&self, process: usize, fd: i32) -> Option<bool> {
        let file = self.processes[process].files.get(&fd)?;
        Some(match file.kind {
            Kind::Epoll => self.instance_is_ready(process, &file.epoll.borrow()),
            Kind::Signals => {
                let signal = self.processes[process].signal;
                signal.is_some_and(|s| file.flags.get() & s.bit() != 0)
            }
            _ => !file.bytes.borrow().is_empty(),
        })
    }

    pub(super) fn epoll_ctl(&self, process: usize, a: [u64; 6]) -> i64 {
        let files = &self.processes[process].files;
        let (Some(epoll), Some(target)) = (files.get(&(a[0] as i32)), files.get(&(a[2] as i32)))
        else {
            return -9;
        };
        if epoll.kind != Kind::Epoll || Rc::ptr_eq(&epoll.bytes, &target.bytes) {
            return -22;
        }
        let mut event = [0; 12];
        if a[1] != 2 {
            event = self.read(process, a[3], 12).try_into().unwrap();
        }
        let event = linux_abi::EpollEvent::decode(event);
        let key = Rc::as_ptr(&target.bytes) as u64;
        epoll.epoll.borrow_mut().control(a[1], key, a[2] as i32, event.events, event.data)
    }

    pub(super) fn epoll_wait(
        &mut self,
        process: usize,
        number: u64,
        a: [u64; 6],
    ) -> Option<Effect> {
        let Some(file) = self.processes[process].files.get(&(a[0] as i32)).cloned() else {
            return Some(Effect::Result(-9));
        };
        let max = a[2] as i32;
        if file.kind != Kind::Epoll || max <= 0 {
            return Some(Effect::Result(-22));
        }
        let found = file.epoll.borrow_mut().take(max as usize, &|f| self.level(process, f));
        for (n, (events, data)) in found.iter().enumerate() {
            let event = linux_abi::EpollEvent { events: *events, data: *data };
            self.write(process, a[1] + n as u64 * 12, &event.encode());
        }
        let at_once = match number {
            nr::epoll_pwait2 => a[3] != 0 && self.read(process, a[3], 16) == [0; 16],
            _ => a[3] as i32 == 0,
        };
        if !found.is_empty() || at_once {
            return Some(Effect::Result(found.len() as i64));
        }
        self.signalled(process, false)
    }
}
