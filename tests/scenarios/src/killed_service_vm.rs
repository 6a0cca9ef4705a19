//! The service VM is powered off in mid-transfer: errors at once, the compute VM goes on; the service VM
//! starts again, and new sockets work.
use crate::killed_delegate::{ends_badly, start_slow};
use crate::rig::Rig;
use anyhow::{Result, ensure};
use hostlink::agent::ToGuest;
use std::time::Duration;
use trapline::machine::Vm;
use trapline::web::Server;

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(16 << 20)?;
    let rig = Rig::boot(&["curl"])?;
    let session = start_slow(&rig, &server)?;
    rig.machine.send(Vm::Service, &ToGuest::PowerOff)?;
    ends_badly(&rig, session)?;
    goes_on(&rig, &server)
}

/// The compute VM goes on, and new sockets work as soon as the service VM runs again.
pub fn goes_on(rig: &Rig, server: &Server) -> Result<()> {
    ensure!(rig.succeed("echo alive")? == "alive\n", "the compute VM does not go on");
    let url = server.url();
    let small = url.replace("/file", "/small");
    rig.wait_until(&format!("curl -sS -m 20 {small}"), Duration::from_secs(120))?;
    let sum = rig.succeed(&format!("curl -sS -m 60 {url} | sha256sum | cut -c-64"))?;
    ensure!(sum.trim() == server.sha256(), "after the restart another file arrived: {sum}");
    Ok(())
}
