//! The state of one VM, and what happens around every exit.
use crate::boot;
use crate::devices::{Devices, Settings};
use crate::end::End;
use crate::restart::Restarts;
use abi::vcpu::{EXIT_CLASSES, ExitClass, VcpuState};
use abi::{NO_DEADLINE, Selector};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use apic::Apic;
use hostlink::VM_ENDED;
use linuxboot::Loaded;
use platform::clock::Clock;
use platform::code;
use platform::delivery::{self, Outcome};
use platform::eoi::EndOfInterrupt;
use platform::lost::Lost;
use platform::serial::Serial;
use rt::{GuestRam, Shared, VcpuPage, log, sys, time};

/// One VM.
pub struct Monitor {
    /// `compute` or `service`.
    pub role: String,
    /// When it may start again after its end.
    pub restarts: Restarts,
    pub settings: Settings,
    pub ram: GuestRam,
    pub page: VcpuPage,
    pub devices: Devices<GuestRam>,
    pub apic: Apic,
    pub clock: Clock,
    pub eoi: EndOfInterrupt,
    pub serial: Serial,
    /// What the guest has written to lost pages of its memory.
    pub lost: Lost,
    /// The memory's manager, where pages can be lost.
    pub keeper: Option<Selector>,
    /// Reports about odd accesses that are still to be made: a guest cannot flood the log.
    pub reports: u32,
    pub vcpu: Selector,
    /// The kernel that starts at the first exit.
    pub loaded: Option<Loaded>,
    /// The guest has executed HLT and not been interrupted since.
    pub halted: bool,
    /// A recall is under way.
    recalled: bool,
    /// The guest will exit as soon as it can take an interrupt.
    pub window: bool,
    pub ended: bool,
    /// What the console has not heard yet about the end.
    pub last_words: Vec<u8>,
    verbose: bool,
    /// The serial port's output goes to the log too.
    log_serial: bool,
    counts: [u64; EXIT_CLASSES],
}

fn needed<T>(found: Option<T>, what: &str) -> T {
    match found {
        Some(found) => found,
        None => panic!("the configuration lacks {what}"),
    }
}

impl Monitor {
    /// The VM that the configuration describes, its kernel loaded. In the place of a monitor that has failed, the VM is over.
    pub fn from_config() -> Self {
        let config = rt::config();
        let role = config.parameter("role").unwrap_or("compute").to_string();
        let ram = needed(Shared::guest_ram("ram"), "region 'ram'");
        let settings = Settings { service: role == "service" };
        let mut monitor = Self {
            restarts: Restarts::new(&role),
            role,
            ram,
            page: needed(VcpuPage::region("vcpu"), "region 'vcpu'"),
            devices: Devices::new(ram, &settings),
            settings,
            apic: Apic::new(),
            clock: boot::clock(),
            eoi: EndOfInterrupt::default(),
            serial: Serial::default(),
            lost: Lost::default(),
            keeper: config.capability("ram").map(Selector),
            reports: 32,
            vcpu: Selector(needed(config.capability("vcpu"), "capability 'vcpu'")),
            loaded: None,
            halted: false,
            recalled: false,
            window: false,
            ended: false,
            last_words: Vec::new(),
            verbose: config.parameter("verbose").is_some(),
            log_serial: config.parameter("serial") == Some("log"),
            counts: [0; EXIT_CLASSES],
        };
        if config.parameter(system::SUCCESSOR).is_some() {
            monitor.devices.expect_connections();
            monitor.end(&End::MonitorFailed);
            return monitor;
        }
        match boot::load(&monitor.role, &ram) {
            Ok(loaded) => monitor.loaded = Some(loaded),
            Err(text) => monitor.end(&End::NotStarted(text)),
        }
        monitor
    }

    /// When the guest's timer expires.
    pub fn deadline(&self) -> u64 {
        if self.ended { NO_DEADLINE } else { self.apic.next_deadline().unwrap_or(NO_DEADLINE) }
    }

    /// Before an exit is handled.
    pub fn begin_exit(&mut self, class: ExitClass, state: &mut VcpuState) {
        self.count(class);
        self.eoi.after_exit(&mut self.apic, &self.ram);
        if class == ExitClass::Recall {
            self.recalled = false;
            if let Some(loaded) = self.loaded.take() {
                loaded.start(state);
            }
        }
    }

