//! The little kernel of the fake compute VM: the calls that are re-executed.
use super::*;
use crate::cpu::Saved;

/// Pid of the first process.
const FIRST_PID: i64 = 4242;

const fn is_about_signals(number: u64) -> bool {
    matches!(number, nr::rt_sigprocmask | nr::rt_sigaction | nr::signalfd4)
}

pub enum Effect {
    Result(i64),
    Restart,
    Forked(i64, usize),
}

impl Guest {
    pub(super) fn fd(&mut self, process: usize, lowest: i32, file: File) -> i64 {
        let Process { files, limit, .. } = &mut self.processes[process];
        let fd = (lowest..).find(|fd| !files.contains_key(fd)).unwrap();
        if fd >= *limit {
            return -24;
        }
        files.insert(fd, file);
        i64::from(fd)
    }

    pub(super) fn carry_out(&mut self, process: usize) -> Option<Effect> {
        let saved = Saved::of(&self.s);
        let (number, a) = (saved.number(), saved.arguments());
        self.calls.push(number);
        let fd = a[0] as i32;
        let known = self.processes[process].files.contains_key(&fd);
        Some(Effect::Result(match number {
            nr::socket | nr::fcntl | nr::dup | nr::dup2 | nr::dup3
                if known || number == nr::socket =>
            {
                self.descriptor(process, number, a)
            }
            nr::epoll_create1 => {
                let cloexec = a[0] & 0o2000000 != 0;
                self.fd(process, 3, File { kind: Kind::Epoll, cloexec, ..File::default() })
            }
            nr::epoll_ctl => self.epoll_ctl(process, a),
            nr::epoll_wait | nr::epoll_pwait | nr::epoll_pwait2 => {
                return self.epoll_wait(process, number, a);
            }
            nr::close | nr::close_range => self.close(process, number, a),
            nr::connect if known => self.connect(process, fd),
            nr::getsockname if known => self.name(process, fd, a[1]),
            nr::read | nr::ppoll => return self.waits(process, number, a),
            nr::select | nr::pselect6 => return self.select(process, a),
            nr::mmap => self.mmap(process, a),
            nr::mprotect => self.mprotect(process, a),
            nr::madvise => self.populate(process, a),
            nr::execve => return self.execve(process, a[0]),
            nr::fork => return self.fork(process),
            nr::getegid => 1000,
            nr::prctl
            | nr::geteuid
            | nr::setuid
            | nr::setfsuid
            | nr::setfsgid
            | nr::capget
            | nr::getgroups
            | nr::settimeofday
            | nr::unshare => self.ids(process, number, a),
            nr::getpid => FIRST_PID + process as i64,
            nr::recvmsg if self.processes[process].incoming.is_none() => return None,
            nr::getsockopt | nr::sendmsg | nr::recvmsg | nr::kcmp | nr::pidfd_getfd | nr::kill => {
                self.passing(process, number, a)
            }
            nr::openat | nr::getcwd | nr::readlink | nr::umask | nr::chdir => {
                self.paths(process, number, a)
            }
            n if is_about_signals(n) => self.signals(process, n, a),
            nr::vfork if self.processes[process].suspended => return None,
            nr::vfork => 500,
            nr::futex => self.populate(process, [a[0], 0x1000, 23, 0, 0, 0]).min(0),
            nr::bind if known => self.bind(process, a[1]),
            nr::listen if known => self.listen(process, fd),
            nr::accept | nr::accept4 if known => self.accept(process, fd),
            nr::munmap | nr::seccomp | nr::setsockopt | nr::listen | nr::bind => 0,
            nr::getppid => 1,
            _ => -38,
        }))
    }

    fn listen(&mut self, process: usize, fd: i32) -> i64 {
        self.processes[process].files[&fd].listens.set(true);
        0
    }

    /// No signal is blocked, and a descriptor of signals is readable when one is there that it is for.
    /// Two have handlers, one of them with `SA_RESTART`.
    fn signals(&mut self, process: usize, number: u64, a: [u64; 6]) -> i64 {
        match number {
            nr::signalfd4 => {
                let heard = u64::from_le_bytes(self.read(process, a[1], 8).try_into().unwrap());
                if let Some(file) = self.processes[process].files.get(&(a[0] as i32)) {
                    file.flags.set(heard);
                    return a[0] as i64;
                }
                let file = File { kind: Kind::Signals, cloexec: true, ..File::default() };
                file.flags.set(heard);
                return self.fd(process, 3, file);
            }
            nr::rt_sigaction => {
                let restarts = a[0] == Signal::Restart.number();
                self.write(process, a[2] + 8, &(u64::from(restarts) << 28).to_le_bytes());
                return 0;
            }
            _ => {}
        }
        if a[2] != 0 {
            self.write(process, a[2], &[0; 8]);
        }
        0
    }

