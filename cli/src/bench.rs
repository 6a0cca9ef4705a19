//! `trapline bench`: what things cost, as ratios inside one run, in exits, and in instructions.
mod grants;
pub mod kernel;
mod table1;
mod transfer;

use crate::cache::Cache;
use crate::progress::Progress;
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use std::io::Write;

/// A set of measurements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Suite {
    /// A loop of `select` calls over local and remote descriptors.
    Table1,
    /// Transfers of 64 MiB, with and without `select`, on a free and a limited link.
    Transfer,
    /// The first step of a remote socket, with and without verification of code.
    Grants,
    /// The kernel's own operations: calls, switches, faults, regions.
    Kernel,
}

/// Options of `trapline bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// What to measure
    suite: Suite,
    /// Print a list of JSON objects instead of a table
    #[arg(long)]
    json: bool,
    /// Leave instructions out, which need a second, slow run
    #[arg(long)]
    no_instructions: bool,
    /// Calls in each loop of `table1` at most; bench/table1.toml says how many there are
    #[arg(long, hide = true)]
    rounds: Option<u64>,
    /// Measure these rows of `table1` only, against the base
    #[arg(long, hide = true)]
    row: Vec<String>,
    /// Measure these forms of interception only, against the base
    #[arg(long, hide = true)]
    form: Vec<String>,
    /// Show what goes on
    #[arg(short, long)]
    verbose: bool,
}

/// One measurement.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Row {
    /// Set of measurements.
    pub suite: &'static str,
    /// What was measured: its short name.
    pub row: String,
    /// What that is.
    pub title: String,
    /// Form of interception.
    pub form: String,
    /// Time (of the kernel's operations: instructions) against the suite's base.
    pub ratio: f64,
    /// VM exits per operation.
    pub exits: Option<f64>,
    /// Instructions of the processor that carries the operation out, the hypervisor's included.
    pub instructions: Option<f64>,
    /// Nanoseconds per operation.
    pub nanoseconds: f64,
    /// Operations, or bytes.
    pub operations: u64,
    /// Nanoseconds that closing the descriptors took afterwards.
    pub close_nanoseconds: Option<f64>,
    /// Kernel entries per operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<f64>,
    /// Thread switches per operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switches: Option<f64>,
    /// Address-space switches per operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space_switches: Option<f64>,
    /// Faults that were sent to a manager, per operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<f64>,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Carries `trapline bench` out.
///
/// # Errors
/// What can't be started; a row that fails is reported in its place.
pub fn bench(arguments: &Arguments) -> Result<u8> {
    let progress = Progress::new(arguments.verbose);
    let cache = Cache::open()?;
    let rows = match arguments.suite {
        Suite::Table1 => {
            let selection = table1::Selection {
                rounds: arguments.rounds,
                rows: arguments.row.clone(),
                forms: arguments.form.clone(),
                count: !arguments.no_instructions,
            };
            table1::run(&cache, &selection, &progress)?
        }
        Suite::Transfer => transfer::run(&cache, &progress)?,
        Suite::Grants => grants::run(&cache, &progress)?,
        Suite::Kernel => kernel::run(&cache, &progress)?,
    };
    progress.done();
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
    } else if arguments.suite == Suite::Kernel {
        kernel::table(&rows, &mut out)?;
    } else {
        table(&rows, &mut out)?;
    }
    Ok(u8::from(rows.iter().any(|row| row.error.is_some())))
}

fn table(rows: &[Row], out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "{:<16} {:<33} {:<8} {:>8} {:>7} {:>12} {:>14} {:>9} {:>11}",
        "", "", "form", "ratio", "exits", "instructions", "time", "calls", "close"
    )?;
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
    for row in rows {
        if let Some(error) = &row.error {
            writeln!(out, "{:<16} {:<33} {:<8} {error}", row.row, row.title, row.form)?;
            continue;
        }
        writeln!(
            out,
            "{:<16} {:<33} {:<8} {:>8.2} {:>7} {:>12} {:>11.2} us {:>9} {:>8} ms",
            row.row,
            row.title,
            row.form,
            row.ratio,
            number(row.exits),
            number(row.instructions),
            row.nanoseconds / 1000.0,
            row.operations,
            number(row.close_nanoseconds.map(|n| n / 1e6)),
        )?;
    }
    Ok(())
}
