//! Kernel calls as functions. The meaning of each is told at `abi::CallNumber`.
use abi::{
    CallNumber, Error, Event, MemRights, Message, ObjRights, Selector, SpaceKind, SystemCounter,
    ThreadArgs,
};
use core::arch::asm;

mod region;
pub use region::*;

/// Registers of a call: ten arguments in, ten results out.
type Registers = [u64; 10];

/// A nonsense number or nonsense arguments may end this program or unmap its memory, never more.
#[inline(always)]
fn raw(number: u64, mut r: Registers) -> (u64, Registers) {
    let status;
    // SAFETY: SYSCALL enters the kernel, which changes only the registers listed here (see
    // `abi::call`), and touches this program's memory only where the call's arguments say so.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => status,
            inlateout("rdi") r[0],
            inlateout("rsi") r[1],
            inlateout("rdx") r[2],
            inlateout("r10") r[3],
            inlateout("r8") r[4],
            inlateout("r9") r[5],
            inlateout("r12") r[6],
            inlateout("r13") r[7],
            inlateout("r14") r[8],
            inlateout("r15") r[9],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    (status, r)
}

#[inline(always)]
fn registers(arguments: &[u64]) -> Registers {
    let mut r = [0; 10];
    for (to, from) in r.iter_mut().zip(arguments) {
        *to = *from;
    }
    r
}

#[inline(always)]
fn plain(number: CallNumber, arguments: &[u64]) -> Result<Registers, Error> {
    let (status, r) = raw(number as u64, registers(arguments));
    Error::check(status)?;
    Ok(r)
}

fn sel(s: Selector) -> u64 {
    u64::from(s.0)
}

/// Any call with any arguments, for tests of the kernel's own checks: returns the status and the
/// result registers.
#[must_use]
pub fn arbitrary(number: u64, arguments: &[u64]) -> (u64, [u64; 10]) {
    raw(number, registers(arguments))
}

