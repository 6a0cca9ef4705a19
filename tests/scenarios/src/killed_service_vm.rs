//! The service VM is powered off in mid-transfer: errors at once, the compute VM goes on.
use crate::killed_delegate::{ends_badly, start_slow};
use crate::rig::{Rig, text};
use anyhow::{Result, ensure};
use hostlink::agent::ToGuest;
use trapline::machine::Vm;
use trapline::web::Server;

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(16 << 20)?;
    let rig = Rig::boot(&["curl"])?;
    let session = start_slow(&rig, &server)?;
    rig.machine.send(Vm::Service, &ToGuest::PowerOff)?;
    ends_badly(&rig, session)?;
    let outcome = rig.compute(&format!("curl -sS -m 20 {}", server.url()))?;
    ensure!(outcome.status != 0, "a download without service VM: {}", text(&outcome));
    ensure!(rig.succeed("echo alive")? == "alive\n", "the compute VM does not go on");
    Ok(())
}
