//! `select` and `pselect6`: sets of descriptors as entries of a poll, and back.
use super::poll::{ENTRIES_MAX, Mask, time_in, time_out, wait_on};
use super::readiness::{is_out, recall};
use super::split::{Split, side};
use crate::cx::Cx;
use crate::gate::On;
use crate::space::{Alone, LocalCall, Outcome, Via};
use crate::world::{Kind, add};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_abi::{
    Errno, FdSet, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDBAND, POLLRDNORM,
    POLLWRBAND, POLLWRNORM, PollFd, SigsetArgument, TimeSpec, TimeVal, check, nr,
};
use wire::PollEntry;

/// What a set of `select` asks for, and what makes its bits.
const SETS: [(u16, u16); 3] = [
    (POLLIN | POLLRDNORM | POLLRDBAND, POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR),
    (POLLOUT | POLLWRNORM | POLLWRBAND, POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR),
    (POLLPRI, POLLPRI),
];

/// True when an entry is ready for all that a `select` asks about it: nothing can be added to the
/// sets that the program gets. Of a `poll`, `POLLHUP` and `POLLERR` can always come on top.
pub(super) fn is_complete(entry: &PollEntry) -> bool {
    let complete = |(ask, found)| match entry.events & ask {
        0 => true,
        asked => asked == ask && entry.revents & found != 0,
    };
    entry.revents & POLLNVAL == 0 && SETS.into_iter().all(complete)
}

/// The entries that three sets ask for.
fn entries_of(sets: &[Vec<u8>; 3], count: usize) -> Vec<PollFd> {
    let mut entries = Vec::new();
    for fd in 0..count {
        let asked = |(set, (ask, _)): (&Vec<u8>, (u16, u16))| {
            if FdSet::contains(set, fd) { ask } else { 0 }
        };
        let events = sets.iter().zip(SETS).map(asked).fold(0, |a, b| a | b);
        if events != 0 {
            entries.push(PollFd { fd: fd as i32, events, revents: 0 });
        }
    }
    entries
}

/// The sets that come of polled entries, and how many bits are in them.
///
/// # Errors
/// `EBADF` when a descriptor is not open.
fn sets_of(
    sets: &[Vec<u8>; 3],
    entries: &[PollFd],
    count: usize,
) -> Result<([Vec<u8>; 3], i64), Errno> {
    let mut out = [const { Vec::new() }; 3];
    let mut bits = 0;
    for ((out, asked), (_, found)) in out.iter_mut().zip(sets).zip(SETS) {
        if asked.is_empty() {
            continue;
        }
        *out = alloc::vec![0; FdSet::bytes(count)];
        for entry in entries {
            let fd = entry.fd as usize;
            if entry.revents & POLLNVAL != 0 {
                return Err(Errno::EBADF);
            }
            if entry.revents & found != 0 && FdSet::contains(asked, fd) {
                FdSet::insert(out, fd);
                bits += 1;
            }
        }
    }
    Ok((out, bits))
}

/// Most descriptors of a `select` that may end by itself: what it leaves behind shall be small.
const FEW: usize = 1024;

/// What a `select` or `pselect6` asks.
pub struct Question {
    sets: [Vec<u8>; 3],
    count: usize,
    timeout: Option<u64>,
    mask: Mask,
    /// When the program asked.
    start: u64,
}

impl Question {
    async fn of(cx: &Cx) -> Result<Self, Errno> {
        let [.., time, sigset] = cx.arguments;
        let count = usize::try_from(cx.int(0)).map_err(|_| Errno::EINVAL)?;
        let count = count.min(ENTRIES_MAX as usize);
        let mut sets = [const { Vec::new() }; 3];
        for (set, at) in sets.iter_mut().zip(Self::places(cx)) {
            if at != 0 {
                *set = cx.bytes(at, FdSet::bytes(count)).await?;
            }
        }
        let (timeout, mask) = if cx.number == nr::select {
            (timeval_in(cx, time).await?, Mask::default())
        } else {
            let mask = match sigset {
                0 => SigsetArgument::default(),
                at => SigsetArgument::decode(&cx.array(at).await?),
            };
            (time_in(cx, time).await?, Mask { address: mask.address, size: mask.size, ear: None })
        };
        Ok(Self { sets, count, timeout, mask, start: cx.core.world.now() })
    }

    /// The program's sets, as they were.
    pub const fn sets(&self) -> &[Vec<u8>; 3] {
        &self.sets
    }

    /// Where the program's sets are.
    fn places(cx: &Cx) -> [u64; 3] {
        let [_, read, write, except, ..] = cx.arguments;
        [read, write, except]
    }

    /// Writes sets to where the program has them.
    async fn write(cx: &Cx, sets: &[Vec<u8>; 3]) -> Result<(), Errno> {
        for (set, at) in sets.iter().zip(Self::places(cx)) {
            if at != 0 {
                cx.write(at, set).await?;
            }
        }
        Ok(())
    }

    /// Tells the program what is left of its time.
    async fn tell_left(&self, cx: &Cx) -> Result<(), Errno> {
        let at = cx.arguments[4];
        if cx.number == nr::pselect6 {
            return time_out(cx, at, self.timeout, self.start).await;
        }
        let (Some(timeout), true) = (self.timeout, at != 0) else { return Ok(()) };
        let left = timeout.saturating_sub(cx.core.world.now().saturating_sub(self.start));
        let TimeSpec { seconds, nanoseconds } = TimeSpec::from_nanoseconds(left);
        cx.write(at, &TimeVal { seconds, microseconds: nanoseconds / 1000 }.encode()).await
    }