    fn close(&mut self, process: usize, number: u64, a: [u64; 6]) -> i64 {
        let files = &mut self.processes[process].files;
        if number == nr::close_range {
            files.retain(|fd, _| (*fd as u64) < a[0] || *fd as u64 > a[1]);
            return 0;
        }
        let Some(file) = files.remove(&(a[0] as i32)) else { return -9 };
        self.closed(&file);
        0
    }

    fn bind(&mut self, process: usize, at: u64) -> i64 {
        let name = self.read(process, at, 16);
        let port = u16::from_be_bytes([name[2], name[3]]);
        let p = &mut self.processes[process];
        if p.taken.contains(&port) {
            return -98;
        }
        p.bound.push(port);
        0
    }

    /// Each byte of a listening socket is a connection in its queue.
    fn accept(&mut self, process: usize, fd: i32) -> i64 {
        let file = self.processes[process].files[&fd].clone();
        assert_ne!(file.flags.get() & 0o4000, 0, "the placeholder blocks");
        match file.bytes.borrow_mut().pop_front() {
            Some(_) => self.fd(process, 3, File::default()),
            None => -11,
        }
    }

    fn mprotect(&mut self, process: usize, a: [u64; 6]) -> i64 {
        let cr3 = self.processes[process].cr3;
        let entry = self.leaf(cr3, a[0]);
        let execute = if a[2] & 4 == 0 { NO_EXECUTE } else { 0 };
        self.map(cr3, a[0], entry & 0xf_ffff_f000, 5 | a[2] & 2 | execute);
        0
    }

    /// Descriptors on their way.
    fn passing(&mut self, process: usize, number: u64, a: [u64; 6]) -> i64 {
        let other = |pid: u64| (pid as i64 - FIRST_PID) as usize;
        match number {
            nr::getsockopt if a[2] == 57 => {
                let cookie = self.processes[process].files[&(a[0] as i32)].cookie;
                self.write(process, a[3], &cookie.to_le_bytes());
                0
            }
            nr::getsockopt => {
                let peer = self.processes[process].peer;
                self.write(process, a[3], &peer.to_le_bytes());
                0
            }
            nr::recvmsg => {
                let file = self.processes[process].incoming.take().unwrap();
                let fd = self.fd(process, 3, file) as i32;
                let header = self.read(process, a[1], 56);
                let control = u64::from_le_bytes(header[32..40].try_into().unwrap());
                self.write(process, control, &crate::fake::rights(&[fd]));
                self.write(process, a[1] + 40, &24u64.to_le_bytes());
                1
            }
            nr::kcmp => {
                let one = &self.processes[other(a[0])].files[&(a[3] as i32)];
                let two = self.processes.get(other(a[1])).and_then(|p| p.files.get(&(a[4] as i32)));
                i64::from(two.is_none_or(|two| two.cookie != one.cookie))
            }
            nr::pidfd_getfd => {
                let mut file = self.processes[a[0] as usize].files[&(a[1] as i32)].clone();
                file.cloexec = true;
                self.fd(process, 3, file)
            }
            nr::kill => 0,
            _ => 1,
        }
    }

    /// Calls about paths: every path is one of a file, and all directories are `/etc` or `/work`.
    fn paths(&mut self, process: usize, number: u64, a: [u64; 6]) -> i64 {
        match number {
            nr::openat => {
                let bytes = self.read(process, a[1], 64);
                let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
                let path = String::from_utf8_lossy(text).into_owned();
                let cloexec = a[2] & 0o2000000 != 0;
                let file = File { kind: Kind::Pipe, cloexec, ..File::default() };
                if path == "/proc/thread-self/status" {
                    let caught = Signal::Interrupt.bit() | Signal::Restart.bit();
                    let status = format!("Name:\tx\nSigBlk:\t{:016x}\nSigCgt:\t{caught:016x}\n", 0);
                    file.bytes.borrow_mut().extend(status.bytes());
                }
                self.opened.push(path);
                self.fd(process, 3, file)
            }
            nr::getcwd => {
                self.write(process, a[0], b"/work\0");
                6
            }
            nr::readlink => {
                self.write(process, a[1], b"/etc");
                4
            }
            nr::umask => 0o22,
            _ => 0,
        }
    }

    /// The own port of a virtual socket.
    fn name(&self, process: usize, fd: i32, at: u64) -> i64 {
        let port = 7000 + self.processes[process].files[&fd].connection.unwrap().0;
        let mut name = [0; 16];
        name[0] = 40;
        name[4..8].copy_from_slice(&port.to_le_bytes());
        self.write(process, at, &name);
        0
    }

