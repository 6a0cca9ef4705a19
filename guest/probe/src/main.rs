//! Small cases whose observable results must be the same everywhere: on any Linux, in the service
//! VM, and trusted in the compute VM. `tests/scenarios/src/differential.rs` compares them.
//!
//! `trapline-probe peer` is the other side of the cases; it prints its port. `trapline-probe run
//! ADDRESS [FILTER]` runs the cases, each in a process of its own, one line `case/label: value` for
//! each result.
//!
//! To add a case: a function in one of the files below `cases/`, and a line in its list.
#![forbid(unsafe_code)]

mod cases;
mod peer;
mod probe;
mod value;

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long one case gets.
const LIMIT: Duration = Duration::from_secs(40);

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

/// All cases, each in a process of its own.
fn run(peer: &str, filter: &str) -> Result<()> {
    let own = std::env::current_exe().context("own path")?;
    let chosen = |name: &str| filter.split(',').any(|part| name.contains(part));
    for (name, _) in cases::all().filter(|(name, _)| chosen(name)) {
        let child = Command::new(&own)
            .args(["case", peer, name])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't start a case")?;
        let end = wait(child)?;
        println!("{name}/end: {end}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Passes the output on and says how the case ended.
fn wait(mut child: Child) -> Result<String> {
    let mut output = child.stdout.take().context("no output")?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        output.read_to_end(&mut text).map(|_| text)
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
    if let Ok(Ok(text)) = reader.join() {
        std::io::stdout().write_all(&text)?;
    }
    Ok(status)
}
