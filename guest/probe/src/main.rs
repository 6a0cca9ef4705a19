//! Small cases whose observable results must be the same everywhere: on any Linux, in the service
//! VM, and trusted in the compute VM. `tests/scenarios/src/differential.rs` compares them.
//!
//! `trapline-probe peer` is the other side of the cases; it prints its port. `trapline-probe run
//! ADDRESS [FILTER]` runs the cases, some at a time, each in a process of its own, one line `case/label: value` for
//! each result.
//!
//! To add a case: a function in one of the files below `cases/`, and a line in its list.
#![forbid(unsafe_code)]

mod cases;
mod peer;
mod probe;
mod value;

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one case gets.
const LIMIT: Duration = Duration::from_secs(40);
/// How long its children get after its end.
const LEFT: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["peer", address] => peer::serve(address.parse().context("address")?),
        ["list"] => {
            cases::all().for_each(|(name, _)| println!("{name}"));
            Ok(())
        }
        ["run", peer] => run(peer, ""),
        ["run", peer, filter] => run(peer, filter),
        ["case", peer, name] => case(peer.parse().context("address of the peer")?, name),
        ["descriptor", number] => probe::after_exec(number),
        _ => {
            bail!("usage: trapline-probe peer ADDRESS | list | run PEER [FILTER] | case PEER NAME")
        }
    }
}

/// One case, in this process.
fn case(peer: SocketAddr, name: &str) -> Result<()> {
    let (_, body) = cases::all().find(|(known, _)| *known == name).context("no such case")?;
    let mut probe = probe::Probe::new(name, peer)?;
    body(&mut probe);
    Ok(())
}

/// Cases that run at the same time: most of them wait most of the time.
const TOGETHER: usize = 16;

/// All cases, each in a process of its own; results come in the order of the list.
fn run(peer: &str, filter: &str) -> Result<()> {
    let chosen = |name: &str| filter.split(',').any(|part| name.contains(part));
    let names: Vec<_> = cases::all().map(|(name, _)| *name).filter(|name| chosen(name)).collect();
    let next = AtomicUsize::new(0);
    let (results, done) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..TOGETHER {
            let (results, names, next) = (results.clone(), &names, &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(name) = names.get(number) else { break };
                    // Nobody receives any more: an earlier case could not be run.
                    let Ok(()) = results.send((number, run_one(peer, name))) else { break };
                }
            });
        }
        drop(results);
        print_in_order(done)
    })
}

fn print_in_order(results: Receiver<(usize, Result<String>)>) -> Result<()> {
    let (mut early, mut next) = (BTreeMap::new(), 0);
    for (number, result) in results {
        early.insert(number, result?);
        while let Some(text) = early.remove(&next) {
            std::io::stdout().write_all(text.as_bytes())?;
            std::io::stdout().flush()?;
            next += 1;
        }
    }
    Ok(())
}

/// One case in a process of its own: its output, and how it ended.
fn run_one(peer: &str, name: &str) -> Result<String> {
    let own = std::env::current_exe().context("own path")?;
    let mut child = Command::new(&own)
        .args(["case", peer, name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("can't start a case")?;
    let mut output = child.stdout.take().context("no output")?;
    let text = Arc::new(Mutex::new(Vec::new()));
    let (ended, end_of_output) = std::sync::mpsc::channel();
    let seen = text.clone();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut piece) {
            let mut text = seen.lock().unwrap_or_else(PoisonError::into_inner);
            text.extend(piece.get(..length).unwrap_or_default());
        }
        // Nobody listens any more: it took too long.
        let _ = ended.send(());
    });
    let end = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status.to_string(),
            None if Instant::now() > end => {
                child.kill()?;
                child.wait()?;
                break "out of time".to_owned();
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    // A child that the case has left behind has its output open, too.
    let left = end_of_output.recv_timeout(LEFT).is_err();
    let status = if left { format!("{status}, and a child is left") } else { status };
    let text = std::mem::take(&mut *text.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(format!("{}{name}/end: {status}\n", String::from_utf8_lossy(&text)))
}