    /// Calls about ids, as far as the relay makes them.
    fn ids(&mut self, process: usize, number: u64, a: [u64; 6]) -> i64 {
        let p = &mut self.processes[process];
        match number {
            nr::geteuid => i64::from(p.uid),
            nr::setuid => {
                (p.uid, p.fsuid, p.capabilities) = (a[0] as u32, a[0] as u32, 0);
                0
            }
            nr::setfsuid => {
                let old = i64::from(p.fsuid);
                p.fsuid = if a[0] as u32 == u32::MAX { p.fsuid } else { a[0] as u32 };
                old
            }
            nr::setfsgid => 1000,
            nr::prctl => i64::from(a[0] == 21 && p.filtered) * 2,
            nr::settimeofday if p.initial && p.capabilities & 1 << 25 != 0 => 0,
            nr::settimeofday => -1,
            nr::unshare => {
                (p.initial, p.capabilities) = (false, u64::MAX);
                0
            }
            nr::getgroups => {
                let groups = p.groups.clone();
                for (n, group) in groups.iter().enumerate().take(a[0] as usize) {
                    self.write(process, a[1] + 4 * n as u64, &group.to_le_bytes());
                }
                groups.len() as i64
            }
            _ => {
                let halves = p.capabilities.to_le_bytes();
                self.write(process, a[1], &halves[..4]);
                self.write(process, a[1] + 12, &halves[4..]);
                0
            }
        }
    }

    /// Calls that make descriptors.
    pub(super) fn descriptor(&mut self, process: usize, number: u64, a: [u64; 6]) -> i64 {
        let fd = a[0] as i32;
        match number {
            nr::socket => {
                let kind = if a[0] == 40 { Kind::Vsock } else { Kind::Inet };
                let cloexec = a[1] & 0o2000000 != 0;
                self.next_cookie += 1;
                let cookie = self.next_cookie;
                self.fd(process, 3, File { kind, cloexec, cookie, ..File::default() })
            }
            nr::fcntl => match a[1] {
                0 | 1030 => {
                    let mut file = self.processes[process].files[&fd].clone();
                    file.cloexec = a[1] == 1030;
                    self.fd(process, a[2] as i32, file)
                }
                3 => self.processes[process].files[&fd].flags.get() as i64,
                _ => self.owners(process, a).unwrap_or(0),
            },
            nr::dup => {
                let mut file = self.processes[process].files[&fd].clone();
                file.cloexec = false;
                self.fd(process, 3, file)
            }
            nr::dup2 | nr::dup3 => {
                let file = self.processes[process].files[&fd].clone();
                self.processes[process].files.insert(a[1] as i32, file);
                a[1] as i64
            }
            _ => -38,
        }
    }

    pub(super) fn closed(&mut self, file: &File) {
        let Some(connection) = file.connection else { return };
        let mut open = self.processes.iter().flat_map(|p| p.files.values());
        if !open.any(|f| f.connection == Some(connection)) {
            self.engine.compute_record(&Record::Closed { connection });
        }
    }

    pub fn kill(&mut self, process: usize) {
        let files = std::mem::take(&mut self.processes[process].files);
        for file in files.values() {
            self.closed(file);
        }
        self.events();
    }

    pub(super) fn connect(&mut self, process: usize, fd: i32) -> i64 {
        let file = &self.processes[process].files[&fd];
        if file.kind != Kind::Vsock {
            return -101;
        }
        if self.processes[process].signal.take().is_some() {
            return -4;
        }
        let connection = Connection(self.next_connection);
        self.next_connection += 1;
        let file = self.processes[process].files.get_mut(&fd).unwrap();
        file.connection = Some(connection);
        let guest_port = 7000 + connection.0;
        let record = Record::Connected { connection, port: wire::vsock::WAKE_PORT, guest_port };
        self.engine.compute_record(&record);
        0
    }

    pub(super) fn waits(&mut self, process: usize, number: u64, a: [u64; 6]) -> Option<Effect> {
        self.events();
        if number == nr::read {
            let fd = a[0] as i32;
            let Some(file) = self.processes[process].files.get(&fd) else {
                return Some(Effect::Result(-9));
            };
            let bytes = file.bytes.clone();
            if bytes.borrow().is_empty() {
                return self.signalled(process, true);
            }
            let n = bytes.borrow().len().min(a[2] as usize);
            let data: Vec<u8> = bytes.borrow_mut().drain(..n).collect();
            self.write(process, a[1], &data);
            return Some(Effect::Result(n as i64));
        }
        let mut ready = 0;
        for n in 0..a[1] {
            let mut e =
                linux_abi::PollFd::decode(self.read(process, a[0] + n * 8, 8).try_into().unwrap());
            let found = self.readable(process, e.fd).map_or(0x20, u16::from);
            e.revents = found & (e.events | 0x20);
            ready += i64::from(e.revents != 0);
            self.write(process, a[0] + n * 8, &e.encode());
        }
        let blocked = match a[3] {
            0 => 0,
            at => u64::from_le_bytes(self.read(process, at, 8).try_into().unwrap()),
        };
        let deaf = self.processes[process].signal.is_some_and(|s| blocked & s.bit() != 0);
        if ready > 0 {
            if deaf && blocked != u64::MAX {
                // The call lets it in at its end.
                self.processes[process].signal = None;
            }
            return Some(Effect::Result(ready));
        }
        if a[2] != 0 && self.read(process, a[2], 16) == [0; 16] {
            return Some(Effect::Result(0));
        }
        if deaf { None } else { self.signalled(process, false) }
    }

