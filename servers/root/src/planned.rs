//! Failures on demand, for tests: the machine's words `fail.NAME=MILLISECONDS,…`, `loop.NAME=…` and `mute.NAME=…` have a
//! manager's first thread end, and all of its threads loop or wait for ever, so long after the system is up. The managers themselves
//! know nothing of it: their code goes to a region whose manager, a thread of the root server with the time that
//! they would have, loops, or puts all faults off.
use crate::Failure;
use crate::boot::Builder;
use crate::guard;
use abi::{FaultReply, MemRights, NO_DEADLINE, Selector};
use alloc::vec::Vec;
use rt::sys::{self, Bind};
use rt::{log, time};

/// How a manager fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    End,
    Loop,
    Mute,
}

/// The words, and what they mean.
const WORDS: [(&str, How); 3] = [("fail", How::End), ("loop", How::Loop), ("mute", How::Mute)];

/// What is to come, and what has been done for it.
#[derive(Default)]
pub struct Planned {
    /// Programs, and when (in ticks) and how they fail.
    to_come: Vec<(usize, u64, How)>,
    /// Threads that hold programs up.
    holders: Vec<(usize, Selector)>,
    /// Programs that were made to fail and have not been made anew yet.
    failing: Vec<usize>,
}

impl Planned {
    /// What the machine's command line says.
    pub fn from_words(builder: &Builder) -> Self {
        let start = time::now().get();
        let mut to_come = Vec::new();
        for (n, program) in builder.description.programs.iter().enumerate() {
            for (word, how) in WORDS {
                let word = alloc::format!("{word}.{}", program.name);
                let times = system::word(&builder.info.command_line, &word).unwrap_or("");
                let times = times.split(',').filter_map(|t| t.parse::<u64>().ok());
                let at =
                    |ms: u64| start.saturating_add(time::microseconds(ms.saturating_mul(1000)));
                to_come.extend(times.map(|ms| (n, at(ms), how)));
            }
        }
        Self { to_come, ..Self::default() }
    }

    /// Has those fail whose time has come. Returns when the next one's comes.
    pub fn carry_out(&mut self, builder: &mut Builder) -> u64 {
        let now = time::now().get();
        for (n, at, how) in core::mem::take(&mut self.to_come) {
            if at > now || self.failing.contains(&n) {
                self.to_come.push((n, at, how));
                continue;
            }
            self.failing.push(n);
            log!("manager '{}' is made to fail", builder.programs[n].config.name);
            let done = match how {
                How::End => {
                    let _ = sys::destroy(builder.programs[n].threads[0].thread);
                    Ok(())
                }
                How::Loop => self.hold(builder, n, loops),
                How::Mute => self.hold(builder, n, puts_off),
            };
            if let Err(Failure(text)) = done {
                log!("it does not: {text}");
            }
        }
        let possible = self.to_come.iter().filter(|(n, ..)| !self.failing.contains(n));
        possible.map(|(_, at, _)| *at).min().unwrap_or(NO_DEADLINE)
    }

    /// Gives the code of program `n` to a manager that runs `body`, on its first processor.
    fn hold(
        &mut self,
        builder: &mut Builder,
        n: usize,
        body: extern "C" fn(u64) -> !,
    ) -> Result<(), Failure> {
        let program = &builder.programs[n];
        let (cpu, priority, space) = (program.threads[0].cpu, program.priority, program.space);
        let code = program.given.code().ok_or_else(|| Failure("it has no code".into()))?;
        let holder = guard::thread(builder, cpu, body, 0)?;
        let portal = builder.portal(holder, 0, "root")?;
        builder.run(holder, priority)?;
        self.holders.push((n, holder));
        let (base, length) = (code.start, code.end - code.start);
        let rights = MemRights::READ | MemRights::EXEC;
        sys::region_unbind(space, base, length)
            .and_then(|()| {
                sys::region_bind(Bind { space, base, length, portal, tag: 0, rights, hint: 12 })
            })
            .map_err(Failure::kernel("code that is taken away"))
    }

    /// Program `n` is about to be made anew.
    pub fn let_go(&mut self, n: usize) {
        self.failing.retain(|failing| *failing != n);
        for (_, holder) in self.holders.extract_if(.., |(held, _)| *held == n) {
            let _ = sys::destroy(holder);
            let _ = sys::cap_drop(Selector(0), holder);
        }
    }
}

extern "C" fn loops(_: u64) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

extern "C" fn puts_off(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        next = match next {
            Ok(_) => sys::reply_wait(0, FaultReply::Later.encode(), NO_DEADLINE),
            Err(_) => sys::wait(NO_DEADLINE),
        };
    }
}
