//! Programs and processes: `execve`, `fork` and its relatives, and the preparations that a new
//! program or a new process makes behind its first call.
use crate::core::Core;
use crate::cx::Cx;
use crate::delegate::Life;
use crate::gate::Gate;
use crate::space::{Exec, FIRST_PAGES, Fork, Outcome, Role, SCRATCH_PAGES, Space, Via};
use crate::spelling::spell;
use crate::table::Table;
use crate::world::{add, short_name};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use linux_abi::{
    CLONE_NEWUSER, CLONE_SETTLS, CLONE_THREAD, CLONE_VFORK, CLONE_VM, CloneArgs, Errno,
    MADV_POPULATE_WRITE, MAP_ANONYMOUS, MAP_PRIVATE, PATH_MAX, PROT_EXEC, PROT_READ, PROT_WRITE,
    check, nr,
};
use paging::PAGE;

/// `execve`: a listed program starts with a nonce in its path; any other ends the trust.
pub async fn execve(cx: &Cx) -> Result<Outcome, Errno> {
    let Ok(path) = cx.string(cx.arguments[0], PATH_MAX).await else {
        return Ok(Outcome::Reflect);
    };
    let path = behind_link(cx, &path).unwrap_or(path);
    let program = may_become(cx, &path);
    let spelled = program.and_then(|program| {
        let spelled = spell(&path, cx.core.world.random()).filter(|s| s.len() < PAGE as usize);
        Some((program, spelled?))
    });
    let Some((program, spelled)) = spelled else {
        cx.core.world.log(format_args!(
            "{}[{}]: {} is not trusted: it has no network",
            cx.space.name.borrow(),
            cx.space.id,
            alloc::string::String::from_utf8_lossy(&path),
        ));
        return Ok(Outcome::Reflect);
    };
    let scratch = cx.scratch()?;
    cx.write(scratch.address, &spelled).await?;
    cx.write(scratch.address + spelled.len() as u64, &[0]).await?;
    let in_child = cx.space.in_child(cx.fs);
    // What it inherits must get a delegate while its parent still holds it.
    borrow_sockets(cx).await?;
    let exec = Rc::new(Exec {
        spelled,
        path,
        program,
        table: cx.table.clone(),
        leaves: (!in_child).then_some(cx.space.id),
        deadline: cx.core.world.now().saturating_add(cx.core.settings.patience),
    });
    cx.table.in_exec.set(true);
    cx.core.execs.borrow_mut().push(exec.clone());
    let [_, argv, envp, ..] = cx.arguments;
    let result = cx.local(nr::execve, [scratch.address, argv, envp, 0, 0, 0]).await;
    // Only a failure comes back.
    cx.table.in_exec.set(false);
    cx.core.execs.borrow_mut().retain(|e| !Rc::ptr_eq(e, &exec));
    Ok(Outcome::Return(result))
}

/// The program that a link to the launcher stands in front of, where this process may become it. The
/// launcher would start it anew, without what is remote.
fn behind_link(cx: &Cx, path: &[u8]) -> Option<Vec<u8>> {
    let path = policy::normalise(path)?;
    let name = path.strip_prefix(wire::LINKS.as_bytes())?.strip_prefix(b"/")?;
    let programs = cx.core.policy.programs.iter().map(|program| program.path.as_bytes());
    let mut named = programs.filter(|path| path.rsplit(|b| *b == b'/').next() == Some(name));
    named.next().filter(|path| may_become(cx, path).is_some()).map(<[u8]>::to_vec)
}

/// The program of the policy that this process may become.
fn may_become(cx: &Cx, path: &[u8]) -> Option<usize> {
    let path = policy::normalise(path)?;
    let programs = &cx.core.policy.programs;
    let place = programs.iter().position(|p| p.path.as_bytes() == path)?;
    // A launcher may become any of them.
    let Some(own) = cx.core.program(&cx.space) else { return Some(place) };
    let child = own.children || !cx.space.in_child(cx.fs);
    (child && own.may_become(&programs.get(place)?.path)).then_some(place)
}

/// What a `fork` is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kind {
    shares_memory: bool,
    /// The child gets a user namespace of its own.
    namespace: bool,
    suspends: bool,
    /// The child's stack pointer, where it is not the parent's.
    stack: Option<u64>,
}

async fn kind(cx: &Cx) -> Result<Option<Kind>, Errno> {
    let (flags, stack) = match cx.number {
        nr::fork => (0, None),
        nr::vfork => (CLONE_VM | CLONE_VFORK, None),
        nr::clone => (cx.arguments[0], Some(cx.arguments[1]).filter(|s| *s != 0)),
        _ => {
            if cx.arguments[1] < CloneArgs::SIZE as u64 {
                return Ok(None);
            }
            let args = CloneArgs::decode(&cx.array(cx.arguments[0]).await?);
            let top = args.stack.wrapping_add(args.stack_size);
            (args.flags, Some(top).filter(|s| *s != 0))
        }
    };
    if flags & CLONE_VM != 0 && flags & (CLONE_VFORK | CLONE_SETTLS) == 0 {
        // A program without thread-local storage, one without libc for instance.
        cx.space.share_fs(cx.fs);
    }
    if flags & CLONE_THREAD != 0 {
        return Ok(None);
    }
    let shares_memory = flags & CLONE_VM != 0;
    let (suspends, namespace) = (flags & CLONE_VFORK != 0, flags & CLONE_NEWUSER != 0);
    Ok(Some(Kind { shares_memory, namespace, suspends, stack }))
}