    pub(super) fn signalled(&mut self, process: usize, restartable: bool) -> Option<Effect> {
        match self.processes[process].signal.take()? {
            Signal::Restart if restartable => Some(Effect::Restart),
            _ => Some(Effect::Result(-4)),
        }
    }

    pub(super) fn mmap(&mut self, process: usize, a: [u64; 6]) -> i64 {
        let base = self.processes[process].next_map;
        self.processes[process].next_map += a[1] + 0x1000;
        let cr3 = self.processes[process].cr3;
        for n in 0..a[1] / 0x1000 {
            self.processes[process].vmas.insert(base + n * 0x1000);
            if a[3] & 0x8000 != 0 {
                let frame = self.frame();
                self.map(cr3, base + n * 0x1000, frame, USER);
            }
        }
        base as i64
    }

    /// A range that exists but has no pages yet.
    pub fn reserve(&mut self, process: usize, pages: u64) -> u64 {
        self.mmap(process, [0, pages * 0x1000, 3, 0x22, 0, 0]) as u64
    }

    pub(super) fn populate(&mut self, process: usize, a: [u64; 6]) -> i64 {
        if let Some(delegate) = self.dies_at_populate.take() {
            for record in self.world.net.kill(delegate) {
                self.engine.service_record(&record);
            }
        }
        let cr3 = self.processes[process].cr3;
        for n in 0..a[1] / 0x1000 {
            let page = a[0] + n * 0x1000;
            let entry = self.leaf(cr3, page);
            let copy_on_write = entry & 1 << 9 != 0;
            if entry & 3 == 3 || entry & 1 != 0 && a[2] == 22 {
                continue;
            }
            if !self.processes[process].vmas.contains(&page) && !copy_on_write {
                return -12;
            }
            let frame = self.frame();
            if entry & 1 != 0 {
                let mut bytes = vec![0; 4096];
                self.world.compute.read(entry & 0xf_ffff_f000, &mut bytes).unwrap();
                self.world.compute.write(frame, &bytes).unwrap();
            }
            self.map(cr3, page, frame, USER);
        }
        0
    }

    pub(super) fn execve(&mut self, process: usize, path: u64) -> Option<Effect> {
        let mut bytes = vec![0; 4096];
        let n = self.tables(process).read_string(path, &mut bytes).unwrap().unwrap();
        if bytes[..n].ends_with(b"missing") {
            return Some(Effect::Result(-2));
        }
        let cr3 = self.image(&bytes[..n]);
        let closing: Vec<File> =
            self.processes[process].files.values().filter(|f| f.cloexec).cloned().collect();
        self.processes[process].files.retain(|_, f| !f.cloexec);
        self.processes[process].cr3 = cr3;
        for file in closing {
            self.closed(&file);
        }
        self.load(process);
        // The new image starts at its code, which makes a call.
        self.s.regs.r[reg::RCX] = CODE;
        self.s.regs.r[reg::RSP] = STACK_TOP - 0x900;
        Some(Effect::Result(nr::getpid as i64))
    }

    pub(super) fn fork(&mut self, process: usize) -> Option<Effect> {
        let mut child = self.processes[process].clone();
        child.cr3 = self.frame();
        let cr3 = self.processes[process].cr3;
        self.copy_tables(cr3, child.cr3, 39);
        self.processes.push(child);
        Some(Effect::Forked(500, self.processes.len() - 1))
    }

    /// All pages are shared; what was writable becomes copy-on-write in both.
    pub(super) fn copy_tables(&mut self, from: u64, to: u64, shift: u32) {
        for n in 0..512 {
            let mut entry = self.world.compute.read64(from + n * 8).unwrap();
            if entry & 1 == 0 {
                continue;
            }
            if shift == 12 {
                if entry & 2 != 0 {
                    entry = entry & !2 | 1 << 9;
                    self.put(from + n * 8, entry);
                }
                self.put(to + n * 8, entry);
            } else {
                if shift == 39 && n == 511 {
                    self.put(to + n * 8, entry);
                    continue;
                }
                let table = self.frame();
                self.put(to + n * 8, table | 7);
                self.copy_tables(entry & 0xf_ffff_f000, table, shift - 9);
            }
        }
    }
}