    /// After an exit was handled: chooses what is delivered at the next entry.
    pub fn finish_exit(&mut self, class: ExitClass, state: &mut VcpuState) {
        self.needed_lost_memory();
        if self.ended && !self.restart(state) {
            state.inject = 0;
            state.want_window = 0;
            state.blocked = 1;
            return;
        }
        self.collect_interrupts();
        if matches!(class, ExitClass::Recall | ExitClass::InterruptWindow) {
            self.pass_halt(state);
        }
        if delivery::next(state, &mut self.apic) == Outcome::Delivered {
            self.halted = false;
        }
        self.window = state.want_window != 0;
        state.blocked = self.halted.into();
        self.eoi.before_entry(&self.apic, &self.ram);
    }

    /// An interrupt that comes while the guest is just about to halt, its flag set, is taken as
    /// if it came just after: some processors forget the interrupt shadow of `STI` at an exit,
    /// and the guest would go to sleep with the interrupt's work undone.
    fn pass_halt(&mut self, state: &mut VcpuState) {
        let due = self.apic.pending().is_some() && state.inject == 0;
        if due && !self.halted && delivery::interruptible(state) && code::at_halt(&self.ram, state)
        {
            state.rip = state.rip.wrapping_add(1);
            state.interrupt_shadow = 0;
        }
    }

    /// The guest executed HLT.
    pub fn halt(&mut self, state: &mut VcpuState) {
        code::skip(&self.ram, state, code::Expected::Halt);
        self.flush_serial(true);
        if delivery::interruptible(state) {
            self.halted = true;
        } else {
            self.end(&End::Halted);
        }
    }

    /// The expired timer and the devices' messages become requests of the interrupt controller.
    fn collect_interrupts(&mut self) {
        self.apic.expire(time::now().0);
        while let Some(message) = self.devices.next_interrupt() {
            self.apic.message(message.address, message.data);
        }
    }

    /// Other programs have signalled.
    pub fn notified(&mut self, bits: u64) {
        self.devices.notified(bits);
        if self.needed_lost_memory() {
            // It must not run on until it exits by itself.
            let _ = sys::vcpu_recall(self.vcpu);
        }
        if self.ended {
            self.say_last_words();
            self.wake_to_restart();
        } else {
            self.wake_guest();
        }
    }

    /// Makes the guest exit, if there is something for it that it would not exit for anyway.
    pub fn wake_guest(&mut self) {
        if self.ended {
            return;
        }
        self.collect_interrupts();
        let due = self.apic.pending().is_some() || self.eoi.is_armed();
        if self.apic.has_requests() && due && !self.window && !self.recalled {
            self.recalled = sys::vcpu_recall(self.vcpu).is_ok();
        }
    }

    /// Hands the serial port's output on.
    pub fn flush_serial(&mut self, all: bool) {
        if let Some(bytes) = self.serial.take(all) {
            if self.log_serial {
                log!("{} VM> {}", self.role, String::from_utf8_lossy(&bytes).trim_end());
            }
            self.devices.serial_output(&bytes);
        }
    }

    /// The VM is over. Its processor stays blocked; the reason goes to the log and the console.
    pub fn end(&mut self, why: &End) {
        if core::mem::replace(&mut self.ended, true) {
            return;
        }
        self.flush_serial(true);
        log!("the {} VM is over: {why}", self.role);
        self.log_counts();
        self.last_words = alloc::format!("\r\n{VM_ENDED}{why}\r\n").into_bytes();
        self.say_last_words();
        self.devices.machine_ended();
        self.restarts.ended(why);
    }

    /// Tells the console that the VM is over, as far as it takes it now.
    fn say_last_words(&mut self) {
        let said = self.devices.serial_output(&self.last_words);
        self.last_words.drain(..said.min(self.last_words.len()));
    }

    /// Notes something odd that the guest did, as long as the log takes it.
    pub fn report(&mut self, text: core::fmt::Arguments<'_>) {
        if self.reports > 0 {
            self.reports -= 1;
            log!("{} VM: {text}", self.role);
        }
    }

    fn count(&mut self, class: ExitClass) {
        if let Some(count) = self.counts.get_mut(class as usize) {
            *count += 1;
        }
        let total: u64 = self.counts.iter().sum();
        if self.verbose && total >= 1024 && total.is_power_of_two() {
            self.log_counts();
        }
    }

    fn log_counts(&self) {
        log!(
            "{} VM: exits (other, #UD, VMMCALL, CR3, IRET, recall, HLT, MSR, I/O, CPUID, window, \
             error, SYSCALL MSR) {:?}",
            self.role,
            self.counts
        );
    }
}
