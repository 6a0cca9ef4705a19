//! What a grant costs with the verification of code: `connect` of a datagram socket by a trusted program,
//! with little and with much memory in use, against the same program unverified.
use super::Row;
use crate::cache::Cache;
use crate::launch::{self, Options};
use crate::machine::Vm;
use crate::progress::Progress;
use crate::run::shower;
use crate::web::HOST;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);
/// Grants of each kind.
const ROUNDS: u32 = 300;
/// Touched memory besides what the interpreter has, in MiB.
const HEAPS: [u32; 2] = [0, 128];

/// One program under two names.
const POLICY: &str = "[[program]]\npath = \"/usr/bin/python3\"\nconnect = [{}]\n\
                      [[program]]\npath = \"/usr/bin/python3.11\"\nverify = false\nconnect = [{}]\n";

/// Prints medians; the kernel counts page tables in KiB.
const PROGRAM: &str = "import json, socket, time\n\
    heap = bytearray(HEAP << 20)\n\
    heap[::4096] = b'x' * (HEAP << 8)\n\
    times = []\n\
    for n in range(ROUNDS + 1):\n    \
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:\n        \
            before = time.perf_counter_ns()\n        \
            s.connect(('HOST', 9))\n        \
            times.append(time.perf_counter_ns() - before)\n\
    status = dict(line.split(':') for line in open('/proc/self/status'))\n\
    print(json.dumps({'first': times[0], 'median': sorted(times[1:])[ROUNDS // 2],\n    \
        'least': min(times), 'tables': int(status['VmPTE'].split()[0]) // 4}))\n";

/// What the program prints.
#[derive(Clone, Debug, Deserialize)]
struct Measured {
    /// Nanoseconds.
    first: u64,
    median: u64,
    least: u64,
    tables: u64,
}

/// Measures everything on one machine.
///
/// # Errors
/// What can't be started, or a program that fails.
pub fn run(cache: &Cache, progress: &Progress) -> Result<Vec<Row>> {
    let folder = cache.scratch("policy")?;
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, POLICY).context("can't write a policy")?;
    let options = Options { policy: Some(policy), ..Options::default() };
    let images = launch::prepare(cache, &[], progress)?;
    let machine = launch::boot(cache, &images, &options, progress, shower(progress, None))?;
    launch::wait_for_both(&machine, &options, progress)?;
    let mut rows: Vec<Row> = Vec::new();
    for heap in HEAPS {
        let program = PROGRAM
            .replace("HEAP", &heap.to_string())
            .replace("ROUNDS", &ROUNDS.to_string())
            .replace("HOST", HOST);
        for (name, verified) in [("python3.11", false), ("python3", true)] {
            progress.step(format!("{name}, {heap} MiB"));
            let outcome = machine.run(Vm::Compute, &[name, "-c", &program], LIMIT)?;
            if outcome.status != 0 {
                bail!("{name}: {}", String::from_utf8_lossy(&outcome.stderr).trim());
            }
            let Measured { first, median, least, tables } = serde_json::from_slice(&outcome.stdout)
                .with_context(|| format!("{name} printed no measurement"))?;
            let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
            let base = rows.first().map_or(median as f64, |row| row.nanoseconds);
            let what = if verified { "verified" } else { "unverified" };
            rows.push(Row {
                suite: "grants",
                row: format!("{what}-{heap}"),
                title: format!(
                    "{tables} tables; first {:.0}, least {:.1} ms",
                    ms(first),
                    ms(least)
                ),
                form: options.form.name().to_owned(),
                ratio: median as f64 / base,
                nanoseconds: median as f64,
                operations: ROUNDS.into(),
                ..Row::default()
            });
        }
    }
    Ok(rows)
}
