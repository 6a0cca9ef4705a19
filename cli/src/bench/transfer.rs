//! Transfers of 64 MiB as TTCP makes them, with and without a `select` before each call, and a
//! download by curl: trusted, against the same program in the service VM itself.
use super::Row;
use crate::cache::Cache;
use crate::launch::{self, Options};
use crate::machine::{Machine, Vm};
use crate::progress::Progress;
use crate::run::shower;
use crate::web::{self, Server};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of a transfer.
const BYTES: u64 = 64 << 20;
/// How long one gets.
const LIMIT: Duration = Duration::from_secs(600);
/// Transfers of each kind on the unlimited link; the best counts.
const ROUNDS: usize = 3;
/// The limited link, in bits and bytes per second.
const LINK_NAME: &str = "100 Mbit/s";
const LINK: u64 = 100_000_000 / 8;
/// What the peer moves between two looks at the clock.
const PIECE: usize = 16 << 10;
/// The program, as both VMs see it.
const PROGRAM: &str = "/run/trapline/bench";

/// What the program prints.
#[derive(Clone, Debug, Deserialize)]
struct Measured {
    calls: u64,
    nanoseconds: f64,
}

/// A kind of transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kind {
    way: &'static str,
    select: bool,
    limited: bool,
}

impl Kind {
    fn all() -> impl Iterator<Item = Self> {
        let ways = [("send", false), ("send", true), ("receive", false), ("receive", true)];
        [false, true].into_iter().flat_map(move |limited| {
            ways.into_iter().map(move |(way, select)| Self { way, select, limited })
        })
    }

    fn title(self) -> String {
        let select = if self.select { "select + " } else { "" };
        let link = if self.limited { LINK_NAME } else { "unlimited" };
        format!("{select}{}, 8 KiB, {link}", self.way)
    }
}

/// Measures everything on one machine.
///
/// # Errors
/// What can't be started, or a transfer that fails.
pub fn run(cache: &Cache, progress: &Progress) -> Result<Vec<Row>> {
    let options = Options { trust: vec![PROGRAM.into(), "curl".into()], ..Options::default() };
    let images = launch::prepare(cache, &[], progress)?;
    let machine = launch::boot(cache, &images, &options, progress, shower(progress, None))?;
    launch::wait_for_both(&machine, &options, progress)?;
    let ports = [serve(None)?, serve(Some(LINK))?];
    let mut rows = Vec::new();
    for kind in Kind::all() {
        let [free, limited] = ports;
        let port = if kind.limited { limited } else { free };
        let rounds = if kind.limited { 1 } else { ROUNDS };
        let (title, form) = (kind.title(), options.form.name());
        rows.extend(pair(&machine, &title, form, rounds, progress, |vm| {
            transfer(&machine, vm, kind, port)
        })?);
    }
    let server = Server::start(BYTES as usize)?;
    rows.extend(pair(&machine, "download by curl", options.form.name(), ROUNDS, progress, |vm| {
        let nanoseconds = download(&machine, vm, &server)?;
        Ok(Measured { calls: 0, nanoseconds })
    })?);
    Ok(rows)
}

/// Measures one thing in both VMs, in turn: the best of each counts.
fn pair(
    machine: &Machine,
    title: &str,
    form: &str,
    rounds: usize,
    progress: &Progress,
    measure: impl Fn(Vm) -> Result<Measured>,
) -> Result<[Row; 2]> {
    let better = |best: Option<Measured>, new: Measured| {
        Some(best.filter(|best| best.nanoseconds <= new.nanoseconds).unwrap_or(new))
    };
    let (mut direct, mut trusted, mut exits) = (None, None, 0);
    for round in 1..=rounds {
        progress.step(format!("{title}, {round} of {rounds}"));
        direct = better(direct, measure(Vm::Service)?);
        let before = machine.stats()?.exits_total;
        trusted = better(trusted, measure(Vm::Compute)?);
        exits += machine.stats()?.exits_total.saturating_sub(before);
    }
    let (Some(direct), Some(trusted)) = (direct, trusted) else { bail!("nothing was measured") };
    let row = |form: &str, measured: &Measured| Row {
        suite: "transfer",
        row: title.into(),
        title: format!("{:.1} MiB/s", BYTES as f64 / (1 << 20) as f64 / measured.nanoseconds * 1e9),
        form: form.into(),
        ratio: measured.nanoseconds / direct.nanoseconds,
        nanoseconds: measured.nanoseconds,
        operations: BYTES,
        ..Row::default()
    };
    // A download's calls are curl's own affair: its exits are told as a whole.
    let per_call = exits as f64 / rounds as f64 / trusted.calls.max(1) as f64;
    Ok([row("off", &direct), Row { exits: Some(per_call), ..row(form, &trusted) }])
}

