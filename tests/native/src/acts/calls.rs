//! Calls with arguments that are wrong: every argument of every call that the kernel follows, by the table
//! of the calls' arguments (`abi::Argument`). The other arguments are right, so that only the one that
//! is tried can be what is refused (but for calls of vCPUs, which have none here).
use super::court::{Court, State, note, state};
use crate::Outcome;
use crate::env::{NONE, PAGE, RAM, READ_WRITE, SPACE, SYSTEM, THREAD, equal, ok, selector, thread};
use abi::{
    Argument, BootInfo, CallNumber, Error, NO_DEADLINE, RootSelector, SELECTOR_LIMIT, Selector,
    SpaceKind, USER_END,
};
use alloc::format;
use alloc::string::String;
use rt::sys::{self, Bind, arbitrary};

const IRQ: Selector = Selector(RootSelector::Irq as u32);

pub fn numbers() -> Outcome {
    let before = state()?;
    let last = CallNumber::ALL.len() as u64;
    for number in [last, last + 1, 255, 256, 1 << 32, 0x100_0000_0000, 1 << 63, u64::MAX] {
        equal(CallNumber::from_raw(number), None, "a number that there is not")?;
        equal(arbitrary(number, &[]).0, Error::BadCall as u64, "status")?;
    }
    equal(state()?, before, "objects, bytes and quota")?;
    note("call", "numbers that there are not", "refused: unknown call number");
    Ok(())
}

pub fn pointers() -> Outcome {
    let text = "half of it is mapped";
    let pointers = [
        ("the kernel's code", 0xffff_ffff_8010_1000),
        ("the kernel's half", 0xffff_8000_0000_0000),
        ("not canonical", USER_END),
        ("not canonical, high", 1 << 63),
        ("across the end of user memory", USER_END - 8),
        ("wrapping around", u64::MAX - 3),
        ("0", 0),
        ("not mapped", 0x1234_5000),
        ("half mapped", BootInfo::ADDRESS + PAGE - 8),
        ("half mapped, from below", BootInfo::ADDRESS - 8),
    ];
    for (call, index) in arguments(|a| a == Argument::Pointer) {
        let mut list = [0; 10];
        list[index + 1] = text.len() as u64;
        for (what, pointer) in pointers {
            list[index] = pointer;
            let status = arbitrary(call as u64, &list).0;
            equal(status, Error::BadAddress as u64, &format!("{call:?}, {what}"))?;
        }
        list[index] = text.as_ptr().addr() as u64;
        for length in [4097, 1 << 32, u64::MAX] {
            list[index + 1] = length;
            let status = arbitrary(call as u64, &list).0;
            equal(status, Error::BadArgument as u64, &format!("{call:?}, {length} bytes"))?;
        }
        let how =
            "refused: kernel, not canonical, wrapping around, unmapped, half mapped, too long";
        note("pointer", &format!("{call:?}, argument {index}"), how);
    }
    Ok(())
}

/// Arguments that are right, of things made for this.
struct Sample {
    /// A space with the region `BASE`, which this program's manager thread has.
    space: Selector,
    thread: Selector,
    other_thread: Selector,
    portal: Selector,
    notification: Selector,
    free: Selector,
    gone: Selector,
    /// A guest's space, where the processor can have guests.
    guest: Option<Selector>,
}

const BASE: u64 = 0x4000_0000;
const LENGTH: u64 = 4 * PAGE;
const CODE: u64 = 0x40_0000;

impl Sample {
    fn new() -> Result<Self, String> {
        let [space, portal, notification, free, gone] = core::array::from_fn(|_| selector());
        ok(sys::create_space(space, SpaceKind::Native, 1 << 20), "space")?;
        ok(sys::create_space(gone, SpaceKind::Native, 64 << 10), "space")?;
        ok(sys::destroy(gone), "destroy")?;
        let (thread, other_thread) = (thread(0, idle, 0)?, thread(0, idle, 0)?);
        ok(sys::create_portal(portal, thread, 1), "portal")?;
        ok(sys::create_notification(notification), "notification")?;
        let guest = selector();
        let guest = sys::create_space(guest, SpaceKind::Guest, 1 << 20).ok().map(|()| guest);
        let rights = READ_WRITE;
        let bind =
            Bind { space, base: BASE, length: LENGTH, portal: NONE, tag: 0, rights, hint: 12 };
        ok(sys::region_bind(bind), "bind")?;
        Ok(Self { space, thread, other_thread, portal, notification, free, gone, guest })
    }