/// The cheapest call.
///
/// # Errors
/// None that is expected.
#[inline]
pub fn null() -> Result<(), Error> {
    let status;
    // SAFETY: as in `raw`; this call changes no other register.
    unsafe {
        asm!("syscall", inlateout("rax") CallNumber::Null as u64 => status,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    Error::check(status)
}

/// Writes bytes to the kernel's log.
///
/// # Errors
/// `BadArgument` for more than 4096 bytes.
pub fn log(text: &[u8]) -> Result<(), Error> {
    plain(CallNumber::Log, &[text.as_ptr() as u64, text.len() as u64]).map(drop)
}

/// Calls a portal and waits for the reply.
///
/// # Errors
/// The kernel's refusal, or the status that the server replied with.
#[inline]
pub fn call(portal: Selector, message: Message) -> Result<Message, Error> {
    let (status, r) = raw(CallNumber::Call as u64, with_message(sel(portal), message, 0));
    Error::check(status)?;
    Ok(words(&r))
}

#[inline(always)]
fn with_message(first: u64, [a, b, c, d, e, f, g, h]: Message, last: u64) -> Registers {
    [first, a, b, c, d, e, f, g, h, last]
}

#[inline(always)]
fn words(r: &Registers) -> Message {
    [r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8]]
}

/// Waits for a call, a fault, an exit, a notification, or `deadline` (TSC ticks).
///
/// # Errors
/// `BadState` when the thread serves a call that it has not replied to.
#[inline]
pub fn wait(deadline: u64) -> Result<(Event, Message), Error> {
    let (status, r) = raw(CallNumber::Wait as u64, [0, 0, 0, 0, 0, 0, 0, 0, 0, deadline]);
    Error::check(status)?;
    Ok((Event::decode(r[0]).ok_or(Error::BadState)?, words(&r)))
}

/// Replies, then waits. `status` is zero or what the caller gets as its error.
///
/// # Errors
/// `BadState` when there is nothing to reply to.
#[inline]
pub fn reply_wait(status: u64, message: Message, deadline: u64) -> Result<(Event, Message), Error> {
    let registers = with_message(status, message, deadline);
    let (status, r) = raw(CallNumber::ReplyWait as u64, registers);
    Error::check(status)?;
    Ok((Event::decode(r[0]).ok_or(Error::BadState)?, words(&r)))
}

/// Gives up the rest of the quantum.
pub fn yield_now() {
    let _ = plain(CallNumber::Yield, &[]);
}

/// Ends the thread.
pub fn exit(code: u64) -> ! {
    loop {
        let _ = plain(CallNumber::Exit, &[code]);
    }
}

/// Sets bits of a notification.
///
/// # Errors
/// `BadCapability`, `NoRight`.
pub fn signal(notification: Selector, bits: u64) -> Result<(), Error> {
    plain(CallNumber::Signal, &[sel(notification), bits]).map(drop)
}

/// Copies a capability into another space (`to_space` zero: the own one).
///
/// # Errors
/// `BadCapability`, `NoRight`, `Occupied`, `Quota`.
pub fn cap_copy(from: Selector, to_space: Selector, to: Selector, mask: u64) -> Result<(), Error> {
    plain(CallNumber::CapCopy, &[sel(from), sel(to_space), sel(to), mask]).map(drop)
}

/// Empties a slot (`space` zero: the own one).
///
/// # Errors
/// `BadCapability`, `NoRight`.
pub fn cap_drop(space: Selector, slot: Selector) -> Result<(), Error> {
    plain(CallNumber::CapDrop, &[sel(space), sel(slot)]).map(drop)
}

/// Makes a space.
///
/// # Errors
/// `Occupied`, `Quota`, `Unsupported`.
pub fn create_space(to: Selector, kind: SpaceKind, quota: u64) -> Result<(), Error> {
    plain(CallNumber::CreateSpace, &[sel(to), kind as u64, quota]).map(drop)
}

/// Makes a thread, which does not run yet.
///
/// # Errors
/// `Occupied`, `Quota`, `BadArgument`, `BadAddress`.
pub fn create_thread(
    to: Selector,
    space: Selector,
    cpu: u32,
    args: ThreadArgs,
) -> Result<(), Error> {
    let cpu = u64::from(cpu);
    let list = [sel(to), sel(space), cpu, args.entry, args.stack, args.argument];
    plain(CallNumber::CreateThread, &list).map(drop)
}

/// Makes a portal of a thread.
///
/// # Errors
/// `Occupied`, `Quota`, `NoRight`.
pub fn create_portal(to: Selector, handler: Selector, badge: u64) -> Result<(), Error> {
    plain(CallNumber::CreatePortal, &[sel(to), sel(handler), badge]).map(drop)
}

/// Makes a portal of a manager's thread; regions that are bound to it get at most these rights.
///
/// # Errors
/// `Occupied`, `Quota`, `NoRight`.
pub fn create_manager_portal(
    to: Selector,
    handler: Selector,
    badge: u64,
    most: MemRights,
) -> Result<(), Error> {
    plain(CallNumber::CreatePortal, &[sel(to), sel(handler), badge, most.bits()]).map(drop)
}

/// Makes a notification.
///
/// # Errors
/// `Occupied`, `Quota`.
pub fn create_notification(to: Selector) -> Result<(), Error> {
    plain(CallNumber::CreateNotification, &[sel(to)]).map(drop)
}

/// Lets a thread's waits take a notification's bits.
///
/// # Errors
/// `BadCapability`, `NoRight`, `BadState`.
pub fn bind_notification(thread: Selector, notification: Selector) -> Result<(), Error> {
    plain(CallNumber::BindNotification, &[sel(thread), sel(notification)]).map(drop)
}

/// Gives a thread or vCPU time of its own.
///
/// # Errors
/// `Occupied`, `Quota`, `BadState`.
pub fn create_sc(
    to: Selector,
    thread: Selector,
    priority: u8,
    quantum_us: u64,
) -> Result<(), Error> {
    let list = [sel(to), sel(thread), u64::from(priority), quantum_us];
    plain(CallNumber::CreateSc, &list).map(drop)
}

/// Makes a vCPU whose state page is the page at `offset` of `memory`.
///
/// # Errors
/// `Occupied`, `Quota`, `Unsupported`, `BadArgument`.
pub fn create_vcpu(
    to: Selector,
    space: Selector,
    cpu: u32,
    memory: Selector,
    offset: u64,
) -> Result<(), Error> {
    let list = [sel(to), sel(space), u64::from(cpu), sel(memory), offset];
    plain(CallNumber::CreateVcpu, &list).map(drop)
}

/// Says who handles a class of exits.
///
/// # Errors
/// `BadCapability`, `BadArgument`, `WrongCpu`.
pub fn vcpu_portal(vcpu: Selector, class: u64, portal: Selector) -> Result<(), Error> {
    plain(CallNumber::VcpuPortal, &[sel(vcpu), class, sel(portal)]).map(drop)
}

/// Makes a vCPU leave its guest.
///
/// # Errors
/// `BadCapability`, `NoRight`.
pub fn vcpu_recall(vcpu: Selector) -> Result<(), Error> {
    plain(CallNumber::VcpuRecall, &[sel(vcpu)]).map(drop)
}

/// Maps memory ahead of faults.
///
/// # Errors
/// `NoRegion`, `NoRight`, `BadArgument`, `Quota`.
pub fn map(
    space: Selector,
    address: u64,
    memory: Selector,
    offset: u64,
    length: u64,
    rights: MemRights,
) -> Result<(), Error> {
    let list = [sel(space), address, sel(memory), offset, length, rights.bits()];
    plain(CallNumber::Map, &list).map(drop)
}

/// Removes mappings.
///
/// # Errors
/// `NoRegion`, `NoRight`.
pub fn unmap(space: Selector, address: u64, length: u64) -> Result<(), Error> {
    plain(CallNumber::Unmap, &[sel(space), address, length]).map(drop)
}

/// Derives a part of a memory capability.
///
/// # Errors
/// `Occupied`, `BadArgument`, `NoRight`.
pub fn mem_derive(
    to: Selector,
    memory: Selector,
    offset: u64,
    length: u64,
    rights: MemRights,
) -> Result<(), Error> {
    let list = [sel(to), sel(memory), offset, length, rights.bits()];
    plain(CallNumber::MemDerive, &list).map(drop)
}

/// Physical base, length and rights of a memory capability.
///
/// # Errors
/// `BadCapability`.
pub fn mem_info(memory: Selector) -> Result<(u64, u64, MemRights), Error> {
    let r = plain(CallNumber::MemInfo, &[sel(memory)])?;
    Ok((r[0], r[1], MemRights::from_bits_truncate(r[2])))
}

/// Binds an interrupt to bits of a notification: address and data of its message.
///
/// # Errors
/// `BadCapability`, `Quota`, `BadArgument`.
pub fn irq_bind(
    control: Selector,
    notification: Selector,
    bits: u64,
    cpu: u32,
) -> Result<(u64, u64), Error> {
    let list = [sel(control), sel(notification), bits, u64::from(cpu)];
    let r = plain(CallNumber::IrqBind, &list)?;
    Ok((r[0], r[1]))
}

/// Reads a counter.
///
/// # Errors
/// `BadCapability`, `BadArgument`.
pub fn system_count(control: Selector, counter: SystemCounter) -> Result<u64, Error> {
    plain(CallNumber::SystemCount, &[sel(control), counter as u64]).map(|r| r[0])
}

/// Ends a thread, vCPU or space.
///
/// # Errors
/// `BadCapability`, `NoRight`.
pub fn destroy(object: Selector) -> Result<(), Error> {
    plain(CallNumber::Destroy, &[sel(object)]).map(drop)
}

/// Ends the machine.
///
/// # Errors
/// `BadCapability`; otherwise it does not return.
pub fn shutdown(control: Selector, code: u64) -> Result<(), Error> {
    plain(CallNumber::Shutdown, &[sel(control), code]).map(drop)
}

/// Where a thread's unhandled faults, exceptions and end are reported.
///
/// # Errors
/// `BadCapability`, `NoRight`.
pub fn fault_portal(thread: Selector, portal: Selector) -> Result<(), Error> {
    plain(CallNumber::FaultPortal, &[sel(thread), sel(portal)]).map(drop)
}

/// Kernel memory left to a space (zero: the own one), in bytes.
///
/// # Errors
/// `BadCapability`.
pub fn space_quota(space: Selector) -> Result<u64, Error> {
    plain(CallNumber::SpaceQuota, &[sel(space)]).map(|r| r[0])
}

/// Sets a processor's trace mask.
///
/// # Errors
/// `BadCapability`, `BadArgument`.
pub fn trace_mask(control: Selector, cpu: u32, mask: u64) -> Result<(), Error> {
    plain(CallNumber::TraceMask, &[sel(control), u64::from(cpu), mask]).map(drop)
}

/// Rights that allow everything, as a mask for `cap_copy`.
pub const ALL_RIGHTS: u64 = ObjRights::all().bits() | MemRights::all().bits();
