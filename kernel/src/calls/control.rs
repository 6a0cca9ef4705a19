//! Calls about capabilities, notifications, interrupts, the system, and ends.
use super::{Outcome, args};
use crate::end::Reason;
use crate::kernel::Kernel;
use crate::machine::apic::{self, FIRST_DEVICE_VECTOR};
use crate::machine::{self, trace};
use crate::object::{Capability, Irq, Space, Thread};
use abi::vcpu::EXIT_CLASSES;
use abi::{EndCause, Error, ObjRights, SystemCounter};
use scheduling::Id;

/// `Signal(notification, bits)`.
pub fn signal(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let notification = args::notification(k, own, a[0], ObjRights::USE)?;
    k.signal(notification, a[1])
}

/// `CapCopy(source, destination space, destination selector, mask)`.
pub fn cap_copy(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let source = args::capability(k, own, a[0])?;
    let to = args::space_or_own(k, own, a[1], ObjRights::CONTROL)?;
    let may = |rights: ObjRights| captable::copied(rights, a[3], to == own);
    let copy = match source {
        Capability::Space(id, r) => Capability::Space(id, may(r)?),
        Capability::Thread(id, r) => Capability::Thread(id, may(r)?),
        Capability::Portal(id, r) => Capability::Portal(id, may(r)?),
        Capability::Notification(id, r) => Capability::Notification(id, may(r)?),
        Capability::Sc(id, r) => Capability::Sc(id, may(r)?),
        Capability::Irq(r) => Capability::Irq(may(r)?),
        Capability::System(r) => Capability::System(may(r)?),
        Capability::Memory(memory) => Capability::Memory(memory.masked(a[3])),
    };
    let selector = args::selector(a[2])?;
    k.prepare_slot(to, selector)?;
    match copy {
        Capability::Portal(id, _) => k.portals.get_mut(id)?.references += 1,
        Capability::Notification(id, _) => k.notifications.get_mut(id)?.references += 1,
        _ => {}
    }
    k.install(to, selector, copy)
}

/// `CapDrop(space, selector)`.
pub fn cap_drop(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let space = args::space_or_own(k, own, a[0], ObjRights::CONTROL)?;
    let capability = k.spaces.get_mut(space)?.table.remove(args::selector(a[1])?)?;
    k.release_capability(&capability);
    Ok(())
}

/// `BindNotification(thread, notification)`.
pub fn bind_notification(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let thread = args::thread(k, own, a[0], ObjRights::CONTROL)?;
    let notification = args::notification(k, own, a[1], ObjRights::CONTROL)?;
    let target = k.threads.get_mut(thread)?;
    if target.frame().is_none() {
        return Err(Error::BadArgument);
    }
    if target.notification.is_some() || k.notifications.get(notification)?.bound.is_some() {
        return Err(Error::BadState);
    }
    target.notification = Some(notification);
    k.notifications.get_mut(notification)?.bound = Some(thread);
    // Bits that are set already may end a wait.
    k.signal(notification, 0)
}

/// `VcpuPortal(vcpu, class, portal)`.
pub fn vcpu_portal(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let vcpu = args::vcpu(k, own, a[0], ObjRights::CONTROL)?;
    let class = usize::try_from(a[1]).ok().filter(|c| *c < EXIT_CLASSES);
    let class = class.ok_or(Error::BadArgument)?;
    let portal = args::portal(k, own, a[2], ObjRights::CONTROL)?;
    let handler = k.portals.get(portal)?.handler;
    if k.threads.get(handler)?.cpu != k.threads.get(vcpu)?.cpu {
        return Err(Error::WrongCpu);
    }
    let old = k.threads.get_mut(vcpu)?.vcpu().and_then(|p| p.portals[class].replace(portal));
    k.portals.get_mut(portal)?.references += 1;
    if let Some(old) = old {
        k.release_portal(old);
    }
    Ok(())
}

/// `VcpuRecall(vcpu)`.
pub fn vcpu_recall(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let vcpu = args::vcpu(k, own, a[0], ObjRights::USE)?;
    k.recall(vcpu);
    Ok(())
}

