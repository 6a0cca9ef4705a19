//! Thread 0: exits of the compute VM, records of both socket models, commands of the host.
use crate::desk::{self, Registration};
use crate::outbox::Outbox;
use crate::surroundings::Surroundings;
use abi::vcpu::ExitMessage;
use abi::{Event, MESSAGE_WORDS, NO_DEADLINE};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use hostlink::relay::{Form as HostForm, Stats, ToHost, ToRelay};
use memory::Memory;
use policy::Policy;
use ring::MAX_RECORD;
use rt::Shared;
use rt::{VcpuPage, log, sys};
use servicing::{Core, Engine, Settings, World};
use wire::hypercall::Form;
use wire::vsock::Record;

/// Thread 0's state.
struct Compute {
    engine: Engine,
    world: Rc<Surroundings>,
    page: VcpuPage,
    record: Vec<u8>,
    /// Exits of the vCPU, from its state page.
    exits: u64,
}

/// Serves for ever.
pub fn serve() -> ! {
    let mut compute = Compute::open();
    let mut deadline = NO_DEADLINE;
    let mut next = sys::wait(deadline);
    loop {
        let mut reply = None;
        match next {
            Ok((Event::Exit(_), words)) => {
                let class = ExitMessage::decode(&words).class;
                if compute.again(class) {
                    next = sys::reply_wait(0, [0; MESSAGE_WORDS], deadline);
                    continue;
                }
                // What happened before the exit is told before it.
                compute.news();
                compute.exit(class);
                reply = Some(0);
            }
            Ok((Event::Call(_) | Event::Fault(_), _)) => reply = Some(abi::Error::Refused as u64),
            Ok((Event::Notification, _)) => {
                compute.news();
                compute.engine.doorbell();
            }
            _ => {}
        }
        if let Some(at) = compute.engine.tick() {
            deadline = in_ticks(at);
        } else {
            deadline = NO_DEADLINE;
        }
        compute.world.flush();
        next = match reply {
            Some(status) => sys::reply_wait(status, [0; MESSAGE_WORDS], deadline),
            None => sys::wait(deadline),
        };
    }
}

/// Nanoseconds since the counter's start as a counter value.
fn in_ticks(nanoseconds: u64) -> u64 {
    let ticks = u128::from(nanoseconds) * u128::from(rt::config().tsc_khz) / 1_000_000;
    u64::try_from(ticks).unwrap_or(NO_DEADLINE)
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    // Microseconds on the command line, nanoseconds inside.
    if let Some(hold) = rt::config().number("hold") {
        settings.hold = hold.saturating_mul(1000);
    }
    settings
}

fn first_form() -> Form {
    let name = rt::config().parameter("form").unwrap_or("stub");
    Form::from_name(name).unwrap_or_else(|| {
        log!("unknown interception form '{name}': using 'stub'");
        Form::Stub
    })
}

/// The policy of the boot archive; without a sound one, nobody is trusted.
fn policy() -> Policy {
    let bytes = Shared::region("policy").and_then(|file| {
        let mut bytes = alloc::vec![0; usize::try_from(file.len()).ok()?];
        file.read(0, &mut bytes).ok().map(|()| bytes)
    });
    let policy = bytes.and_then(|bytes| Policy::decode(&bytes).ok());
    policy.unwrap_or_else(|| {
        log!("there is no sound policy: no program is trusted");
        Policy::default()
    })
}

impl Compute {
    fn open() -> Self {
        let Some(page) = VcpuPage::region("vcpu-compute") else {
            panic!("no region 'vcpu-compute' in the configuration");
        };
        let config = rt::config();
        let world = Rc::new(Surroundings::open());
        let core = Core::new(world.clone(), settings(), policy());
        let mut engine = Engine::new(core, first_form());
        let on = |name: &str| config.parameter(name).is_some_and(|v| v != "0");
        engine.set_verbose(on("verbose"));
        engine.bench_allowed = on("bench");
        Self { engine, world, page, record: alloc::vec![0; MAX_RECORD], exits: 0 }
    }

