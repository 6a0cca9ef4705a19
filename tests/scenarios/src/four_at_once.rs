//! Four trusted processes download at once; afterwards everything is as before.
use crate::rig::{LIMIT, Rig, text};
use anyhow::{Result, ensure};
use trapline::machine::Vm;
use trapline::web::Server;

/// Bytes of the file.
const FILE: usize = 4 << 20;

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(FILE)?;
    let rig = Rig::boot(&["curl"])?;
    let before = rig.machine.stats()?;
    let sums = download_four(&rig, &server)?;
    for sum in sums {
        ensure!(sum == server.sha256(), "another file arrived: {sum}");
    }
    let after = rig.wait_for_stats("something is left", |stats| {
        stats.processes == before.processes
            && stats.delegates == before.delegates
            && stats.descriptors == before.descriptors
            && stats.in_service == 0
    })?;
    ensure!(after.processes_total >= before.processes_total + 4, "{after:?}");
    Ok(())
}

/// Four downloads at the same time; the checksums of what arrived.
pub fn download_four(rig: &Rig, server: &Server) -> Result<Vec<String>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn(move || {
                    let script = format!(
                        "curl -sS -o /tmp/four{number} {} && sha256sum /tmp/four{number}",
                        server.url()
                    );
                    let argv = ["sh", "-c", &script];
                    let outcome = rig.machine.run(Vm::Compute, &argv, LIMIT * 2)?;
                    ensure!(outcome.status == 0, "download {number}: {}", text(&outcome));
                    let line = String::from_utf8_lossy(&outcome.stdout);
                    Ok(line.split(' ').next().unwrap_or_default().to_owned())
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|result| result.unwrap_or_else(|_| anyhow::bail!("a thread panicked"))).collect()
    })
}
