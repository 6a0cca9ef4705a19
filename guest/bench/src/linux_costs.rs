//! What Linux' own operations cost, for the rows beside Trapline's in `trapline bench kernel`: the
//! first program of a stock kernel on the bare emulated machine, which counts instructions. One line
//! a row, as the native program prints them; then the machine is switched off.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use guest_sys::hypercall::ticks;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::process::{Command, Stdio};

const PAGE: usize = 4096;
/// As an argument: be the other side of a pipe.
const ECHO: &str = "echo";
/// As an argument: do nothing.
const NOTHING: &str = "nothing";

/// Prints a row: name, form, instructions per operation in thousandths, and the operations.
fn report(name: &str, form: &str, counted: u64, operations: u64) {
    println!("row|{name}|{form}|{}|0|0|0|0|0|{operations}", counted * 1000 / operations);
}

/// Instructions of an operation that is carried out some times, after a few for warming up.
fn count(rounds: u64, mut operation: impl FnMut() -> Result<()>) -> Result<u64> {
    (0..rounds / 8 + 1).try_for_each(|_| operation())?;
    let start = ticks();
    (0..rounds).try_for_each(|_| operation())?;
    Ok(ticks() - start)
}

/// A row of its own.
fn measure(
    name: &str,
    form: &str,
    rounds: u64,
    operation: impl FnMut() -> Result<()>,
) -> Result<()> {
    count(rounds, operation).map(|counted| report(name, form, counted, rounds))
}

/// Answers each byte with one.
fn echo() -> Result<()> {
    let (mut input, mut output) = (std::io::stdin(), std::io::stdout());
    let mut byte = [0];
    while input.read(&mut byte)? == 1 {
        output.write_all(&byte)?;
        output.flush()?;
    }
    Ok(())
}

fn round(there: &mut PipeWriter, back: &mut PipeReader) -> Result<()> {
    there.write_all(b"x")?;
    back.read_exact(&mut [0]).context("the other process is gone")
}

/// A byte to another process and back: two switches of thread and address space. What the same four calls cost in one
/// process is no part of a switch (as in lmbench).
fn pipes(own: &str) -> Result<()> {
    let rounds = 500;
    let (input, mut there) = pipe()?;
    let (mut back, output) = pipe()?;
    let mut other = Command::new(own).arg(ECHO).stdin(input).stdout(output).spawn()?;
    let with = count(rounds, || round(&mut there, &mut back))?;
    drop(there);
    other.wait()?;
    let (mut input, mut output) = pipe()?;
    let calls = count(rounds, || (0..2).try_for_each(|_| round(&mut output, &mut input)))?;
    report("a byte to another process and back", "pipes", with, rounds);
    report("the same four calls in one process", "pipes", calls, rounds);
    report("context switch", "pipes", with.saturating_sub(calls), 2 * rounds);
    Ok(())
}

/// The first touch of pages that nobody has used.
fn faults() {
    let pages = 4096;
    let touch = |memory: &mut [u8]| {
        let start = ticks();
        memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = std::hint::black_box(1));
        ticks() - start
    };
    let mut memory = vec![0; pages * PAGE];
    // The second time they are there.
    let (first, second) = (touch(&mut memory), touch(&mut memory));
    std::hint::black_box(&memory);
    report("page fault, fresh zeroed page", "anonymous", first - second, pages as u64);
}

fn rows() -> Result<()> {
    let own = std::env::args().next().context("no name")?;
    measure("null call", "getppid", 1000, || {
        std::hint::black_box(nix::unistd::getppid());
        Ok(())
    })?;
    pipes(&own)?;
    measure("process creation, exec, exit, end", "fork", 20, || {
        let status = Command::new(&own).arg(NOTHING).stdin(Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "a child failed");
        Ok(())
    })?;
    faults();
    Ok(())
}

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some(ECHO) => return echo(),
        Some(NOTHING) => return Ok(()),
        _ => {}
    }
    if let Err(error) = rows() {
        println!("FAILED {error:#}");
    }
    nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT)?;
    Ok(())
}