    /// Handles the exit if it is a call that the last one made already. All else that has happened is
    /// told by a signal, so nobody waits longer for it.
    fn again(&mut self, class: u64) -> bool {
        let (engine, exits) = (&mut self.engine, &mut self.exits);
        self.page.with(|state| {
            *exits = state.exits;
            engine.again(state, class)
        })
    }

    fn exit(&mut self, class: u64) {
        let (engine, exits) = (&mut self.engine, &mut self.exits);
        self.page.with(|state| {
            *exits = state.exits;
            engine.exit(state, class);
        });
    }

    /// Looks at everything that may have brought news; which bit it was does not matter. Mailboxes
    /// are looked at by what follows.
    fn news(&mut self) {
        while let Some(bytes) = self.receive(|w| &w.vsock_compute) {
            if let Some(record) = Record::decode(bytes) {
                self.engine.compute_record(&record);
            }
        }
        while let Some(bytes) = self.receive(|w| &w.vsock_service) {
            if let Some(record) = Record::decode(bytes) {
                self.engine.service_record(&record);
            }
        }
        while let Some(bytes) = self.receive(|w| &w.host) {
            match ToRelay::decode(bytes) {
                Ok(command) => self.command(command),
                Err(_) => self.world.log(format_args!("a command of the host is malformed")),
            }
        }
        self.registrations();
    }

    fn receive(&mut self, from: impl Fn(&Surroundings) -> &Outbox) -> Option<&[u8]> {
        let length = from(&self.world).receive(&mut self.record)?;
        self.record.get(..length)
    }

    fn registrations(&mut self) {
        while let Some(Registration { cr3, address }) = desk::take() {
            if let Err(error) = self.engine.register(cr3, address) {
                let why = error.name();
                self.world.log(format_args!("a mailbox is not registered: {why}"));
            }
        }
    }

    fn command(&mut self, command: ToRelay) {
        let answer = match command {
            ToRelay::GetStats => ToHost::Stats(Box::new(self.stats())),
            ToRelay::Verbose(on) => {
                self.engine.set_verbose(on);
                done("")
            }
            ToRelay::AllowBench(on) => {
                self.engine.bench_allowed = on;
                done("")
            }
            ToRelay::SetForm(form) => match form {
                HostForm::Off => self.set_form(Form::Off),
                HostForm::Watched => self.set_form(Form::Watched),
                HostForm::Paper => self.set_form(Form::Paper),
                HostForm::Stub => self.set_form(Form::Stub),
            },
        };
        self.world.host.send(&answer.encode());
    }

    fn set_form(&mut self, form: Form) -> ToHost {
        self.engine.set_form(form);
        done("")
    }

    fn stats(&self) -> Stats {
        let (counters, census) = (self.engine.counters(), self.engine.census());
        let exits = counters.exits.borrow();
        Stats {
            calls_local: counters.local.get(),
            calls_remote: counters.remote.get(),
            calls_both: counters.both.get(),
            calls_refused: counters.refused.get(),
            helper_calls: counters.helpers.get(),
            bytes_in: counters.bytes_in.get(),
            bytes_out: counters.bytes_out.get(),
            processes: census.processes,
            processes_total: counters.processes.get(),
            delegates: census.delegates,
            delegates_total: counters.delegates.get(),
            workers: census.workers,
            descriptors: census.descriptors,
            descriptors_total: counters.descriptors.get(),
            in_service: census.in_service,
            cancellations: counters.cancellations.get(),
            exits: exits.iter().enumerate().map(|(n, c)| (n as u8, *c)).collect(),
            exits_total: self.exits,
            by_call: counters.by_call.borrow().iter().map(|(n, c)| (*n, *c)).collect(),
            heap: rt::heap_used() as u64,
            form: String::from(self.engine.form().name()),
            ..Stats::default()
        }
    }
}

fn done(error: &str) -> ToHost {
    ToHost::Done { error: error.into() }
}