    /// A list of arguments that the call would carry out; `None` for calls without any, and for those that
    /// end what this program needs.
    fn of(&self, call: CallNumber) -> Option<[u64; 10]> {
        use CallNumber as N;
        let s = |selector: Selector| u64::from(selector.0);
        let [space, free, thread] = [self.space, self.free, self.thread].map(s);
        let [portal, bell, ram, system] = [self.portal, self.notification, RAM, SYSTEM].map(s);
        let rights = READ_WRITE.bits();
        let list: &[u64] = match call {
            N::Null | N::Log | N::ReplyWait | N::Wait | N::Yield | N::Exit => return None,
            N::FaultRetry => return None,
            N::CreateNotification => &[free],
            N::CreateSpace => &[free, SpaceKind::Native as u64, 64 << 10],
            N::Call => &[portal],
            N::Signal => &[bell, 1],
            N::CapCopy => &[portal, space, 70, 7],
            N::CapDrop => &[0, portal],
            N::CreateThread => &[free, space, 0, CODE, BASE, 0],
            N::CreatePortal => &[free, thread, 1],
            N::BindNotification => &[thread, bell],
            N::CreateSc => &[free, thread, 1, 1000],
            N::CreateVcpu => &[free, s(self.guest?), 0, ram, 0],
            N::VcpuPortal => &[thread, 0, portal],
            N::VcpuRecall | N::Destroy => &[thread],
            N::RegionBind => &[space, BASE + LENGTH, PAGE, portal, 0, rights, 12],
            N::RegionUnbind => &[space, BASE, LENGTH],
            N::Unmap | N::PagesUsed => &[space, BASE, PAGE],
            N::Map => &[space, BASE, ram, 0, PAGE, rights],
            N::MemDerive => &[free, ram, 0, PAGE, rights],
            N::MemInfo => &[ram],
            N::IrqBind => &[s(IRQ), bell, 1, 0],
            N::SystemCount => &[system, 0],
            N::Shutdown => &[system, 0],
            N::FaultPortal => &[thread, portal],
            N::SpaceQuota => &[space],
            N::RegionList => &[space, BASE],
            N::TraceMask => &[system, 0, 0],
            N::RegionWindow => &[space, BASE, LENGTH, 0],
            N::RegionSplit => &[space, BASE, LENGTH, BASE + PAGE, 0],
            N::RegionMove => &[space, BASE, LENGTH, BASE + (1 << 20)],
            N::RegionRights => &[space, BASE, LENGTH, rights],
            N::RegionManager => &[space, BASE, LENGTH, portal, 0],
            N::FaultLimit => &[space, 0],
            N::RegionsPass => &[space, portal, portal],
        };
        let mut all = [0; 10];
        all[..list.len()].copy_from_slice(list);
        Some(all)
    }

    /// The same for calls that must have one.
    fn needed(&self, call: CallNumber) -> Result<Option<[u64; 10]>, String> {
        match self.of(call) {
            None if call != CallNumber::CreateVcpu || self.guest.is_some() => {
                Err(format!("{call:?} needs a list of right arguments"))
            }
            list => Ok(list),
        }
    }

    fn end(self) -> Outcome {
        let objects = [self.thread, self.other_thread, self.space];
        for object in objects.into_iter().chain(self.guest) {
            ok(sys::destroy(object), "destroy")?;
        }
        for slot in [self.portal, self.notification, self.space, self.gone] {
            ok(sys::cap_drop(NONE, slot), "drop")?;
        }
        Ok(())
    }
}

extern "C" fn idle(_: u64) -> ! {
    loop {
        let _ = sys::wait(NO_DEADLINE);
    }
}

/// The arguments of that kind: call and index.
fn arguments(wanted: impl Fn(Argument) -> bool) -> impl Iterator<Item = (CallNumber, usize)> {
    CallNumber::ALL
        .iter()
        .flat_map(|call| call.arguments().iter().enumerate().map(|a| (*call, a)))
        .filter(move |(_, (_, argument))| wanted(**argument))
        .map(|(call, (index, _))| (call, index))
}