    /// Answers it. `looked`: the local side has been looked at, and nothing is ready.
    async fn answer(&self, cx: &Cx, looked: bool) -> Result<Outcome, Errno> {
        let mut entries = entries_of(&self.sets, self.count);
        let result = wait_on(cx, &mut entries, self.timeout, self.mask, looked).await;
        if matches!(result, Ok(None)) {
            return Ok(Outcome::Reflect);
        }
        self.tell_left(cx).await?;
        result?;
        let (out, bits) = sets_of(&self.sets, &entries, self.count)?;
        Self::write(cx, &out).await?;
        Ok(Outcome::Return(bits))
    }
}

/// `select` and `pselect6`.
pub async fn select(cx: &Cx) -> Result<Outcome, Errno> {
    let question = Question::of(cx).await?;
    let Some(Apart { slot, call, local, remote }) = apart(cx, &question).await? else {
        return question.answer(cx, false).await;
    };
    let (fs, saved) = (cx.fs, cx.saved);
    cx.space.leave_alone(Alone { fs, saved, slot, question, call, local, remote });
    Ok(Outcome::Alone(call))
}

/// A `select` of which the program's kernel does the local half by itself.
struct Apart {
    slot: u64,
    call: LocalCall,
    local: [Vec<u8>; 3],
    remote: Vec<PollEntry>,
}

/// Where a remote half is out already that has found nothing, the local side alone decides what is ready
/// now: then the program's kernel can do the `select` itself, on the program's own sets without what
/// is remote, and the program go on with what it finds. `None`: it is not so simple.
async fn apart(cx: &Cx, question: &Question) -> Result<Option<Apart>, Errno> {
    let mut entries = entries_of(&question.sets, question.count);
    let mut split = Split::new(&mut entries, |fd| side(cx, fd));
    let one_side_each = split.local.len() + split.remote.len() == entries.len()
        && entries.iter().all(|e| e.revents == 0);
    if question.timeout == Some(0)
        || question.count > FEW
        || !one_side_each
        || split.local.is_empty()
        || !is_out(cx, &split.remote)
        || recall(cx, &mut split.remote)
    {
        return Ok(None);
    }
    let Some(gate) = cx.space.gate.get() else { return Ok(None) };
    let [count, read, write, except, time, sigset] = cx.arguments;
    let on = On { rip: cx.saved.rip.wrapping_add(crate::cpu::SYSCALL_LENGTH), r8: time };
    let tables = cx.space.tables(&cx.core);
    let Some(slot) = cx.space.slots.find(&tables, gate, on) else { return Ok(None) };
    let arguments = [count, read, write, except, gate.zero(), sigset];
    let via = Via::Slot(slot);
    if cx.passes_at(slot, cx.number, arguments).is_err() {
        return Ok(None);
    }
    cx.note(Kind::Both);
    let mut local = question.sets.clone();
    let remote = split.remote_places.iter().filter_map(|place| entries.get(*place));
    for entry in remote {
        local.iter_mut().for_each(|set| FdSet::remove(set, entry.fd as usize));
    }
    Question::write(cx, &local).await?;
    question.tell_left(cx).await?;
    add(&cx.core.counters.helpers, 1);
    let call = LocalCall { number: cx.number, arguments, via };
    Ok(Some(Apart { slot, call, local, remote: split.remote }))
}

/// A `select` that could have ended by itself has come back with this result.
pub async fn go_on(cx: Rc<Cx>, question: Question, result: i64) -> Outcome {
    cx.again.set(true);
    match go_on_from(&cx, &question, result).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Return(error.result()),
    }
}

async fn go_on_from(cx: &Cx, question: &Question, result: i64) -> Result<Outcome, Errno> {
    // The sets are the program's again: an error changes none.
    Question::write(cx, &question.sets).await?;
    if let Err(error) = check(result) {
        cx.note(Kind::Both);
        question.tell_left(cx).await?;
        return Err(error);
    }
    question.answer(cx, true).await
}

async fn timeval_in(cx: &Cx, at: u64) -> Result<Option<u64>, Errno> {
    if at == 0 {
        return Ok(None);
    }
    let time = TimeVal::decode(&cx.array(at).await?);
    time.to_nanoseconds().map(Some).ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// With every asked event found, `select` gives back exactly the sets it was given.
        #[test]
        fn sets_survive_the_way_through_poll(
            bits in proptest::array::uniform3(proptest::collection::btree_set(0usize..130, 0..20)),
        ) {
            let sets = bits.clone().map(|fds| {
                let mut set = vec![0; FdSet::bytes(130)];
                fds.iter().for_each(|fd| FdSet::insert(&mut set, *fd));
                set
            });
            let mut entries = entries_of(&sets, 130);
            for entry in &mut entries {
                entry.revents = entry.events;
            }
            let (out, count) = sets_of(&sets, &entries, 130).unwrap();
            prop_assert_eq!(&out, &sets);
            prop_assert_eq!(count as usize, bits.iter().map(|b| b.len()).sum::<usize>());
        }
    }
}
