//! Roles about stacks.
use crate::Outcome;
use crate::board::{self, Word};
use alloc::format;
use core::hint::black_box;

/// Bytes of a stack frame here, at least.
const FRAME: usize = 1000;

/// Fills `depth` frames, and returns the sum of what it finds in them on its way back.
#[inline(never)]
fn descend(depth: u64) -> u64 {
    let mut frame = [0u8; FRAME];
    black_box(&mut frame).fill(depth as u8);
    let below = if depth == 0 { 0 } else { descend(depth - 1) };
    let intact = black_box(&frame).iter().all(|byte| *byte == depth as u8);
    below + u64::from(intact)
}

/// Uses most of a stack, several times.
pub fn deep() -> Outcome {
    for depth in [5, 200, 3, 200] {
        let intact = descend(depth);
        if intact != depth + 1 {
            return Err(format!("{intact} of {} frames are what they were", depth + 1));
        }
    }
    board::set(Word::Deep, 1);
    Ok(())
}

/// Uses more than the stack.
pub fn overflow() -> Outcome {
    board::set(Word::Overflow, 1);
    Err(format!("{} frames on a stack of 64 KiB", descend(10_000)))
}

/// May have less than it declares.
pub fn greedy() -> Outcome {
    Err(format!("{} frames without any memory for a stack", descend(1)))
}