fn transfer(machine: &Machine, vm: Vm, kind: Kind, port: u16) -> Result<Measured> {
    let (peer, bytes) = (format!("{}:{port}", web::HOST), BYTES.to_string());
    let program = match vm {
        Vm::Compute => "/run/trapline/bin/bench",
        Vm::Service => PROGRAM,
    };
    let mut argv = vec![program, kind.way, "--connect", &peer, "--bytes", &bytes];
    argv.extend(kind.select.then_some("--select"));
    let outcome = machine.run(vm, &argv, LIMIT)?;
    if outcome.status != 0 {
        let said = String::from_utf8_lossy(&outcome.stderr);
        bail!("{}: status {}: {}", kind.title(), outcome.status, said.trim());
    }
    serde_json::from_slice(&outcome.stdout).with_context(|| {
        format!("can't read the result '{}'", String::from_utf8_lossy(&outcome.stdout).trim())
    })
}

/// Nanoseconds that a download took, by curl's own clock.
fn download(machine: &Machine, vm: Vm, server: &Server) -> Result<f64> {
    let url = server.url();
    let argv = ["curl", "-sS", "-o", "/dev/null", "-w", "%{time_total} %{size_download}", &url];
    let outcome = machine.run(vm, &argv, LIMIT)?;
    if outcome.status != 0 {
        bail!("curl failed: {}", String::from_utf8_lossy(&outcome.stderr).trim());
    }
    let text = String::from_utf8_lossy(&outcome.stdout);
    let (seconds, size) = text.split_once(' ').context("curl printed no time")?;
    if size.trim().parse() != Ok(BYTES) {
        bail!("{size} of {BYTES} bytes arrived");
    }
    let seconds: f64 =
        seconds.replace(',', ".").parse().with_context(|| format!("curl's time '{seconds}'"))?;
    Ok(seconds * 1e9)
}

/// A peer for the transfers that takes and gives at most `rate` bytes a second. The limit is here,
/// not in the emulated link, so it holds for the data alone and for one connection.
fn serve(rate: Option<u64>) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a peer")?;
    let port = listener.local_addr()?.port();
    std::thread::Builder::new().name("peer".into()).spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that goes away says so itself.
            std::thread::spawn(move || drop(answer(client, rate)));
        }
    })?;
    Ok(port)
}

fn answer(mut client: TcpStream, rate: Option<u64>) -> std::io::Result<()> {
    let mut order = [0; 9];
    client.read_exact(&mut order)?;
    let [way, length @ ..] = order;
    let length = u64::from_le_bytes(length);
    let (mut piece, mut moved, start) = (vec![b'x'; PIECE], 0, Instant::now());
    while moved < length {
        let n = (length - moved).min(PIECE as u64) as usize;
        let n = match (way, piece.get_mut(..n)) {
            (b's', Some(piece)) => client.read(piece)?,
            (_, Some(piece)) => client.write(piece)?,
            (_, None) => 0,
        };
        if n == 0 {
            break;
        }
        moved += n as u64;
        if let Some(rate) = rate {
            let due = start + Duration::from_secs_f64(moved as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    if way == b's' { client.write_all(&moved.to_le_bytes()) } else { Ok(()) }
}
