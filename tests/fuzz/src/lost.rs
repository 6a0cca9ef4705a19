//! A guest that writes to pages that are lost, and executes anything there.
use abi::vcpu::{VcpuState, reg};
use arbitrary::{Arbitrary, Unstructured};
use memory::{Fake, Memory};
use platform::lost::{Lost, LostAccess, Outcome};

const PAGE: u64 = 4096;
const PAGES: u64 = 16;
/// The page that is lost, and one that holds text.
const LOST: u64 = 9 * PAGE;
const TEXT: u64 = 5 * PAGE;
/// Where the kernel sees all of its RAM.
const DIRECT: u64 = 0xffff_8880_0000_0000;

/// One access.
#[derive(Arbitrary, Debug)]
enum Step {
    /// `rep stosb`
    Fill { offset: u16, count: u16, byte: u8 },
    /// `rep movsb` from the text, or from where there is nothing.
    Copy { offset: u16, from: u16, count: u16, user: bool },
    /// Whatever this is.
    Any { bytes: [u8; 15], registers: [u64; 16], cpl: u8, flags: u64, offset: u16, write: bool },
}

fn state() -> VcpuState {
    let mut state = VcpuState { cr3: PAGE, efer: 1 << 10, cr4: 1 << 21, ..VcpuState::ZERO };
    state.segments[1].attributes = 1 << 9;
    state
}

/// RAM whose second page maps all of it for the kernel, and for programs.
fn ram() -> Fake {
    let ram = Fake::new((PAGES * PAGE) as usize);
    for (at, entry) in [(PAGE, 2 * PAGE + 7), (PAGE + 8 * 273, 2 * PAGE + 7), (2 * PAGE, 0x87)] {
        let _ = ram.write(at, &entry.to_le_bytes());
    }
    let text: Vec<u8> = (0..PAGE).map(|n| (n % 253) as u8).collect();
    let _ = ram.write(TEXT, &text);
    ram
}

/// Pages become whole with what was written, when all was written, and never before.
pub fn target(bytes: &[u8]) {
    let (ram, mut lost, mut others) = (ram(), Lost::default(), Lost::default());
    let mut model = [None; PAGE as usize];
    let mut input = Unstructured::new(bytes);
    while !input.is_empty() {
        let Ok(step) = input.arbitrary::<Step>() else { return };
        let mut state = state();
        let (code, offset, written): (&[u8], u64, Vec<u8>) = match &step {
            Step::Fill { offset, count, byte } => {
                state.regs.r[reg::RAX] = (*byte).into();
                state.regs.r[reg::RCX] = (*count).into();
                (&[0xf3, 0xaa], u64::from(*offset) % PAGE, vec![*byte; (*count).into()])
            }
            Step::Copy { offset, from, count, user } => {
                let from = u64::from(*from) % PAGE;
                state.rflags |= u64::from(*user) << 18;
                state.regs.r[reg::RSI] = TEXT + from + if *user { 0 } else { DIRECT };
                state.regs.r[reg::RCX] = (*count).into();
                let text = (from..PAGE).map(|n| (n % 253) as u8).take((*count).into());
                (&[0xf3, 0xa4], u64::from(*offset) % PAGE, text.collect())
            }
            Step::Any { bytes, registers, cpl, flags, offset, write } => {
                state.regs.r = *registers;
                (state.cpl, state.rflags) = (u64::from(*cpl) & 3, *flags);
                let address = LOST + u64::from(*offset) % PAGE;
                let access = LostAccess { address, write: *write, walk: false };
                others.access(access, bytes, &mut state, &ram, |at| at / PAGE == LOST / PAGE);
                continue;
            }
        };
        state.regs.r[reg::RDI] = DIRECT + LOST + offset;
        let access = LostAccess { address: LOST + offset, write: true, walk: false };
        let outcome = lost.access(access, code, &mut state, &ram, |at| at / PAGE == LOST / PAGE);
        if written.is_empty() {
            // The processor would not have accessed anything.
            assert!(!matches!(outcome, Outcome::Done | Outcome::Whole(..)), "{outcome:?}");
            continue;
        }
        model.iter_mut().skip(offset as usize).zip(&written).for_each(|(m, w)| *m = Some(*w));
        let whole: Option<Vec<u8>> = model.iter().copied().collect();
        match (outcome, whole) {
            (Outcome::Done, None) => {}
            (Outcome::Whole(LOST, contents), Some(expected)) => {
                assert!(contents[..] == expected[..], "other bytes");
                model = [None; PAGE as usize];
            }
            (outcome, whole) => panic!("{outcome:?}, and all are there: {}", whole.is_some()),
        }
    }
}
