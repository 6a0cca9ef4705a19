//! The measured program of `trapline bench table1` and `transfer`: a loop of `select` calls, or a
//! transfer of bytes, one row of the table a run, and one line of JSON as its result.
//!
//! The peer of a remote row of `table1` is a TCP server that answers every byte `d` with one byte and
//! says nothing else.
#![forbid(unsafe_code)]

mod row;
mod ttcp;

use anyhow::{Context, Result, bail};
use clap::Parser;
use row::{Row, Sockets};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use ttcp::{Transfer, Way};

/// One row of the table of `select` costs.
#[derive(Parser)]
struct Arguments {
    /// Which descriptors: base, untrusted, local, local-high, local+[remote], remote,
    /// [local]+remote, remote-echo, hold; send, receive; or switch, which only chooses the form.
    row: String,
    /// Calls in the loop.
    #[arg(long, default_value_t = 100_000)]
    rounds: u64,
    /// Switch to this interception form first: off, watched, paper, stub.
    #[arg(long)]
    form: Option<String>,
    /// Peer of the remote rows.
    #[arg(long)]
    connect: Option<SocketAddr>,
    /// Bytes of a transfer.
    #[arg(long, default_value_t = 64 << 20)]
    bytes: u64,
    /// A `select` before each read or write of a transfer.
    #[arg(long)]
    select: bool,
    /// Look at the time-stamp counter after each round of the table.
    #[arg(long)]
    count: bool,
}

/// How long the other VM gets to come to rest before anything is measured.
const QUIET: Duration = Duration::from_millis(20);

fn switch(name: &str) -> Result<()> {
    use wire::hypercall::Form;
    let Some(form) = Form::from_name(name) else { bail!("unknown interception form '{name}'") };
    let answer = guest_sys::hypercall::call(wire::hypercall::BENCH, [form as u64, 0, 0]);
    if answer < 0 {
        bail!("the hypervisor refuses to switch to '{name}' (error {})", -answer);
    }
    Ok(())
}

/// Exits of this vCPU so far; zero where the hypervisor does not say.
fn exits() -> u64 {
    u64::try_from(guest_sys::hypercall::call(wire::hypercall::EXITS, [0; 3])).unwrap_or(0)
}

/// The time-stamp counter; under deterministic instruction counting one tick an instruction.
fn ticks() -> u64 {
    guest_sys::hypercall::ticks()
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(way) = Way::from_name(&arguments.row) {
        return transfer(way, &arguments);
    }
    table_row(&arguments)
}

/// Exits are not counted here: in the service VM nobody tells them.
fn transfer(way: Way, arguments: &Arguments) -> Result<()> {
    let mut transfer = Transfer::open(way, arguments.connect, arguments.bytes, arguments.select)?;
    let start = Instant::now();
    let calls = transfer.run()?;
    let time = start.elapsed().as_nanos();
    println!(
        "{{\"row\":\"{}\",\"bytes\":{},\"calls\":{calls},\"nanoseconds\":{time}}}",
        arguments.row, arguments.bytes
    );
    Ok(())
}

/// The ticks that a round takes: the median. A machine that counts instructions runs one of its
/// processors at a time, for many rounds, and the counter goes on for all of them; so a round in which
/// others had their turn, or a timer's interrupt came, stands out, and most rounds are this one's alone.
fn counted(sockets: &mut Sockets, rounds: u64) -> Result<u64> {
    let mut taken = Vec::with_capacity(usize::try_from(rounds)?);
    for _ in 0..rounds {
        let before = ticks();
        sockets.round()?;
        taken.push(ticks() - before);
    }
    taken.sort_unstable();
    Ok(taken.get(taken.len() / 2).copied().unwrap_or(0))
}

fn table_row(arguments: &Arguments) -> Result<()> {
    if let Some(form) = &arguments.form {
        switch(form)?;
    }
    if arguments.row == "switch" {
        return Ok(());
    }
    let row = Row::from_name(&arguments.row)
        .with_context(|| format!("unknown row '{}'", arguments.row))?;
    let mut sockets = Sockets::open(row, arguments.connect)?;
    if row == Row::Hold {
        println!("{{\"row\":\"hold\"}}");
        return sockets.hold();
    }
    // A few rounds first, so that every page and cache is warm.
    (0..16).try_for_each(|_| sockets.round())?;
    // Workers in the other VM look for more for a while, and would be counted.
    std::thread::sleep(QUIET);
    let (exits_before, start) = (exits(), Instant::now());
    let ticks = if arguments.count {
        counted(&mut sockets, arguments.rounds)?
    } else {
        (0..arguments.rounds).try_for_each(|_| sockets.round())?;
        0
    };
    let (time, exits) = (start.elapsed(), exits() - exits_before);
    let start = Instant::now();
    drop(sockets);
    println!(
        "{{\"row\":\"{}\",\"rounds\":{},\"nanoseconds\":{},\"ticks\":{ticks},\"exits\":{exits},\
         \"close_nanoseconds\":{}}}",
        arguments.row,
        arguments.rounds,
        time.as_nanos(),
        start.elapsed().as_nanos()
    );
    Ok(())
}
