//! Rates of the TSC and of the APIC timer, measured against the 8254 (channel 2).
use super::{apic, cpu, port};

/// 8254 input clock in hertz.
const PIT_HERTZ: u64 = 1_193_182;
const PIT_COMMAND: u16 = 0x43;
const PIT_CHANNEL_2: u16 = 0x42;
/// Gate and speaker control.
const CONTROL: u16 = 0x61;
/// PIT ticks that a measurement lasts: about 20 ms.
const SPAN: u64 = 24_000;
/// How often a sample is tried again when it took suspiciously long.
const TRIES: usize = 50;

/// One moment on three clocks.
#[derive(Clone, Copy)]
struct Sample {
    pit: u64,
    tsc: u64,
    apic: u64,
}

fn pit() -> u64 {
    port::outb(PIT_COMMAND, 0x80);
    let low = port::inb(PIT_CHANNEL_2);
    let high = port::inb(PIT_CHANNEL_2);
    0xffff - (u64::from(high) << 8 | u64::from(low))
}

/// All three clocks, as close together as some tries give: a host may preempt in between.
fn sample() -> Sample {
    let mut best = (u64::MAX, Sample { pit: 0, tsc: 0, apic: 0 });
    for _ in 0..TRIES {
        let before = cpu::ticks();
        let apic = u64::from(apic::counted());
        let pit = pit();
        let after = cpu::ticks();
        if after - before < best.0 {
            best = (after - before, Sample { pit, tsc: before + (after - before) / 2, apic });
        }
    }
    best.1
}

/// Measures both rates; returns the TSC's in kHz and sets the timer's. Needs the APIC.
pub fn calibrate() -> u64 {
    // Mode 0, count down from 0xffff, gate on, speaker off.
    port::outb(CONTROL, port::inb(CONTROL) & !2 | 1);
    port::outb(PIT_COMMAND, 0xb0);
    port::outb(PIT_CHANNEL_2, 0xff);
    port::outb(PIT_CHANNEL_2, 0xff);
    apic::start_count();
    let first = sample();
    while pit() < first.pit + SPAN {
        core::hint::spin_loop();
    }
    let last = sample();
    let tsc = last.tsc - first.tsc;
    apic::set_rate(last.apic.saturating_sub(first.apic).max(1), tsc);
    let pit = last.pit.saturating_sub(first.pit).max(1);
    (u128::from(tsc) * u128::from(PIT_HERTZ) / u128::from(pit) / 1000) as u64
}

/// Waits about that many microseconds; before calibration too.
pub fn delay(microseconds: u64) {
    // Port 0x80 takes about a microsecond on hardware; emulators are faster, and patient.
    for _ in 0..microseconds {
        port::outb(0x80, 0);
    }
}
