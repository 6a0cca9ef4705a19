//! The dispatcher is killed: transfers fail, then it is started again and new sockets work.
use crate::killed_delegate::{DELEGATES, ends_badly, start_slow};
use crate::rig::{Rig, text};
use anyhow::{Result, ensure};
use std::time::Duration;
use trapline::web::Server;

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(16 << 20)?;
    let rig = Rig::boot(&["curl"])?;
    let session = start_slow(&rig, &server)?;
    // The first of them to go takes the others with it, so some may be gone already.
    let killed = rig.service(&format!("pkill -9 {DELEGATES}"))?;
    ensure!(killed.status == 0, "nothing to kill: {}", text(&killed));
    ends_badly(&rig, session)?;
    let url = server.url().replace("/file", "/small");
    rig.wait_until(&format!("curl -sS -m 20 {url}"), Duration::from_secs(60))
}
