//! When a manager that has failed is started again, and when there is no hope.

/// Most restarts within [`PERIOD_US`].
pub const MOST: usize = 4;
/// A minute, in microseconds.
pub const PERIOD_US: u64 = 60_000_000;

/// A manager's last restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restarts {
    /// When they were, the oldest first.
    times: [Option<u64>; MOST],
    hopeless: bool,
}

impl Restarts {
    /// The manager has failed: true when it is to be started again. Once that is false it stays so.
    pub fn again(&mut self, now_us: u64) -> bool {
        let recent = |time: &u64| now_us.saturating_sub(*time) < PERIOD_US;
        self.hopeless |= self.times.iter().all(|time| time.as_ref().is_some_and(recent));
        if !self.hopeless {
            self.times.rotate_left(1);
            self.times[MOST - 1] = Some(now_us);
        }
        !self.hopeless
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_fifth_failure_within_a_minute_is_the_last() {
        let mut restarts = Restarts::default();
        let outcomes = [0, 1, 2, 3, 4, PERIOD_US * 9].map(|now| restarts.again(now));
        assert_eq!(outcomes, [true, true, true, true, false, false]);
    }

    proptest! {
        #[test]
        fn never_more_than_so_many_within_a_minute(steps in proptest::collection::vec(0..PERIOD_US, 0..40)) {
            let mut restarts = Restarts::default();
            let mut now = 0;
            let mut done: alloc::vec::Vec<u64> = alloc::vec::Vec::new();
            for step in steps {
                now += step;
                let recent = done.iter().filter(|time| now - **time < PERIOD_US).count();
                if restarts.again(now) {
                    prop_assert!(recent < MOST);
                    done.push(now);
                } else {
                    prop_assert!(recent >= MOST);
                    break;
                }
            }
        }
    }
}