/// `fork`, `vfork`, `clone`, `clone3`.
pub async fn fork(cx: &Cx) -> Result<Outcome, Errno> {
    let Some(kind) = kind(cx).await? else { return Ok(Outcome::Reflect) };
    if kind.shares_memory && !kind.suspends {
        cx.core.world.log(format_args!(
            "{}[{}]: a process that shares memory with its running parent shares its sockets, too",
            cx.space.name.borrow(),
            cx.space.id,
        ));
        return Ok(Outcome::Reflect);
    }
    let table = Rc::new(cx.table.copy(cx.core.number()));
    if kind.namespace {
        super::ids::leave_namespace(cx, &table);
    }
    let inherits = cx.core.program(&cx.space).is_some_and(|p| p.children);
    if !kind.shares_memory && inherits {
        start_delegate(cx, &table).await?;
    }
    let fork = Rc::new(Fork {
        rsp: kind.stack.unwrap_or(cx.saved.regs.r[abi::vcpu::reg::RSP]),
        shares_memory: kind.shares_memory,
        table,
        saved: cx.saved,
        left: cx.space.outer(cx.fs),
        arrived: Cell::new(false),
        deadline: cx.core.world.now().saturating_add(cx.core.settings.patience),
    });
    cx.space.forks.borrow_mut().push(fork.clone());
    let result = cx.original().await;
    let over = result < 0 || kind.shares_memory;
    if over {
        cx.space.forks.borrow_mut().retain(|f| !Rc::ptr_eq(f, &fork));
        cx.space.leave_child(&fork);
        leave_parent(&cx.core, &fork.table);
    }
    Ok(Outcome::Return(result))
}

/// A `vfork` child is over: its descriptors are gone unless a new program has them.
fn leave_parent(core: &Core, table: &Table) {
    let in_space = core.spaces.borrow().iter().any(|s| s.table.id == table.id);
    let in_exec = core.execs.borrow().iter().any(|e| e.table.id == table.id);
    if !in_space && !in_exec {
        core.bury(table);
    }
}

/// A child of `vfork` gets a delegate with its parent's sockets, if it has none yet.
///
/// # Errors
/// What kept the thread from waiting; `EAGAIN` where there is no delegate.
pub async fn borrow_sockets(cx: &Cx) -> Result<(), Errno> {
    let without = cx.table.delegate.borrow().is_none();
    if without && cx.space.in_child(cx.fs) && cx.table.has_remote() {
        start_delegate(cx, &cx.table).await?;
    }
    Ok(())
}

/// Starts the child's delegate: forked from the parent's, whose sockets it keeps.
async fn start_delegate(cx: &Cx, table: &Table) -> Result<(), Errno> {
    let parent = if Rc::ptr_eq(&cx.space.table, &cx.table) || !cx.space.in_child(cx.fs) {
        cx.table.delegate.borrow().clone()
    } else {
        cx.space.table.delegate.borrow().clone()
    };
    // One that has only been asked for will have what its child inherits, and forks when it is there: a
    // daemon's parent may be gone by then.
    let Some(parent) = parent.filter(|d| matches!(d.life(), Life::Starting | Life::Ready)) else {
        // Nothing can be inherited from a delegate that is not there.
        return Ok(());
    };
    let remote = table.has_remote();
    let (delegate, completion) = cx.core.start_delegate(table, &parent);
    if !remote {
        return Ok(());
    }
    let response = cx.completed(&completion).await?;
    if response.value < 0 {
        return Err(Errno::EAGAIN);
    }
    let entries: Vec<_> = table.entries.borrow().values().map(|e| e.resource.clone()).collect();
    for resource in entries.into_iter().chain(table.copies(None)) {
        let mut holders = resource.holders.borrow_mut();
        if let Some(fd) = holders.get(&parent.id).copied() {
            holders.insert(delegate.id, fd);
        }
    }
    Ok(())
}

/// The first steps of a program: gate, scratch area, lifeline. Then its call.
pub async fn enter_program(cx: Rc<Cx>) -> Outcome {
    if let Err(error) = prepare(&cx).await {
        cx.space.given_up.set(true);
        cx.core.world.log(format_args!(
            "{}[{}]: no gate ({error:?}): it goes on without network",
            cx.space.name.borrow(),
            cx.space.id,
        ));
        return Outcome::Reflect;
    }
    cx.space.ready.set(true);
    serve_now(cx).await
}

async fn serve_now(cx: Rc<Cx>) -> Outcome {
    use super::{Verdict, serve, verdict};
    let launcher = cx.space.role == Role::Launcher;
    match verdict(&cx.table, cx.number, &cx.arguments) {
        Verdict::Plain => Outcome::Reflect,
        _ if launcher && cx.number != nr::execve => Outcome::Reflect,
        Verdict::Refuse(error) => Outcome::Return(error.result()),
        Verdict::Serve => serve(cx).await,
    }
}

