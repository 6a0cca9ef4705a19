//! Table 1: the rows are data, see `bench/table1.toml`.
use super::Row;
use crate::cache::Cache;
use crate::launch::{self, Images, Options};
use crate::machine::{Machine, Vm};
use crate::progress::Progress;
use crate::run::shower;
use crate::web;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// The program, as the compute VM sees it.
const PROGRAM: &str = "/run/trapline/bench";
/// Runs a command while a trusted program holds a connection to `$1`.
const BESIDE: &str = "peer=$1; shift; rm -f /tmp/hold.*; mkfifo /tmp/hold.in || exit 1
    /run/trapline/bin/bench hold --connect \"$peer\" </tmp/hold.in >/tmp/hold.out &
    exec 3>/tmp/hold.in
    until [ -s /tmp/hold.out ]; do kill -0 $! || exit 1; sleep 0.1; done
    \"$@\"; status=$?
    exec 3>&-; wait; exit $status";
/// How long one row gets.
const LIMIT: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    rows: Vec<Plan>,
}

/// A row to be measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    row: String,
    title: String,
    forms: Vec<String>,
    trusted: bool,
    #[serde(default)]
    remote: bool,
    rounds: u64,
    counted_rounds: u64,
}

/// What the program prints.
#[derive(Clone, Debug, Deserialize)]
struct Measured {
    rounds: u64,
    nanoseconds: f64,
    /// Of one round, where instructions are counted.
    ticks: f64,
    exits: f64,
    close_nanoseconds: f64,
}

/// What is to be measured.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Calls in each loop, instead of what the table says.
    pub rounds: Option<u64>,
    /// Only these rows, if any are named, and the base.
    pub rows: Vec<String>,
    /// Only these forms, if any are named, and the base.
    pub forms: Vec<String>,
    /// Once more on a machine that counts instructions.
    pub count: bool,
}

impl Selection {
    fn apply(&self, table: &mut Table) {
        let wanted = |names: &[String], name: &String| names.is_empty() || names.contains(name);
        let base = table.rows.first().map(|plan| plan.row.clone());
        table.rows.retain(|plan| wanted(&self.rows, &plan.row) || base.as_ref() == Some(&plan.row));
        for plan in &mut table.rows {
            if base.as_ref() != Some(&plan.row) {
                plan.forms.retain(|form| wanted(&self.forms, form));
            }
            plan.rounds = plan.rounds.min(self.rounds.unwrap_or(u64::MAX));
        }
    }
}

/// Measures the rows.
///
/// # Errors
/// What can't be started.
pub fn run(cache: &Cache, selection: &Selection, progress: &Progress) -> Result<Vec<Row>> {
    let images = launch::prepare(cache, &[], progress)?;
    let text = std::fs::read_to_string(images.repository.path("bench/table1.toml"))?;
    let mut table: Table = toml::from_str(&text).context("bench/table1.toml")?;
    selection.apply(&mut table);
    let timed = pass(cache, &images, &table, false, progress)?;
    let count = selection.count;
    let counted = if count { pass(cache, &images, &table, true, progress)? } else { Vec::new() };
    Ok(combine(&timed, &counted))
}

type Pass = Vec<(Plan, String, Result<Measured>)>;

/// Measures each row in each form on one machine.
fn pass(
    cache: &Cache,
    images: &Images,
    table: &Table,
    count: bool,
    progress: &Progress,
) -> Result<Pass> {
    let options = Options {
        trust: vec![PROGRAM.into()],
        bench: true,
        count_instructions: count,
        ..Options::default()
    };
    let port = serve()?;
    let machine = launch::boot(cache, images, &options, progress, shower(progress, None))?;
    launch::wait_for_both(&machine, &options, progress)?;
    let mut results = Vec::new();
    for plan in &table.rows {
        for form in &plan.forms {
            let what = if count { "counting instructions" } else { "measuring" };
            progress.step(format!("{what}: {}, {form}", plan.title));
            let rounds = if count { plan.counted_rounds } else { plan.rounds };
            if rounds == 0 {
                results.push((plan.clone(), form.clone(), Err(anyhow!("not measured"))));
                continue;
            }
            let measured = row(&machine, plan, form, rounds, count, port);
            results.push((plan.clone(), form.clone(), measured));
        }
    }
    Ok(results)
}

fn row(
    machine: &Machine,
    plan: &Plan,
    form: &str,
    rounds: u64,
    count: bool,
    port: u16,
) -> Result<Measured> {
    // Before anything asks to be trusted: with interception off, nothing would be.
    let switched = machine.run(Vm::Compute, &["env", PROGRAM, "switch", "--form", form], LIMIT)?;
    if switched.status != 0 {
        bail!("the form can't be chosen: {}", String::from_utf8_lossy(&switched.stderr).trim());
    }
    let mut argv: Vec<String> = Vec::new();
    if plan.trusted {
        argv.push("/run/trapline/bin/bench".into());
    } else {
        // `env` keeps the launcher of trusted programs out of the way.
        argv.extend(["env".into(), PROGRAM.into()]);
    }
    argv.extend([plan.row.clone(), "--rounds".into(), rounds.to_string()]);
    argv.extend(count.then(|| "--count".into()));
    let peer = format!("{}:{port}", web::HOST);
    if plan.remote && plan.trusted {
        argv.extend(["--connect".into(), peer]);
    } else if plan.remote {
        argv.splice(0..0, ["sh", "-c", BESIDE, "sh", &peer].map(String::from));
    }
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let outcome = machine.run(Vm::Compute, &argv, LIMIT)?;
    if outcome.status != 0 {
        let said = String::from_utf8_lossy(&outcome.stderr);
        bail!("status {}: {}", outcome.status, said.trim());
    }
    serde_json::from_slice(&outcome.stdout).with_context(|| {
        format!("can't read the result '{}'", String::from_utf8_lossy(&outcome.stdout).trim())
    })
}

/// A server that answers every byte with one byte.
fn serve() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a server")?;
    let port = listener.local_addr()?.port();
    std::thread::Builder::new().name("echo".into()).spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while client.read_exact(&mut byte).is_ok() && client.write_all(&byte).is_ok() {}
            });
        }
    })?;
    Ok(port)
}

fn combine(timed: &Pass, counted: &Pass) -> Vec<Row> {
    let per_round = |m: &Measured, value: f64| value / m.rounds.max(1) as f64;
    let base = timed.first().and_then(|(_, _, m)| m.as_ref().ok());
    let base = base.map_or(f64::NAN, |m| per_round(m, m.nanoseconds));
    let instructions = |number: usize| {
        let (_, _, measured) = counted.get(number)?;
        measured.as_ref().ok().map(|m| m.ticks)
    };
    let rows = timed.iter().enumerate().map(|(number, (plan, form, measured))| {
        let mut row = Row {
            suite: "table1",
            row: plan.row.clone(),
            title: plan.title.clone(),
            form: form.clone(),
            instructions: instructions(number),
            ..Row::default()
        };
        match measured {
            Ok(m) => {
                row.nanoseconds = per_round(m, m.nanoseconds);
                row.ratio = row.nanoseconds / base;
                row.exits = Some(per_round(m, m.exits));
                row.operations = m.rounds;
                row.close_nanoseconds = Some(m.close_nanoseconds);
            }
            Err(error) => row.error = Some(format!("{error:#}")),
        }
        row
    });
    rows.collect()
}
