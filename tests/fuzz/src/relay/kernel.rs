//! The guest's kernel: answers calls as a real one would, or with anything.
use super::{Machine, Value};
use abi::vcpu::reg;
use arbitrary::{Arbitrary, Unstructured};
use linux_abi::nr;
use memory::Memory;
use paging::{Access, PAGE};
use servicing::fake::guest::CODE;
use wire::vsock::{Connection, Record, WAKE_PORT};

/// Domain of virtual sockets.
const VSOCK: u64 = 40;
/// Present, writable, of a program.
const USER: u64 = 7;
const ENOSYS: i64 = -38;

impl Machine {
    /// The result of the call in the registers; `None`: the thread sleeps.
    pub(super) fn answer(&mut self, input: &mut Unstructured<'_>) -> Option<i64> {
        if let Ok(style @ 0xe0..) = u8::arbitrary(input)
            && let Ok(value) = Value::arbitrary(input)
        {
            return if style == u8::MAX { None } else { Some(self.value(value) as i64) };
        }
        let r = self.g.s.regs.r;
        let [a, b, c, d] = [reg::RDI, reg::RSI, reg::RDX, reg::R10].map(|n| r[n]);
        Some(match r[reg::RAX] {
            nr::socket | nr::dup | nr::fcntl | nr::epoll_create1 => {
                self.next_fd += 1;
                if r[reg::RAX] == nr::fcntl && b != 0 && b != 1030 {
                    0
                } else {
                    self.next_fd.into()
                }
            }
            nr::dup2 | nr::dup3 => b as i64,
            nr::connect => self.connect(b),
            nr::getsockname => {
                let mut name = [0; 16];
                name[0] = VSOCK as u8;
                name[4..8].copy_from_slice(&(7000 + self.next_connection).to_le_bytes());
                let _ = self.tables().write(b, &name);
                0
            }
            nr::mmap => self.map(b, d & 0x8000 != 0),
            nr::madvise => self.populate(a, b),
            nr::futex => self.populate(a, PAGE).min(0),
            nr::execve => self.execve(a),
            nr::fork | nr::vfork | nr::clone => {
                self.child();
                500
            }
            nr::read | nr::ppoll | nr::epoll_wait | nr::epoll_pwait => return None,
            nr::close | nr::close_range | nr::munmap | nr::mprotect | nr::setsockopt => 0,
            nr::openat | nr::memfd_create => {
                self.next_fd += 1;
                self.next_fd.into()
            }
            nr::getcwd => self.tables().write(a, b"/srv\0").map_or(-14, |()| 5),
            nr::readlink => self.tables().write(b, b"/srv/data").map_or(-14, |()| 9),
            nr::umask => 0o22,
            nr::chdir => 0,
            nr::lseek => c as i64,
            nr::pread64 | nr::write | nr::pwrite64 => c.min(4096) as i64,
            nr::getpid | nr::gettid => 4242,
            nr::geteuid | nr::getegid | nr::setfsuid | nr::setfsgid => 1000,
            nr::getsockopt => {
                let _ = self.tables().write(d, &[0; 8]);
                0
            }
            nr::recvmsg | nr::sendmsg => c as i64 & 1,
            nr::prctl | nr::capget | nr::getgroups | nr::epoll_ctl | nr::kcmp | nr::kill => 0,
            _ => ENOSYS,
        })
    }

    /// A virtual socket meets its other end; others don't.
    fn connect(&mut self, address: u64) -> i64 {
        let mut family = [0; 2];
        if self.tables().read(address, &mut family).is_err() || family != [VSOCK as u8, 0] {
            return -101;
        }
        self.next_connection += 1;
        let connection = Connection(self.next_connection);
        let guest_port = 7000 + self.next_connection;
        self.g.engine.compute_record(&Record::Connected {
            connection,
            port: WAKE_PORT,
            guest_port,
        });
        0
    }

    fn map(&mut self, length: u64, now: bool) -> i64 {
        let base = self.next_map;
        let length = length.min(16 * PAGE);
        self.next_map += length + PAGE;
        if now {
            let _ = self.populate(base, length);
        }
        base as i64
    }

    /// Pages appear where there are none, as far as the tables make sense.
    fn populate(&mut self, address: u64, length: u64) -> i64 {
        if address >> 47 != 0 {
            return -14;
        }
        let first = address & !(PAGE - 1);
        for page in 0..length.div_ceil(PAGE).min(16) {
            let page = first + page * PAGE;
            if self.tables().find(page, Access::Write).is_ok() {
                continue;
            }
            let frame = self.g.frame();
            if !self.map_page(page, frame) {
                return -14;
            }
        }
        0
    }

    fn map_page(&mut self, address: u64, frame: u64) -> bool {
        let mut table = self.g.s.cr3 & !(PAGE - 1);
        for shift in [39, 30, 21] {
            let at = table + (address >> shift & 511) * 8;
            let Ok(mut entry) = self.g.world.compute.read64(at) else { return false };
            if entry & 1 == 0 {
                entry = self.g.frame() | USER;
                let _ = self.g.world.compute.write(at, &entry.to_le_bytes());
            }
            table = entry & 0x000f_ffff_ffff_f000;
        }
        let at = table + (address >> 12 & 511) * 8;
        self.g.world.compute.write(at, &(frame | USER).to_le_bytes()).is_ok()
    }

    /// The thread goes on in a new address space, at the first call of the program.
    fn execve(&mut self, path: u64) -> i64 {
        let mut bytes = vec![0; 4096];
        let Ok(Some(length)) = self.tables().read_string(path, &mut bytes) else { return -14 };
        bytes.truncate(length);
        let cr3 = self.g.image(&bytes);
        self.spaces.push(cr3);
        self.load(cr3);
        self.g.s.cpl = 0;
        self.g.s.regs.r[reg::RCX] = CODE;
        nr::getpid as i64
    }

    /// Another process with the same pages: the tables below the root are shared.
    fn child(&mut self) {
        let root = self.g.frame();
        let mut entries = vec![0; PAGE as usize];
        let from = self.g.s.cr3 & !(PAGE - 1);
        if self.g.world.compute.read(from, &mut entries).is_ok()
            && self.g.world.compute.write(root, &entries).is_ok()
        {
            self.spaces.push(root);
        }
    }
}
