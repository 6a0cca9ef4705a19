//! The local APIC (AMD APM volume 2, chapter 16), by memory-mapped registers.
use super::cpu;
use super::phys;
use abi::HostPhys;
use core::sync::atomic::{AtomicU64, Ordering};

/// Physical address of the register page.
pub const BASE: u64 = 0xfee0_0000;
/// Lowest vector that devices get.
pub const FIRST_DEVICE_VECTOR: u8 = 0x30;
/// One past the highest vector that devices get.
pub const DEVICE_VECTOR_END: u8 = 0xe0;
/// The one-shot timer.
pub const TIMER_VECTOR: u8 = 0xe0;
/// [`Ipi::Wake`].
pub const WAKE_VECTOR: u8 = 0xe1;
const SPURIOUS_VECTOR: u8 = 0xff;

const ID: u64 = 0x20;
const TASK_PRIORITY: u64 = 0x80;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const LVT_TIMER: u64 = 0x320;
const LVT_LINT0: u64 = 0x350;
const LVT_LINT1: u64 = 0x360;
const LVT_ERROR: u64 = 0x370;
const TIMER_INITIAL: u64 = 0x380;
const TIMER_CURRENT: u64 = 0x390;
const TIMER_DIVIDE: u64 = 0x3e0;

const ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DELIVERY_PENDING: u32 = 1 << 12;
/// Divide by 1.
const DIVIDE_BY_1: u32 = 0b1011;

/// What one processor can tell another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ipi {
    /// Enter the kernel: something is to be scheduled, or translations are to be dropped.
    Wake,
}

/// Timer ticks per 2^32 TSC ticks.
static RATE: AtomicU64 = AtomicU64::new(1 << 32);

fn read(register: u64) -> u32 {
    let address = phys::pointer(HostPhys(BASE + register), 4).cast::<u32>();
    // SAFETY: the page is the local APIC's; reading these registers has no side effect.
    unsafe { address.read_volatile() }
}

fn write(register: u64, value: u32) {
    let address = phys::pointer(HostPhys(BASE + register), 4).cast::<u32>();
    // SAFETY: the page is the local APIC's; no register makes it touch memory.
    unsafe { address.write_volatile(value) };
}

/// Turns the calling processor's APIC on.
pub fn init() {
    write(TASK_PRIORITY, 0);
    write(LVT_LINT0, MASKED);
    write(LVT_LINT1, MASKED);
    write(LVT_ERROR, MASKED);
    write(LVT_TIMER, u32::from(TIMER_VECTOR));
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(TIMER_INITIAL, 0);
    write(SPURIOUS, ENABLE | u32::from(SPURIOUS_VECTOR));
}

/// Id of the calling processor's APIC.
pub fn id() -> u32 {
    read(ID) >> 24
}

/// Acknowledges the interrupt being handled.
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

fn command(target: u32, low: u32) {
    write(COMMAND_HIGH, target << 24);
    write(COMMAND_LOW, low);
    while read(COMMAND_LOW) & DELIVERY_PENDING != 0 {
        core::hint::spin_loop();
    }
}

/// Interrupts another processor.
pub fn signal(target: usize, what: Ipi) {
    let Ipi::Wake = what;
    if let Some(local) = cpu::local_of(target) {
        command(local.apic_id, u32::from(WAKE_VECTOR));
    }
}

/// Stops all other processors (NMI to all but self).
pub fn stop_others() {
    write(COMMAND_HIGH, 0);
    write(COMMAND_LOW, 0xc_4400);
}

/// INIT, to a processor that is not started yet.
pub fn send_init(target: u32) {
    command(target, 0x4500);
}

/// Start-up at a page below 1 MiB.
pub fn send_startup(target: u32, page: u64) {
    command(target, 0x4600 | (page >> 12) as u32);
}

/// Lets the timer count down from its maximum, for calibration.
pub fn start_count() {
    write(LVT_TIMER, MASKED);
    write(TIMER_INITIAL, u32::MAX);
}

/// Ticks since [`start_count`].
pub fn counted() -> u32 {
    u32::MAX - read(TIMER_CURRENT)
}

/// Notes the timer's rate after calibration: `ticks` of the timer in `tsc` ticks of the TSC.
pub fn set_rate(ticks: u64, tsc: u64) {
    let rate = (u128::from(ticks) << 32) / u128::from(tsc.max(1));
    RATE.store(rate as u64, Ordering::Relaxed);
    write(TIMER_INITIAL, 0);
    write(LVT_TIMER, u32::from(TIMER_VECTOR));
}

/// Fires the timer once, about `tsc` ticks of the TSC from now; `None` stops it.
pub fn arm(tsc: Option<u64>) {
    let count = tsc.map_or(0, |ticks| {
        let count = (u128::from(ticks) * u128::from(RATE.load(Ordering::Relaxed))) >> 32;
        count.clamp(1, u128::from(u32::MAX)) as u32
    });
    write(TIMER_INITIAL, count);
}

/// Address and data of a message-signalled interrupt.
pub fn message(target: usize, vector: u8) -> Option<(u64, u64)> {
    let local = cpu::local_of(target)?;
    Some((BASE | u64::from(local.apic_id) << 12, u64::from(vector)))
}
