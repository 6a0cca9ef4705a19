//! The order of building, and what joins programs: shared objects, files, channels.
use crate::boot::Builder;
use crate::program::{Private, RW};
use crate::views::View;
use crate::{Failure, own};
use abi::{LARGE_PAGE_SIZE, MemRights, ObjRights, RootSelector};
use alloc::format;
use alloc::string::String;
use backing::Tag;
use backing::stack::STEP;
use memory::Memory;
use rt::log;
use rt::sys::Pinned;
use system::{Channel, ChannelEnd};

impl Builder {
    /// Builds everything and starts it.
    pub fn build(&mut self) -> Result<(), Failure> {
        let count = self.description.programs.len();
        (0..count).try_for_each(|n| self.create_program(n))?;
        let private = self.plan_pool()?;
        for n in 0..count {
            self.load_program(n)?;
            self.private_memory(n, private.get(n).copied().flatten())?;
            self.give_files(n)?;
            self.give_capabilities(n)?;
            self.give_processes(n)?;
        }
        self.give_pool(&private)?;
        self.give_views()?;
        self.give_ledgers()?;
        self.give_heaps()?;
        self.share_memory()?;
        self.give_shares()?;
        for channel in self.description.channels.clone() {
            self.join(&channel)?;
        }
        self.give_devices()?;
        self.create_machines()?;
        self.give_models()?;
        self.give_swapped()?;
        self.finish_shares()?;
        (0..count).try_for_each(|n| self.write_config(n))?;
        (0..count).try_for_each(|n| self.watch_ends(n, 0))?;
        (0..count).try_for_each(|n| self.start_program(n))?;
        self.start_machines(None, 0)?;
        self.watch_managers()?;
        log!("system is up: {count} programs, {} MiB left", self.ram.left() >> 20);
        if let Ok((at, ..)) = rt::sys::mem_info(own(RootSelector::Archive)) {
            log!("boot archive at {at:#x}");
        }
        Ok(())
    }

    /// Lays out the anonymous-memory manager's pool. Returns which object is the private memory
    /// of each program.
    fn plan_pool(&mut self) -> Result<alloc::vec::Vec<Option<Private>>, Failure> {
        let mut next = 0;
        for object in self.description.memory.clone() {
            let line = &self.info.command_line;
            let word = object.size_from_command_line.as_ref();
            let size = match word.and_then(|w| system::word(line, w)) {
                None => object.size,
                Some(text) => system::parse_size(text)
                    .filter(|s| *s > 0 && s.is_multiple_of(LARGE_PAGE_SIZE))
                    .ok_or_else(|| Failure(format!("size '{text}' of '{}'", object.name)))?,
            };
            let swapped = self.plan_swapped(&object, size)?;
            self.objects.push((next, size));
            if swapped.is_none() {
                next += size;
            }
            self.swapped.push(swapped);
        }
        let mut private = alloc::vec::Vec::new();
        for program in &self.description.programs {
            let heap = self.objects.len();
            private.push((!program.pinned).then_some(Private { heap, stacks: 0 }));
            if !program.pinned {
                let bytes = program.heap.next_multiple_of(LARGE_PAGE_SIZE);
                self.objects.push((next, bytes));
                next += bytes;
            }
        }
        for (program, private) in self.description.programs.iter().zip(&mut private) {
            let Some(private) = private else { continue };
            private.stacks = self.objects.len();
            for _ in &program.cpus {
                let bytes = program.stack.unwrap_or(system::STACK);
                self.objects.push((next, bytes));
                next += bytes;
            }
        }
        next = next.next_multiple_of(LARGE_PAGE_SIZE);
        let at = self.ram.take(next, LARGE_PAGE_SIZE, false)?;
        self.pool = (at, next);
        Ok(private)
    }

    /// Tells the anonymous-memory manager whose objects are whose, how much each may have, and which of
    /// them are stacks.
    fn give_quotas(&mut self, private: &[Option<Private>]) {
        let (mut clients, mut stacks, mut quotas) = (String::new(), String::new(), String::new());
        for (n, program) in self.description.programs.iter().enumerate() {
            let Some(Private { heap, stacks: first }) = private.get(n).copied().flatten() else {
                continue;
            };
            let end = first + program.cpus.len();
            let mut declared = 0;
            for object in core::iter::once(heap).chain(first..end) {
                clients.push_str(&format!("{object}:{n},"));
                declared += self.objects[object].1;
            }
            (first..end).for_each(|object| stacks.push_str(&format!("{object},")));
            quotas.push_str(&format!("{n}:{},", program.memory.unwrap_or(declared)));
        }
        let parameters = &mut self.programs[0].config.parameters;
        parameters.push(("clients".into(), clients));
        parameters.push(("stacks".into(), stacks));
        parameters.push(("quotas".into(), quotas));
    }