/// `IrqBind(irq control, notification, bits, cpu)`.
pub fn irq_bind(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Outcome {
    let result = (|| {
        args::irq(k, own, a[0])?;
        let notification = args::notification(k, own, a[1], ObjRights::CONTROL)?;
        let cpu = args::cpu(k, a[3])?;
        let irqs = &mut k.cpus[cpu].irqs;
        let index = irqs.iter().position(Option::is_none).ok_or(Error::Quota)?;
        let vector = FIRST_DEVICE_VECTOR + index as u8;
        let message = apic::message(cpu, vector).ok_or(Error::BadArgument)?;
        irqs[index] = Some(Irq { notification, bits: a[2] });
        Ok(message)
    })();
    match result {
        Ok((address, data)) => Outcome::Results([address, data, 0, 0], 2),
        Err(error) => Outcome::Done(Err(error)),
    }
}

/// `SystemCount(system control, counter)`.
pub fn system_count(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Outcome {
    if let Err(error) = args::system(k, own, a[0]) {
        return Outcome::Done(Err(error));
    }
    const COUNTERS: [SystemCounter; 9] = [
        SystemCounter::Objects,
        SystemCounter::KernelBytes,
        SystemCounter::Entries,
        SystemCounter::ThreadSwitches,
        SystemCounter::SpaceSwitches,
        SystemCounter::VmExits,
        SystemCounter::Faults,
        SystemCounter::FaultsRefused,
        SystemCounter::FaultsLate,
    ];
    let Some(counter) = COUNTERS.into_iter().find(|c| *c as u64 == a[1]) else {
        return Outcome::Done(Err(Error::BadArgument));
    };
    let value = match counter {
        SystemCounter::Objects => {
            let objects = [
                k.spaces.live(),
                k.threads.live(),
                k.portals.live(),
                k.notifications.live(),
                k.scs.live(),
            ];
            objects.iter().sum::<usize>() as u64
        }
        SystemCounter::KernelBytes => k.memory.used(),
        SystemCounter::Entries => {
            k.counters.entries + k.counters.short_switches + machine::cpu::null_calls()
        }
        SystemCounter::ThreadSwitches => k.counters.thread_switches + k.counters.short_switches,
        SystemCounter::SpaceSwitches => k.counters.space_switches,
        SystemCounter::VmExits => k.counters.vm_exits,
        SystemCounter::Faults => k.counters.faults,
        SystemCounter::FaultsRefused => k.counters.faults_refused,
        SystemCounter::FaultsLate => k.counters.faults_late,
    };
    Outcome::Results([value, 0, 0, 0], 1)
}

/// `Destroy(thread, vCPU or space)`.
pub fn destroy(k: &mut Kernel, id: Id<Thread>, own: Id<Space>, a: &[u64; 10]) -> Outcome {
    let result = (|| match args::capability(k, own, a[0])? {
        Capability::Space(..) => {
            let space = args::space(k, own, a[0], ObjRights::CONTROL)?;
            k.end_space(space);
            Ok(())
        }
        Capability::Thread(..) => {
            let thread = args::thread(k, own, a[0], ObjRights::CONTROL)?;
            k.end_thread(thread, Reason::of(EndCause::Destroyed));
            Ok(())
        }
        _ => Err(Error::BadCapability),
    })();
    // The caller may have destroyed itself.
    if k.threads.get(id).is_err() { Outcome::Settled } else { Outcome::Done(result) }
}

/// `Shutdown(system control, code)`.
pub fn shutdown(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    args::system(k, own, a[0])?;
    machine::shut_down(a[1] as u32)
}

/// `FaultPortal(thread, portal)`.
pub fn fault_portal(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let thread = args::thread(k, own, a[0], ObjRights::CONTROL)?;
    let portal = args::portal(k, own, a[1], ObjRights::CONTROL)?;
    let old = k.threads.get_mut(thread)?.fault_portal.replace(portal);
    k.portals.get_mut(portal)?.references += 1;
    if let Some(old) = old {
        k.release_portal(old);
    }
    Ok(())
}

/// `SpaceQuota(space)`.
pub fn space_quota(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Outcome {
    let left = args::space_or_own(k, own, a[0], ObjRights::CONTROL)
        .and_then(|space| k.spaces.get(space).map(|s| s.quota.left()));
    match left {
        Ok(left) => Outcome::Results([left, 0, 0, 0], 1),
        Err(error) => Outcome::Done(Err(error)),
    }
}

/// `TraceMask(system control, cpu, mask)`.
pub fn trace_mask(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    args::system(k, own, a[0])?;
    let cpu = args::cpu(k, a[1])?;
    trace::set_mask(cpu, a[2]);
    k.cpus[cpu].traced = a[2] != 0;
    Ok(())
}