/// A call that must be refused for one of these reasons, and change nothing.
fn refused(call: CallNumber, list: &[u64; 10], reasons: &[Error], before: &State) -> Outcome {
    let status = arbitrary(call as u64, list).0;
    let fits = reasons.iter().any(|reason| *reason as u64 == status);
    if !fits {
        return Err(format!("{call:?} with {list:x?}: status {status}"));
    }
    equal(&state()?, before, &format!("{call:?} with {list:x?}: objects, bytes and quota"))
}

pub fn addresses() -> Outcome {
    let sample = Sample::new()?;
    let court = Court::new()?;
    let before = state()?;
    let bad = [
        0xffff_ffff_8010_1000,
        0xffff_8000_0000_0000,
        USER_END + PAGE,
        1 << 63,
        u64::MAX,
        u64::MAX - PAGE + 1,
    ];
    let reasons = [Error::BadAddress, Error::NoRegion, Error::Unaligned, Error::WrapsAround];
    // Where a region is divided must lie inside it.
    let outside = [Error::BadArgument, Error::Unaligned];
    for (call, index) in arguments(|a| a == Argument::Address) {
        let Some(right) = sample.needed(call)? else { continue };
        for address in bad {
            let mut list = right;
            list[index] = address;
            let divides = (call, index) == (CallNumber::RegionSplit, 3);
            refused(call, &list, if divides { &outside } else { &reasons }, &before)?;
        }
        // Off by one byte, except where any byte will do.
        let any = matches!(call, CallNumber::CreateThread | CallNumber::RegionList);
        if !any {
            let mut list = right;
            list[index] |= 1;
            refused(call, &list, &[Error::Unaligned], &before)?;
        }
        let how = if any {
            "refused: kernel, not canonical, wrapping around"
        } else {
            "refused: kernel, not canonical, wrapping around, unaligned"
        };
        note("address", &format!("{call:?}, argument {index}"), how);
    }
    court.nothing_else()?;
    court.close()?;
    sample.end()
}

pub fn capabilities() -> Outcome {
    let sample = Sample::new()?;
    let court = Court::new()?;
    let before = state()?;
    let empty = u64::from(sample.free.0);
    let forged = [empty, u64::from(SELECTOR_LIMIT), u64::from(u32::MAX), 1 << 32 | 3, u64::MAX];
    let bad = [Error::BadCapability];
    let bad_or_gone = [Error::BadCapability, Error::Gone];
    let follows = |a| matches!(a, Argument::Capability | Argument::Optional);
    for (call, index) in arguments(follows) {
        let Some(right) = sample.needed(call)? else { continue };
        let mut list = right;
        for selector in forged {
            list[index] = selector;
            refused(call, &list, &bad, &before)?;
        }
        // Of another kind: nothing is a space, a thread and a portal at once. A slot is not of a kind.
        let another = if right[index] == u64::from(RAM.0) { THREAD } else { RAM };
        let any = matches!((call, index), (CallNumber::CapCopy, 0) | (CallNumber::CapDrop, 1));
        if !any {
            list[index] = u64::from(another.0);
            refused(call, &list, &bad, &before)?;
            list[index] = u64::from(sample.gone.0);
            refused(call, &list, &bad_or_gone, &before)?;
        }
        let how = if any {
            "refused: empty, out of range, forged"
        } else {
            "refused: empty, out of range, forged, of another kind, revoked"
        };
        note("capability", &format!("{call:?}, argument {index}"), how);
    }
    for (call, index) in arguments(|a| a == Argument::Slot) {
        let Some(right) = sample.needed(call)? else { continue };
        for (slot, reason) in [
            (0, Error::BadCapability),
            (u64::from(SELECTOR_LIMIT), Error::BadCapability),
            (u64::MAX, Error::BadCapability),
            (u64::from(SPACE.0), Error::Occupied),
        ] {
            if (call, reason) == (CallNumber::CapCopy, Error::Occupied) {
                continue;
            }
            let mut list = right;
            list[index] = slot;
            refused(call, &list, &[reason], &before)?;
        }
        let how = match call {
            CallNumber::CapCopy => "refused: out of range",
            _ => "refused: out of range, in use",
        };
        note("slot", &format!("{call:?}, argument {index}"), how);
    }
    court.nothing_else()?;
    court.close()?;
    sample.end()
}