async fn prepare(cx: &Cx) -> Result<(), Errno> {
    let length = (1 + SCRATCH_PAGES) * PAGE;
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    let map = [0, length, PROT_READ | PROT_WRITE, flags, u64::MAX, 0];
    let address = check(cx.local_via(nr::mmap, map, Via::Original).await)? as u64;
    let populate = [address, FIRST_PAGES * PAGE, MADV_POPULATE_WRITE, 0, 0, 0];
    check(cx.local_via(nr::madvise, populate, Via::Original).await)?;
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&cx.core.world.random().to_le_bytes());
    nonce[8..].copy_from_slice(&cx.core.world.random().to_le_bytes());
    let tables = cx.space.tables(&cx.core);
    let gate = Gate { address, nonce };
    tables.write(address, &gate.head()).map_err(|_| Errno::EFAULT)?;
    let protect = [address, PAGE, PROT_READ | PROT_EXEC, 0, 0, 0];
    check(cx.local_via(nr::mprotect, protect, Via::Original).await)?;
    cx.space.gate.set(Some(gate));
    super::sandbox::check_unfiltered(cx).await?;
    cx.table.pid.set(check(cx.local(nr::getpid, [0; 6]).await).unwrap_or(0) as i32);
    // The lifeline: from now on the process's end is noticed.
    drop(cx.wake().await?);
    if cx.space.role == Role::Trusted {
        super::ids::learn(cx, false).await;
        // Its delegate comes to life while it loads its libraries.
        cx.core.delegate(&cx.table);
        renew_bells(cx).await;
    }
    Ok(())
}

/// Bells are closed by `execve`; the sockets that a program inherits go on raising signals.
async fn renew_bells(cx: &Cx) {
    let entries: Vec<_> = cx.table.entries.borrow().values().map(|e| e.resource.clone()).collect();
    for resource in entries {
        if let Err(error) = super::signals::refresh(cx, &resource).await {
            cx.core.world.log(format_args!(
                "{}[{}]: a socket raises no signals any more: {}",
                cx.space.name.borrow(),
                cx.space.id,
                error.name(),
            ));
        }
    }
}

/// The first steps of a child of `fork`: its parent's wake sockets are none of its own.
pub async fn enter_child(cx: Rc<Cx>) -> Outcome {
    let inherited = cx.table.inherited.take();
    for fd in inherited {
        cx.local(nr::close, [fd as u64, 0, 0, 0, 0, 0]).await;
    }
    if cx.core.program(&cx.space).is_some_and(|p| !p.children) {
        disown(&cx).await;
        return Outcome::Return(0);
    }
    cx.table.pid.set(check(cx.local(nr::getpid, [0; 6]).await).unwrap_or(0) as i32);
    match cx.wake().await {
        Ok(_) => cx.space.ready.set(true),
        Err(error) => {
            cx.space.given_up.set(true);
            cx.core.world.log(format_args!(
                "{}[{}]: no lifeline ({error:?}): it goes on without network",
                cx.space.name.borrow(),
                cx.space.id,
            ));
        }
    }
    Outcome::Return(0)
}

/// Lets a child go that the policy does not trust: without the gate it cannot pass for anyone.
async fn disown(cx: &Cx) {
    for bell in cx.table.take_bells(|_| true) {
        cx.local(nr::close, [bell.fd as u64, 0, 0, 0, 0, 0]).await;
    }
    let length = (1 + SCRATCH_PAGES) * PAGE;
    if let Some(gate) = cx.space.gate.get() {
        cx.local_via(nr::munmap, [gate.address, length, 0, 0, 0, 0], Via::Original).await;
    }
    cx.space.given_up.set(true);
}

/// The space of a program that has shown its nonce.
pub fn adopt(core: &Core, exec: &Exec, cr3: u64) -> Rc<Space> {
    let left = exec.leaves.and_then(|id| {
        let spaces = core.spaces.borrow();
        spaces.iter().find(|s| s.id == id).cloned()
    });
    let table = exec.table.clone();
    if let Some(left) = left {
        core.forget(&left);
    }
    // Wake sockets are closed by `execve`.
    core.wakes.drop_table(&*core.world, table.id);
    table.wakes.borrow_mut().clear();
    table.bells.borrow_mut().clear();
    table.ears.borrow_mut().clear();
    table.changed();
    table.inherited.borrow_mut().clear();
    table.in_exec.set(false);
    let closed = table.exec();
    core.release(&table, closed);
    let program = core.policy.programs.get(exec.program);
    table.view.begin(program.is_some_and(|p| !p.files.is_empty()));
    add(&core.counters.processes, 1);
    let name = short_name(&exec.path);
    let mut space = Space::new(core.number(), cr3, name, Role::Trusted, table);
    space.program = Some(exec.program);
    let space = Rc::new(space);
    core.spaces.borrow_mut().push(space.clone());
    space
}
