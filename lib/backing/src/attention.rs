//! When somebody who was asked is taken for one who never answers.
//!
//! Time alone says little: a processor of a busy host may stand still for long. So looks are counted, of somebody who goes
//! first on the same processor, and only those that come in time: the processor ran then, and runs on
//! with whoever was asked.

/// Microseconds from one look to the next.
pub const PERIOD_US: u64 = 250_000;
/// A look that comes later than that, in microseconds, proves nothing.
const LATE_US: u64 = PERIOD_US / 2;
/// So many looks without an answer are too many, where every piece of work is short: on a busy host, whose
/// processor runs for a part of each period only, they are still a hundred times what the longest takes.
pub const MOST: u32 = 20;
/// The same for those who do long pieces of work, such as loading a kernel.
pub const MOST_AT_WORK: u32 = 80;

/// What comes of a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// It has answered: it can be asked again.
    Answered,
    /// It has not answered yet.
    Waits,
    /// It is taken for one who never answers. Said once for each question.
    Silent,
}

/// How often somebody was looked at since it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attention {
    looks: u32,
    most: u32,
}

impl Attention {
    /// Somebody who may be looked at so often without having answered.
    #[must_use]
    pub const fn new(most: u32) -> Self {
        Self { looks: 0, most }
    }

    /// A look that comes `late_us` microseconds after its time.
    pub fn look(&mut self, answered: bool, late_us: u64) -> Look {
        if answered {
            self.looks = 0;
            return Look::Answered;
        }
        if late_us > LATE_US || self.looks >= self.most {
            return Look::Waits;
        }
        self.looks += 1;
        if self.looks == self.most { Look::Silent } else { Look::Waits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_look_is_the_last() {
        let mut attention = Attention::new(MOST);
        let looks = [false; MOST as usize + 2].map(|answered| attention.look(answered, 0));
        assert_eq!(looks.iter().position(|look| *look == Look::Silent), Some(MOST as usize - 1));
        assert_eq!(looks.iter().filter(|look| **look == Look::Silent).count(), 1);
        assert_eq!(attention.look(true, u64::MAX), Look::Answered);
        assert_eq!(attention, Attention::new(MOST));
    }

    #[test]
    fn a_processor_that_stands_still_proves_nothing() {
        let mut attention = Attention::new(MOST);
        assert!((0..1000).all(|_| attention.look(false, LATE_US + 1) == Look::Waits));
    }

    proptest! {
        #[test]
        fn silent_after_so_many_looks_in_time_and_never_before(looks in proptest::collection::vec((any::<bool>(), 0..2 * LATE_US), 0..100)) {
            let mut attention = Attention::new(MOST);
            let mut counted = 0;
            for (answered, late) in looks {
                let found = attention.look(answered, late);
                counted = if answered { 0 } else { counted + u32::from(late <= LATE_US) };
                let in_time = late <= LATE_US;
                prop_assert_eq!(found == Look::Silent, !answered && in_time && counted == MOST);
                prop_assert_eq!(found == Look::Answered, answered);
            }
        }
    }
}
