//! Kernel calls. Every handler has the same shape: decode the arguments, look the capabilities up,
//! check the rights, act, return a status.
mod args;
mod control;
mod create;
mod log;
mod memory;

use crate::end::Reason;
use crate::kernel::Kernel;
use crate::machine::trace;
use crate::object::{Request, Space, Thread};
use abi::trace::{CALLS, Kind};
use abi::{Access, CallNumber, EndCause, Error, Message};
use scheduling::Id;

/// What becomes of the caller.
pub(crate) enum Outcome {
    /// Goes on with this status in `rax` and up to four results.
    Done(Result<(), Error>),
    /// Goes on with results.
    Results([u64; 4], usize),
    /// Its registers are written by whatever it waits for, or it has ended.
    Settled,
    /// Makes the call again after its page fault on this address has been resolved.
    Fault(u64),
}

impl From<Result<(), Error>> for Outcome {
    fn from(result: Result<(), Error>) -> Self {
        Outcome::Done(result)
    }
}

/// Length of SYSCALL.
const SYSCALL_LENGTH: u64 = 2;

/// Carries out the call that a thread made.
#[inline(always)]
pub fn dispatch(k: &mut Kernel, cpu: usize, id: Id<Thread>) {
    let Ok(thread) = k.threads.get_mut(id) else { return };
    let space = thread.space;
    let Some(frame) = thread.frame() else { return };
    let number = frame.rax;
    trace::record(cpu, Kind::Enter, id.index(), CALLS + number, 0);
    let outcome = match CallNumber::from_raw(number) {
        None => Outcome::Done(Err(Error::BadCall)),
        Some(CallNumber::Null) => {
            frame.rax = 0;
            return;
        }
        Some(CallNumber::Call) => {
            let (selector, words) = (frame.args[0], frame.message());
            call(k, (cpu, id, space), selector, &words)
        }
        Some(CallNumber::ReplyWait) => {
            let (status, words, deadline) = (frame.args[0], frame.message(), frame.args[9]);
            reply_wait(k, (cpu, id), status, &words, deadline)
        }
        Some(CallNumber::Wait) => {
            let deadline = frame.args[9];
            let waits = k.wait(id, deadline);
            k.after_wait(cpu, None, &waits);
            settle(waits.map(drop))
        }
        Some(number) => {
            let args = frame.args;
            other(k, cpu, id, number, &args)
        }
    };
    finish(k, id, outcome);
}

fn settle(result: Result<(), Error>) -> Outcome {
    match result {
        Ok(()) => Outcome::Settled,
        error => Outcome::Done(error),
    }
}

#[inline]
fn finish(k: &mut Kernel, id: Id<Thread>, outcome: Outcome) {
    if matches!(outcome, Outcome::Settled) {
        return;
    }
    let Ok(thread) = k.threads.get_mut(id) else { return };
    let Some(frame) = thread.frame() else { return };
    match outcome {
        Outcome::Settled => {}
        Outcome::Done(result) => frame.rax = result.map_or_else(|e| e as u64, |()| 0),
        Outcome::Results(words, count) => {
            frame.rax = 0;
            for (register, word) in frame.args.iter_mut().zip(words).take(count) {
                *register = word;
            }
        }
        Outcome::Fault(address) => {
            frame.rip -= SYSCALL_LENGTH;
            let ip = frame.rip;
            k.page_fault(id, address, Access::Read, ip);
        }
    }
}

#[inline(always)]
fn call(
    k: &mut Kernel,
    (cpu, id, space): (usize, Id<Thread>, Id<Space>),
    selector: u64,
    words: &Message,
) -> Outcome {
    let portal = match args::portal_to_call(k, space, selector) {
        Ok(portal) => portal,
        Err(error) => return Outcome::Done(Err(error)),
    };
    if k.call_waiting(cpu, id, &portal, words) {
        return Outcome::Settled;
    }
    settle((|| {
        if k.threads.get(portal.handler)?.cpu != cpu {
            return Err(Error::WrongCpu);
        }
        if k.would_deadlock(id, portal.handler) {
            return Err(Error::Cycle);
        }
        k.send(id, portal.handler, Request::Call(portal.badge));
        Ok(())
    })())
}

#[inline(always)]
fn reply_wait(
    k: &mut Kernel,
    (cpu, id): (usize, Id<Thread>),
    status: u64,
    words: &Message,
    deadline: u64,
) -> Outcome {
    let caller = match k.reply(id, status, words) {
        Ok(caller) => caller,
        Err(error) => return Outcome::Done(Err(error)),
    };
    let waits = k.wait(id, deadline);
    k.after_wait(cpu, caller, &waits);
    settle(waits.map(drop))
}

#[inline(never)]
fn other(k: &mut Kernel, cpu: usize, id: Id<Thread>, number: CallNumber, a: &[u64; 10]) -> Outcome {
    use CallNumber as N;
    let Ok(space) = k.threads.get(id).map(|t| t.space) else { return Outcome::Settled };
    match number {
        N::Null | N::Call | N::ReplyWait | N::Wait => Outcome::Done(Ok(())),
        N::Log => log::log(k, space, a),
        N::Yield => {
            k.rotate(cpu);
            Outcome::Done(Ok(()))
        }
        N::Exit => {
            k.end_thread(id, Reason::of(EndCause::Exit { code: a[0] }));
            Outcome::Settled
        }
        N::Signal => control::signal(k, space, a).into(),
        N::CapCopy => control::cap_copy(k, space, a).into(),
        N::CapDrop => control::cap_drop(k, space, a).into(),
        N::CreateSpace => create::space(k, space, a).into(),
        N::CreateThread => create::thread(k, space, a).into(),
        N::CreatePortal => create::portal(k, space, a).into(),
        N::CreateNotification => create::notification(k, space, a).into(),
        N::BindNotification => control::bind_notification(k, space, a).into(),
        N::CreateSc => create::sc(k, space, a).into(),
        N::CreateVcpu => create::vcpu(k, space, a).into(),
        N::VcpuPortal => control::vcpu_portal(k, space, a).into(),
        N::VcpuRecall => control::vcpu_recall(k, space, a).into(),
        N::RegionBind => memory::region_bind(k, space, a).into(),
        N::RegionUnbind => memory::region_unbind(k, space, a).into(),
        N::Map => memory::map(k, space, a).into(),
        N::Unmap => memory::unmap(k, space, a).into(),
        N::MemDerive => memory::derive(k, space, a).into(),
        N::MemInfo => memory::info(k, space, a),
        N::IrqBind => control::irq_bind(k, space, a),
        N::SystemCount => control::system_count(k, space, a),
        N::Destroy => control::destroy(k, id, space, a),
        N::Shutdown => control::shutdown(k, space, a).into(),
        N::FaultPortal => control::fault_portal(k, space, a).into(),
        N::SpaceQuota => control::space_quota(k, space, a),
        N::RegionList => memory::region_list(k, space, a),
        N::RegionWindow => memory::region_window(k, space, a).into(),
        N::RegionSplit => memory::region_split(k, space, a).into(),
        N::RegionMove => memory::region_move(k, space, a).into(),
        N::RegionRights => memory::region_rights(k, space, a).into(),
        N::FaultRetry => {
            k.retry_faults(id);
            Outcome::Done(Ok(()))
        }
        N::PagesUsed => memory::pages_used(k, space, a),
        N::RegionManager => memory::region_manager(k, space, a).into(),
        N::FaultLimit => memory::fault_limit(k, space, a).into(),
        N::RegionsPass => memory::regions_pass(k, space, a),
        N::TraceMask => control::trace_mask(k, space, a).into(),
    }
}