    fn give_pool(&mut self, private: &[Option<Private>]) -> Result<(), Failure> {
        self.give_quotas(private);
        let (at, length) = self.pool;
        let derived = self.selector();
        let rights = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
        rt::sys::mem_derive(derived, own(RootSelector::Ram), at, length, rights)
            .map_err(Failure::kernel("the pool of anonymous memory"))?;
        // What the manager writes down about its objects.
        let notes = self.objects.iter().map(|(_, length)| length.div_ceil(STEP)).sum::<u64>();
        let notes = notes.next_multiple_of(4096).max(4096);
        let notes_at = self.ram.take(notes, 4096, true)?;
        let mut list = String::new();
        for (number, (base, length)) in self.objects.iter().enumerate() {
            let elsewhere = self.swapped.get(number).is_some_and(Option::is_some);
            let length = if elsewhere { 0 } else { *length };
            list.push_str(&format!("{base}:{length},"));
        }
        let anon = &mut self.programs[0];
        anon.config.parameters.push(("objects".into(), list));
        anon.show("pool", derived, 0, length, RW, None)?;
        anon.grant("pool", derived, rt::sys::ALL_RIGHTS)?;
        anon.show("state", own(RootSelector::Ram), notes_at, notes, RW, None)?;
        let mut list = String::new();
        for file in &self.files {
            list.push_str(&format!("{}:{},", file.offset, file.length));
        }
        let image = &mut self.programs[1];
        image.config.parameters.push(("files".into(), list));
        image.grant("archive", own(RootSelector::Archive), rt::sys::ALL_RIGHTS)?;
        Ok(())
    }

    fn give_files(&mut self, n: usize) -> Result<(), Failure> {
        for used in self.description.programs[n].files.clone() {
            let (number, file) = self.file(&used.file)?;
            let (from, length) = (file.offset, file.length);
            let (tag, rights) = if used.private {
                let copies = used.copies.unwrap_or(length);
                let view = View { from, in_file: length, length, client: n, copies };
                (self.view(view)?, RW)
            } else {
                let tag = Tag { object: number, offset: 0 }.encode();
                (tag.ok_or_else(|| Failure("tag".into()))?, MemRights::READ)
            };
            let cpu = self.programs[n].threads[0].cpu;
            let portal = self.manager_on(1, cpu, n as u64, rights)?;
            self.programs[n].bind(&used.region, portal, tag, length, rights)?;
        }
        Ok(())
    }

    fn give_capabilities(&mut self, n: usize) -> Result<(), Failure> {
        for name in self.description.programs[n].capabilities.clone() {
            let from = match name.as_str() {
                "irq" => RootSelector::Irq,
                "system" => RootSelector::System,
                _ => return Err(Failure(format!("unknown capability '{name}'"))),
            };
            let mask = (ObjRights::USE | ObjRights::CONTROL).bits();
            self.programs[n].grant(&name, own(from), mask)?;
        }
        Ok(())
    }

    /// What a program needs that starts processes: the archive, memory, and its thread.
    fn give_processes(&mut self, n: usize) -> Result<(), Failure> {
        let Some(bytes) = self.description.programs[n].processes else { return Ok(()) };
        let (memory, length) = (self.selector(), bytes.next_multiple_of(4096));
        let at = self.ram.take(length, LARGE_PAGE_SIZE, false)?;
        let all = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
        rt::sys::mem_derive(memory, own(RootSelector::Ram), at, length, all)
            .map_err(Failure::kernel("memory for processes"))?;
        let (archive, files) = (own(RootSelector::Archive), self.archive.len());
        let program = &mut self.programs[n];
        program.show("processes", memory, 0, length, RW, None)?;
        program.show("archive", archive, 0, files, MemRights::READ, None)?;
        let thread = program.threads[0].thread;
        for (name, from) in [("processes", memory), ("archive", archive), ("thread", thread)] {
            program.grant(name, from, rt::sys::ALL_RIGHTS)?;
        }
        Ok(())
    }

    fn share_memory(&mut self) -> Result<(), Failure> {
        for (number, object) in self.description.memory.clone().iter().enumerate() {
            let length = self.objects[number].1;
            let tag = Tag { object: number as u32, offset: 0 }.encode();
            let tag = tag.ok_or_else(|| Failure("tag".into()))?;
            for used in &object.used_by {
                let cpu = self.program(&used.program)?.threads[0].cpu;
                let space = self.space_number(&used.program);
                let portal = self.manager_of(number, cpu, space)?;
                let program = self.program(&used.program)?;
                let base = program.bind(&used.region, portal, tag, length, RW)?;
                let space = program.space;
                let kind = self.tell_losses(number, object, used, portal)?;
                self.shown(number, space, base, kind)?;
            }
        }
        Ok(())
    }

    fn join(&mut self, channel: &Channel) -> Result<(), Failure> {
        let at = self.ram.take(channel.size, 4096, true)?;
        let ends = [&channel.first, &channel.second];
        let mut told = [(0, 0); 2];
        for (end, told) in ends.iter().zip(&mut told) {
            let program = self.program(&end.program)?;
            let bit = program.bit(end.thread)?;
            *told = (program.threads[end.thread as usize].notification.0, bit);
        }
        for (n, end) in ends.iter().enumerate() {
            let (notification, peer_bits) = told[1 - n];
            let program = self.program(&end.program)?;
            let address = program.address(channel.size);
            let (memory, length) = (own(RootSelector::Ram), channel.size);
            let shown = Pinned { base: address, memory, offset: at, length, rights: RW };
            program.given.pinned(program.space, shown)?;
            let name = format!("signal:{}", channel.name);
            let peer = program.grant(&name, abi::Selector(notification), ObjRights::USE.bits())?;
            // A channel between two threads of one program has two names there.
            let within = n == 1 && channel.first.program == channel.second.program;
            let suffix = if within { ":second" } else { "" };
            program.config.channels.push(ChannelEnd {
                name: format!("{}{suffix}", channel.name),
                address,
                length: channel.size,
                first: n == 0,
                peer,
                peer_bits,
                own_bits: told[n].1,
                thread: end.thread,
            });
        }
        Ok(())
    }
}
