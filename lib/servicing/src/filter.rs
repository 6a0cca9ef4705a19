//! A program's own seccomp filters (`seccomp(2)`): classic BPF over the number and the arguments of
//! a call. The relay keeps a copy of what a program installs and runs it: over remotely serviced
//! calls, which the program's kernel does not see, and over the calls that it makes on a program's
//! behalf, which must never trip a filter.
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_abi::{Errno, nr};

/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;
/// Bytes of `struct seccomp_data`.
const DATA_LENGTH: u32 = 64;
/// Most instructions of a filter (`BPF_MAXINSNS`).
pub const LENGTH_MAX: usize = 4096;
/// Words of scratch memory (`BPF_MEMWORDS`).
const WORDS: usize = 16;
/// Part of a result that is the action.
const ACTION: u32 = 0xffff_0000;
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const ERRNO: u32 = 0x0005_0000;

/// What filters say about a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It may be made.
    Allow,
    /// It fails (or, with zero, answers 0) without being made.
    Fail(Errno),
    /// The kernel has something to do about it: end the program, send a signal, ask a supervisor.
    Stop,
}

/// A call, as filters see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Number.
    pub number: u64,
    /// Arguments.
    pub arguments: [u64; 6],
    /// Address behind the `SYSCALL`.
    pub behind: u64,
}

impl Subject {
    /// A word of `struct seccomp_data`.
    fn word(&self, offset: u32) -> Option<u32> {
        if !offset.is_multiple_of(4) {
            return None;
        }
        let half = |value: u64, high: bool| (if high { value >> 32 } else { value }) as u32;
        let high = offset % 8 == 4;
        match offset {
            0 => Some(self.number as u32),
            4 => Some(ARCHITECTURE),
            8 | 12 => Some(half(self.behind, high)),
            16..DATA_LENGTH => {
                let argument = self.arguments.get((offset as usize - 16) / 8)?;
                Some(half(*argument, high))
            }
            _ => None,
        }
    }
}

/// An instruction: `struct sock_filter`.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    k: u32,
}

/// A filter.
#[derive(Clone, Debug)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// From an array of `struct sock_filter`.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let (chunks, _) = bytes.as_chunks::<8>();
        let one = |b: &[u8; 8]| Instruction {
            code: u16::from_le_bytes([b[0], b[1]]),
            yes: b[2],
            no: b[3],
            k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        };
        Self(chunks.iter().map(one).collect())
    }

    /// The filter's result. Whatever the kernel would not have accepted ends as "kill".
    fn run(&self, subject: &Subject) -> u32 {
        let mut machine = Machine::default();
        let mut at = 0usize;
        // Jumps lead forward only, so this ends.
        while let Some(instruction) = self.0.get(at) {
            match machine.step(instruction, subject) {
                Some(Next::Skip(n)) => at = at.saturating_add(n as usize).saturating_add(1),
                Some(Next::Result(result)) => return result,
                None => return 0,
            }
        }
        0
    }
}

enum Next {
    Skip(u32),
    Result(u32),
}

#[derive(Default)]
struct Machine {
    a: u32,
    x: u32,
    memory: [u32; WORDS],
}

impl Machine {
    /// `None`: not an instruction that filters may have, or a division by zero.
    fn step(&mut self, i: &Instruction, subject: &Subject) -> Option<Next> {
        const FROM_X: u16 = 8;
        let operand = if i.code & FROM_X != 0 { self.x } else { i.k };
        let jump = |taken: bool| Next::Skip(u32::from(if taken { i.yes } else { i.no }));
        match i.code {
            0x20 => self.a = subject.word(i.k)?,
            0x80 => self.a = DATA_LENGTH,
            0x81 => self.x = DATA_LENGTH,
            0x00 => self.a = i.k,
            0x01 => self.x = i.k,
            0x60 => self.a = *self.memory.get(i.k as usize)?,
            0x61 => self.x = *self.memory.get(i.k as usize)?,
            0x02 => *self.memory.get_mut(i.k as usize)? = self.a,
            0x03 => *self.memory.get_mut(i.k as usize)? = self.x,
            0x07 => self.x = self.a,
            0x87 => self.a = self.x,
            0x06 => return Some(Next::Result(i.k)),
            0x16 => return Some(Next::Result(self.a)),
            0x05 => return Some(Next::Skip(i.k)),
            0x15 | 0x1d => return Some(jump(self.a == operand)),
            0x25 | 0x2d => return Some(jump(self.a > operand)),
            0x35 | 0x3d => return Some(jump(self.a >= operand)),
            0x45 | 0x4d => return Some(jump(self.a & operand != 0)),
            code => self.a = arithmetic(code & !FROM_X, self.a, operand)?,
        }
        Some(Next::Skip(0))
    }
}

