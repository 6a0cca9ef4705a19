//! The APIC timer: counting down, once or again and again, or waiting for a TSC deadline.

/// Shortest period of the periodic mode, in ticks: a guest cannot make its monitor busy for ever.
pub const MINIMUM_PERIOD: u64 = 100_000;

/// Modes of the timer, bits 17 and 18 of its local vector; 0 is one-shot.
mod mode {
    pub const PERIODIC: u32 = 1;
    pub const DEADLINE: u32 = 2;
}

/// The timer. Its bus clock is the time-stamp counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timer {
    mode: u32,
    divide: u32,
    initial: u32,
    /// When it expires; also the TSC_DEADLINE register in deadline mode.
    next: Option<u64>,
}

impl Timer {
    /// Switches the mode; that disarms it.
    pub fn set_mode(&mut self, mode: u32) {
        if mode != self.mode {
            self.mode = mode;
            self.next = None;
        }
    }

    /// The TSC_DEADLINE register: zero when disarmed or in another mode.
    #[must_use]
    pub fn deadline_register(&self) -> u64 {
        if self.mode == mode::DEADLINE { self.next.unwrap_or(0) } else { 0 }
    }

    /// Writes TSC_DEADLINE; zero disarms. Ignored in other modes.
    pub fn set_deadline(&mut self, value: u64) {
        if self.mode == mode::DEADLINE {
            self.next = (value != 0).then_some(value);
        }
    }

    /// Writes the initial count: starts the timer, or stops it with zero.
    pub fn start(&mut self, count: u32, now: u64) {
        if self.mode == mode::DEADLINE {
            return;
        }
        self.initial = count;
        self.next = (count != 0).then(|| now.saturating_add(self.period()));
    }

    /// Writes the divide register.
    pub fn set_divide(&mut self, value: u32, now: u64) {
        self.divide = value & 0b1011;
        if self.next.is_some() {
            self.start(self.initial, now);
        }
    }

    /// The divide register.
    #[must_use]
    pub fn divide(&self) -> u32 {
        self.divide
    }

    /// The initial count.
    #[must_use]
    pub fn initial_count(&self) -> u32 {
        self.initial
    }

    /// What is left of the count.
    #[must_use]
    pub fn current_count(&self, now: u64) -> u32 {
        match self.next {
            Some(next) if self.mode != mode::DEADLINE => {
                let left = next.saturating_sub(now) / self.divisor();
                u32::try_from(left).unwrap_or(u32::MAX).min(self.initial)
            }
            _ => 0,
        }
    }

    /// 2, 4, 8 … 128, 1 (APM 16.4.1).
    fn divisor(&self) -> u64 {
        let code = self.divide & 3 | self.divide >> 1 & 4;
        1 << ((code + 1) & 7)
    }

    fn period(&self) -> u64 {
        let ticks = u64::from(self.initial) * self.divisor();
        if self.mode == mode::PERIODIC { ticks.max(MINIMUM_PERIOD) } else { ticks }
    }

    /// When it expires.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// True when it has expired by now; arms it again in periodic mode.
    pub fn expire(&mut self, now: u64) -> bool {
        let Some(next) = self.next.filter(|next| *next <= now) else { return false };
        self.next = match self.mode {
            mode::PERIODIC => {
                // Periods that passed unnoticed are lost, not made up for.
                let late = (now - next) / self.period();
                Some(next.saturating_add((late + 1) * self.period()))
            }
            _ => None,
        };
        true
    }
}
