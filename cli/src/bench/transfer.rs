//! A download of 64 MiB: trusted, against the same program in the service VM itself.
use super::Row;
use crate::cache::Cache;
use crate::launch::{self, Options};
use crate::machine::{Machine, Vm};
use crate::progress::Progress;
use crate::run::shower;
use crate::web::Server;
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// Bytes of the file.
const FILE: usize = 64 << 20;
/// How long a download gets.
const LIMIT: Duration = Duration::from_secs(600);
/// Downloads of each kind; the best counts.
const ROUNDS: usize = 2;

/// Measures both.
///
/// # Errors
/// What can't be started, or a download that fails.
pub fn run(cache: &Cache, progress: &Progress) -> Result<Vec<Row>> {
    let server = Server::start(FILE)?;
    let options = Options { trust: vec!["curl".into()], ..Options::default() };
    let images = launch::prepare(cache, &[], progress)?;
    let machine = launch::boot(cache, &images, &options, progress, shower(progress, None))?;
    launch::wait_for_both(&machine, &options, progress)?;
    let best = |vm: Vm, title: &str| -> Result<f64> {
        let mut best = f64::INFINITY;
        for round in 1..=ROUNDS {
            progress.step(format!("{title}, {round} of {ROUNDS}"));
            best = best.min(download(&machine, vm, &server)?);
        }
        Ok(best)
    };
    let direct = best(Vm::Service, "download in the service VM")?;
    let before = machine.stats()?;
    let trusted = best(Vm::Compute, "download, trusted")?;
    let after = machine.stats()?;
    let row = |title: &str, form: &str, seconds: f64| Row {
        suite: "transfer",
        row: title.into(),
        form: form.into(),
        ratio: seconds / direct,
        nanoseconds: seconds * 1e9,
        operations: FILE as u64,
        ..Row::default()
    };
    let exits = after.exits_total.saturating_sub(before.exits_total) as f64 / ROUNDS as f64;
    let speed = |seconds: f64| FILE as f64 / f64::from(1 << 20) / seconds;
    progress.line(&format!(
        "{:.1} MiB/s in the service VM, {:.1} MiB/s trusted",
        speed(direct),
        speed(trusted)
    ));
    Ok(vec![
        row("64 MiB in the service VM", "off", direct),
        Row { exits: Some(exits), ..row("64 MiB, trusted", options.form.name(), trusted) },
    ])
}

/// Seconds that a download took, by curl's own clock.
fn download(machine: &Machine, vm: Vm, server: &Server) -> Result<f64> {
    let url = server.url();
    let argv = ["curl", "-sS", "-o", "/dev/null", "-w", "%{time_total} %{size_download}", &url];
    let outcome = machine.run(vm, &argv, LIMIT)?;
    if outcome.status != 0 {
        bail!("curl failed: {}", String::from_utf8_lossy(&outcome.stderr).trim());
    }
    let text = String::from_utf8_lossy(&outcome.stdout);
    let (seconds, size) = text.split_once(' ').context("curl printed no time")?;
    if size.trim().parse() != Ok(FILE) {
        bail!("{size} of {FILE} bytes arrived");
    }
    seconds.replace(',', ".").parse().with_context(|| format!("curl's time '{seconds}'"))
}
