//! Whether a process is still the program that the policy names: asked before something remote is
//! granted to it, and, about the page it calls from, at every call in service.
//!
//! Who fails loses what it has for good: its delegate ends, with all remote sockets, and nothing is
//! granted any more until it becomes another program.
use crate::code::{self, Flaw};
use crate::cx::Cx;
use crate::world::Kind;
use linux_abi::{Errno, name, nr};

/// The errno of a refusal: `EACCES` where a place is chosen, `EPERM` elsewhere, as for rules about
/// addresses.
const fn refusal(number: u64) -> Errno {
    match number {
        nr::connect | nr::bind | nr::listen => Errno::EACCES,
        _ => Errno::EPERM,
    }
}

fn lose(cx: &Cx, flaw: &Flaw) {
    cx.core.world.log(format_args!(
        "{}[{}]: refused at {}: {flaw}; the process has no network any more",
        cx.space.name.borrow(),
        cx.space.id,
        name(cx.number),
    ));
    cx.core.bar(&cx.space);
}

/// Before something remote is granted: all code is verified.
///
/// # Errors
/// `EACCES` or `EPERM`.
pub fn vouch(cx: &Cx) -> Result<(), Errno> {
    // What the processor remembers of older tables must not count.
    cx.core.flush.set(true);
    if !cx.space.barred.get()
        && let Err(flaw) = code::check(&cx.core, &cx.space, cx.saved.rip)
    {
        lose(cx, &flaw);
    }
    if cx.space.barred.get() {
        cx.note(Kind::Refused);
        return Err(refusal(cx.number));
    }
    Ok(())
}

/// At every call in service: the page that it comes from is verified.
pub fn look(cx: &Cx) {
    if !cx.space.barred.get()
        && let Err(flaw) = code::check_at(&cx.core, &cx.space, cx.saved.rip)
    {
        lose(cx, &flaw);
    }
}
