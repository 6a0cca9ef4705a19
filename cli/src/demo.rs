//! `trapline demo`: the main job, end to end.
use crate::cache::Cache;
use crate::launch::{self, Options};
use crate::machine::session::Outcome;
use crate::machine::{Machine, Vm};
use crate::progress::Progress;
use crate::run::shower;
use crate::web::Server;
use anyhow::{Result, bail};
use hostlink::relay::Stats;
use std::time::{Duration, Instant};

/// Bytes of the file.
const FILE: usize = 8 << 20;
/// How long a command gets.
const LIMIT: Duration = Duration::from_secs(180);

/// What the demonstration found out.
pub struct Account {
    /// Counters of the relay, after everything.
    pub stats: Stats,
    /// Time from power-on to the first command.
    pub boot: Duration,
    /// Time of the download.
    pub download: Duration,
}

/// Carries `trapline demo` out.
///
/// # Errors
/// What did not hold.
pub fn demo(verbose: bool) -> Result<u8> {
    let progress = Progress::new(verbose);
    let start = Instant::now();
    let account = perform(&Cache::open()?, verbose, &progress)?;
    progress.done();
    print(&account, start.elapsed());
    Ok(0)
}

/// The demonstration itself.
///
/// # Errors
/// What did not hold.
pub fn perform(cache: &Cache, verbose: bool, progress: &Progress) -> Result<Account> {
    let server = Server::start(FILE)?;
    let options = Options { trust: vec!["curl".into()], verbose, ..Options::default() };
    let images = launch::prepare(cache, &[], progress)?;
    let machine = launch::boot(cache, &images, &options, progress, shower(progress, None))?;
    launch::wait_for_both(&machine, &options, progress)?;
    let boot = machine.age();
    no_network_device(&machine)?;

    progress.step("trusted curl: downloading through the service VM");
    let begin = Instant::now();
    download(&machine, &server)?;
    let download = begin.elapsed();
    let seen = server.connections();
    if seen == 0 {
        bail!("the file arrived, but the web server saw no connection");
    }

    progress.step("the same curl, not trusted");
    refused(&machine, &server, seen)?;
    Ok(Account { stats: machine.stats()?, boot, download })
}

fn no_network_device(machine: &Machine) -> Result<()> {
    let outcome = machine.run(Vm::Compute, &["ls", "/sys/class/net"], LIMIT)?;
    let names = String::from_utf8_lossy(&outcome.stdout);
    if outcome.status != 0 || names.split_whitespace().any(|name| name != "lo") {
        bail!("the compute VM has network devices: {}", names.trim());
    }
    Ok(())
}

/// Downloads the file with trusted curl and compares checksums.
///
/// # Errors
/// The download failed, or something else arrived.
pub fn download(machine: &Machine, server: &Server) -> Result<()> {
    let url = server.url();
    let outcome = machine.run(Vm::Compute, &["curl", "-sS", "-o", "/tmp/download", &url], LIMIT)?;
    if outcome.status != 0 {
        bail!("trusted curl failed with status {}: {}", outcome.status, said(&outcome));
    }
    let sum = machine.run(Vm::Compute, &["sha256sum", "/tmp/download"], LIMIT)?;
    let arrived = String::from_utf8_lossy(&sum.stdout);
    if arrived.split(' ').next() != Some(server.sha256().as_str()) {
        bail!("the checksums differ: {} sent, {} arrived", server.sha256(), arrived.trim());
    }
    Ok(())
}

/// Neither a copy of curl under a name that nobody trusts, nor curl that was not started as
/// trusted, may get anywhere.
fn refused(machine: &Machine, server: &Server, seen: usize) -> Result<()> {
    let copy = machine.run(Vm::Compute, &["cp", "/usr/bin/curl", "/tmp/curl"], LIMIT)?;
    if copy.status != 0 {
        bail!("can't copy curl: {}", said(&copy));
    }
    for program in ["/tmp/curl", "/usr/bin/curl"] {
        let url = server.url();
        // `env` keeps the launcher of trusted programs out of the way.
        let argv = ["env", program, "-sS", "--max-time", "20", &url];
        let outcome = machine.run(Vm::Compute, &argv, LIMIT)?;
        if outcome.status == 0 {
            bail!("untrusted {program} got through");
        }
        if server.connections() != seen {
            bail!("the web server saw a connection of untrusted {program}");
        }
    }
    Ok(())
}

fn said(outcome: &Outcome) -> String {
    String::from_utf8_lossy(&outcome.stderr).trim().to_owned()
}

fn print(account: &Account, total: Duration) {
    let stats = &account.stats;
    let seconds = |time: Duration| time.as_secs_f64();
    let speed = FILE as f64 / f64::from(1 << 20) / seconds(account.download).max(0.001);
    println!("trusted curl    {} MiB arrived, checksums equal, {speed:.1} MiB/s", FILE >> 20);
    println!("untrusted curl  got nowhere; the web server saw no connection of it");
    println!(
        "calls           {} local, {} remote, {} both, {} refused",
        stats.calls_local, stats.calls_remote, stats.calls_both, stats.calls_refused
    );
    println!("bytes           {} received, {} sent remotely", stats.bytes_in, stats.bytes_out);
    println!(
        "time            {:.1} s power-on to first command, {:.1} s download, {:.1} s in all",
        seconds(account.boot),
        seconds(account.download),
        seconds(total)
    );
}
