//! Ten minutes of downloads by four trusted processes at once: no error, no leak.
use crate::four_at_once::download_four;
use crate::rig::Rig;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use trapline::web::Server;

/// How long it takes.
const TIME: Duration = Duration::from_secs(600);

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(2 << 20)?;
    let rig = Rig::boot(&["curl"])?;
    // The first round fills caches and pools.
    download_four(&rig, &server)?;
    let before = rig.wait_for_stats("processes remain", |stats| stats.processes == 0)?;
    let start = Instant::now();
    let mut rounds = 0u32;
    while start.elapsed() < TIME {
        for sum in download_four(&rig, &server)? {
            ensure!(sum == server.sha256(), "round {rounds}: another file arrived");
        }
        rounds += 1;
    }
    let after = rig.wait_for_stats("something is left", |stats| {
        stats.processes == before.processes
            && stats.delegates == before.delegates
            && stats.descriptors == before.descriptors
    })?;
    ensure!(after.kernel_objects == before.kernel_objects, "{before:?} {after:?}");
    let limit = before.heap + before.heap / 20 + (64 << 10);
    ensure!(after.heap <= limit, "the relay's heap grew from {} to {}", before.heap, after.heap);
    println!("{rounds} rounds, {} remote calls", after.calls_remote - before.calls_remote);
    Ok(())
}
