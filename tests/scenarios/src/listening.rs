//! A trusted web server in the compute VM is reached from this machine.
use crate::rig::{LIMIT, Rig, text};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use trapline::launch::Options;
use trapline::machine::Vm;
use trapline::machine::qemu::Forward;
use trapline::machine::session::{Kept, command};
use trapline::web;

/// The scenario.
pub fn run() -> Result<()> {
    let forward = Forward { host: 0, guest: 8000 }.resolve()?;
    let rig = Rig::boot_with(Options {
        trust: vec!["python3".into()],
        forwards: vec![forward],
        ..Options::default()
    })?;
    rig.succeed("mkdir /tmp/www && seq 1 20000 > /tmp/www/numbers")?;
    let argv = ["python3", "-m", "http.server", "8000", "--directory", "/tmp/www"];
    let mut session = rig.machine.exec(Vm::Compute, command(argv))?;
    session.close_stdin();
    let end = Instant::now() + LIMIT;
    let answer = loop {
        match web::get(forward.host, "/numbers") {
            Ok(answer) if !answer.is_empty() => break answer,
            _ => ensure!(Instant::now() < end, "the server can't be reached"),
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    let expected: String = (1..=20000).map(|number| format!("{number}\n")).collect();
    ensure!(answer.ends_with(expected.as_bytes()), "got {} bytes", answer.len());
    for _ in 0..5 {
        let answer = web::get(forward.host, "/none")?;
        ensure!(String::from_utf8_lossy(&answer).contains(" 404 "), "no 404");
    }
    session.signal(15);
    let status = session.wait(&rig.machine, &mut Kept::default(), Some(LIMIT))?;
    ensure!(status == Some(143), "the server did not end by SIGTERM: {status:?}");
    let outcome = rig.compute("true")?;
    ensure!(outcome.status == 0, "{}", text(&outcome));
    Ok(())
}
