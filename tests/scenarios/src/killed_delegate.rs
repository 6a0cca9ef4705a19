//! A delegate is killed in mid-transfer: its process gets an error at once, all else goes on.
use crate::rig::{LIMIT, Rig, text};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use trapline::machine::Vm;
use trapline::machine::session::{Kept, command};
use trapline::web::Server;

/// The dispatcher and the delegates, for `pgrep` and `pkill`; the dispatcher is the oldest.
pub const DELEGATES: &str = "-f ^/run/trapline/delegate";

/// Starts a slow download; returns once it is under way.
pub fn start_slow(rig: &Rig, server: &Server) -> Result<trapline::machine::session::Session> {
    let url = server.url().replace("/file", "/slow");
    let argv = ["curl", "-sS", "-o", "/tmp/slow", &url];
    let session = rig.machine.exec(Vm::Compute, command(argv))?;
    session.close_stdin();
    rig.wait_until("test -s /tmp/slow", Duration::from_secs(60))?;
    Ok(session)
}

/// The download must end soon, and not well.
pub fn ends_badly(rig: &Rig, mut session: trapline::machine::session::Session) -> Result<()> {
    let mut kept = Kept::default();
    let limit = Duration::from_secs(30);
    let status = session.wait(&rig.machine, &mut kept, Some(limit))?;
    let status = status.context("the transfer hangs")?;
    ensure!(status != 0, "the transfer went on");
    Ok(())
}

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(16 << 20)?;
    let rig = Rig::boot(&["curl"])?;
    let session = start_slow(&rig, &server)?;
    let killed = rig.service(&format!("kill -9 $(pgrep {DELEGATES} | tail -n 1)"))?;
    ensure!(killed.status == 0, "no delegate to kill: {}", text(&killed));
    ends_badly(&rig, session)?;
    let url = server.url().replace("/file", "/small");
    let answer = rig.succeed(&format!("curl -sS -m 60 {url}"))?;
    ensure!(answer == "ok\n", "a new process: {answer}");
    rig.machine.run(Vm::Compute, &["true"], LIMIT)?;
    Ok(())
}