fn arithmetic(code: u16, a: u32, b: u32) -> Option<u32> {
    Some(match code {
        0x04 => a.wrapping_add(b),
        0x14 => a.wrapping_sub(b),
        0x24 => a.wrapping_mul(b),
        0x34 => a.checked_div(b)?,
        0x44 => a | b,
        0x54 => a & b,
        0x64 => a.wrapping_shl(b),
        0x74 => a.wrapping_shr(b),
        0x84 => a.wrapping_neg(),
        0xa4 => a ^ b,
        _ => return None,
    })
}

/// All filters of a process.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Newest last.
    programs: RefCell<Vec<Rc<Program>>>,
    strict: Cell<bool>,
}

impl Filters {
    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.strict.get() && self.programs.borrow().is_empty()
    }

    /// Adds a filter.
    pub fn add(&self, program: Program) {
        self.programs.borrow_mut().push(Rc::new(program));
    }

    /// Only four calls are left (`SECCOMP_MODE_STRICT`).
    pub fn set_strict(&self) {
        self.strict.set(true);
    }

    /// What all filters together say: the severest result, among equals that of the newest.
    #[must_use]
    pub fn decide(&self, subject: &Subject) -> Decision {
        if self.strict.get() {
            let left = [nr::read, nr::write, nr::exit, nr::rt_sigreturn];
            return if left.contains(&subject.number) { Decision::Allow } else { Decision::Stop };
        }
        let severity = |result: u32| (result & ACTION).cast_signed();
        let mut result = ALLOW;
        for program in self.programs.borrow().iter().rev() {
            let next = program.run(subject);
            if severity(next) < severity(result) {
                result = next;
            }
        }
        match result & ACTION {
            ALLOW | LOG => Decision::Allow,
            ERRNO => Decision::Fail(Errno((result & 0xffff).min(4095) as u16)),
            _ => Decision::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An array of `struct sock_filter`.
    fn assemble(code: &[(u16, u8, u8, u32)]) -> Vec<u8> {
        let one = |(code, yes, no, k): &(u16, u8, u8, u32)| {
            let mut bytes = code.to_le_bytes().to_vec();
            bytes.extend([*yes, *no]);
            bytes.extend(k.to_le_bytes());
            bytes
        };
        code.iter().flat_map(one).collect()
    }

    fn filters(programs: &[&[(u16, u8, u8, u32)]]) -> Filters {
        let filters = Filters::default();
        programs.iter().for_each(|p| filters.add(Program::decode(&assemble(p))));
        filters
    }

    fn subject(number: u64, arguments: [u64; 6]) -> Subject {
        Subject { number, arguments, behind: 0x1234_5678_9abc }
    }

    /// `if nr == number: return result; return ALLOW`.
    fn one(number: u64, result: u32) -> [(u16, u8, u8, u32); 4] {
        [(0x20, 0, 0, 0), (0x15, 0, 1, number as u32), (0x06, 0, 0, result), (0x06, 0, 0, ALLOW)]
    }

    #[test]
    fn the_severest_wins_and_among_equals_the_newest() {
        let call = subject(nr::connect, [0; 6]);
        let (first, second) = (one(nr::connect, ERRNO | 13), one(nr::connect, ERRNO | 1));
        assert_eq!(filters(&[&first, &second]).decide(&call), Decision::Fail(Errno::EPERM));
        let kill = one(nr::connect, 0x8000_0000);
        assert_eq!(filters(&[&kill, &second]).decide(&call), Decision::Stop);
        let trap = one(nr::connect, 0x0003_0000);
        assert_eq!(filters(&[&second, &trap]).decide(&call), Decision::Stop);
        assert_eq!(filters(&[&kill]).decide(&subject(nr::read, [0; 6])), Decision::Allow);
        assert_eq!(filters(&[&one(nr::connect, LOG)]).decide(&call), Decision::Allow);
        assert_eq!(Filters::default().decide(&call), Decision::Allow);
    }

    #[test]
    fn arguments_are_seen_in_both_halves() {
        let low = [(0x20, 0, 0, 16 + 8), (0x15, 0, 1, 7), (0x06, 0, 0, ALLOW), (0x06, 0, 0, 0)];
        let high = [(0x20, 0, 0, 16 + 12), (0x15, 0, 1, 1), (0x06, 0, 0, ALLOW), (0x06, 0, 0, 0)];
        let call = subject(1, [0, 1 << 32 | 7, 0, 0, 0, 0]);
        assert_eq!(filters(&[&low, &high]).decide(&call), Decision::Allow);
        let wrong = subject(1, [0, 7, 0, 0, 0, 0]);
        assert_eq!(filters(&[&low, &high]).decide(&wrong), Decision::Stop);
        let architecture =
            [(0x20, 0, 0, 4), (0x15, 0, 1, ARCHITECTURE), (0x06, 0, 0, ALLOW), (0x06, 0, 0, 0)];
        assert_eq!(filters(&[&architecture]).decide(&call), Decision::Allow);
        let beyond = [(0x20, 0, 0, 64), (0x06, 0, 0, ALLOW)];
        assert_eq!(filters(&[&beyond]).decide(&call), Decision::Stop);
    }

    #[test]
    fn the_machine_computes() {
        // ((5 + 3) * 2 - 6) ^ 1 = 11, kept in memory; 11 / 0 ends the program.
        let mut code = std::vec![
            (0x00, 0, 0, 5),
            (0x04, 0, 0, 3),
            (0x24, 0, 0, 2),
            (0x14, 0, 0, 6),
            (0xa4, 0, 0, 1),
            (0x02, 0, 0, 3),
            (0x01, 0, 0, 11),
            (0x60, 0, 0, 3),
            (0x1d, 0, 1, 0),
            (0x06, 0, 0, ALLOW),
            (0x06, 0, 0, 0),
        ];
        assert_eq!(filters(&[&code]).decide(&subject(1, [0; 6])), Decision::Allow);
        code.insert(8, (0x34, 0, 0, 0));
        assert_eq!(filters(&[&code]).decide(&subject(1, [0; 6])), Decision::Stop);
    }

    #[test]
    fn strict_mode_leaves_four_calls() {
        let filters = Filters::default();
        filters.set_strict();
        assert_eq!(filters.decide(&subject(nr::write, [0; 6])), Decision::Allow);
        assert_eq!(filters.decide(&subject(nr::ppoll, [0; 6])), Decision::Stop);
    }

    proptest! {
        #[test]
        fn any_program_ends(bytes in proptest::collection::vec(any::<u8>(), 0..400), n: u64, a: [u64; 6]) {
            let filters = Filters::default();
            filters.add(Program::decode(&bytes));
            let _ = filters.decide(&subject(n, a));
        }

        #[test]
        fn sensible_programs_end(
            code in proptest::collection::vec(
                (proptest::sample::select(std::vec![0x20u16, 0x00, 0x01, 0x60, 0x02, 0x07, 0x05, 0x15, 0x2d, 0x35, 0x45, 0x3c, 0x6c, 0x74, 0x84, 0x06]), 0u8..4, 0u8..4, 0u32..70),
                0..60,
            ),
            n in 0u64..450,
        ) {
            let _ = filters(&[&code]).decide(&subject(n, [n; 6]));
        }
    }
}
