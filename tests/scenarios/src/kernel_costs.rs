//! What the kernel's operations may cost, in instructions, kernel entries and thread switches. All
//! are counted, so that they are the same on every host. As `trapline bench kernel --json` tells it.
use crate::rig::{LIMIT, trapline, within};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// At most: instructions, kernel entries, thread switches.
type Limits = (f64, f64, f64);

/// Row and form, and its limits.
const LIMITS: &[(&str, &str, Limits)] = &[
    ("null call", "direct", (60.0, 1.0, 0.0)),
    ("portal call and reply", "two spaces", (350.0, 2.0, 2.0)),
    ("page fault, manager has the page", "direct", (900.0, 2.0, 2.0)),
    ("page fault, served from the window", "window", (300.0, 1.0, 0.0)),
    ("page fault, fresh zeroed page", "direct", (1500.0, 2.0, 2.0)),
    ("bind a region among 1 000", "pinned", (1500.0, 1.05, 0.0)),
    ("unbind a region among 1 000", "pinned", (1500.0, 1.05, 0.0)),
    ("bind a region among 1 000", "managed", (1500.0, 1.05, 0.0)),
    ("unbind a region among 1 000", "managed", (1500.0, 1.05, 0.0)),
    ("2 MiB region, per 4 KiB page touched", "direct", (5.0, 0.1, 0.1)),
];

/// Two rows of the same form: the second costs at most this many times the first.
const RATIOS: &[(&str, &str, f64)] = &[
    ("fault with 10 regions", "fault with 100 000 regions", 1.2),
    ("fault in another region, with 150", "fault in another region, with 100 000", 1.2),
];

/// What is measured beside, without a limit.
const MEASURED: &[(&str, &str)] = &[
    ("call that reads the own quota", "direct"),
    ("portal call and reply", "one space"),
    ("context switch (yield)", "one space"),
    ("context switch (yield)", "two spaces"),
    ("process creation, exit, end", "ELF file"),
    ("page fault, manager has the page", "one space"),
    ("VM exit to its monitor and back", "direct"),
    ("null call", "Linux, getppid"),
    ("context switch", "Linux, pipes"),
    ("a byte to another process and back", "Linux, pipes"),
    ("process creation, exec, exit, end", "Linux, fork"),
    ("page fault, fresh zeroed page", "Linux, anonymous"),
];

/// A row, as far as it is looked at.
#[derive(Debug)]
struct Row {
    row: String,
    form: String,
    instructions: Option<f64>,
    entries: Option<f64>,
    switches: Option<f64>,
}

fn rows() -> Result<Vec<Row>> {
    let output = within(trapline()?.args(["bench", "kernel", "--json"]), LIMIT)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    ensure!(list.iter().all(|row| row["suite"] == "kernel"), "{list:#?}");
    let row = |value: &Value| {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| value[name].as_f64();
        let (instructions, entries) = (number("instructions"), number("entries"));
        let (row, form, switches) = (text("row"), text("form"), number("switches"));
        Row { row, form, instructions, entries, switches }
    };
    Ok(list.iter().map(row).collect())
}

fn find<'a>(rows: &'a [Row], name: &str, form: &str) -> Result<&'a Row> {
    let mut found = rows.iter().filter(|row| row.row == name);
    found.find(|row| row.form == form).with_context(|| format!("no row '{name}', {form}"))
}

/// The scenario.
pub fn run() -> Result<()> {
    let rows = rows()?;
    for (name, form, limits) in LIMITS {
        let row = find(&rows, name, form)?;
        let counts = (row.instructions, row.entries, row.switches);
        let within = |count: Option<f64>, limit: f64| count.is_some_and(|count| count <= limit);
        let fits = within(row.instructions, limits.0)
            && within(row.entries, limits.1)
            && within(row.switches, limits.2);
        ensure!(fits, "{name}, {form}: {counts:?}, at most {limits:?}");
    }
    for (few, many, most) in RATIOS {
        let cost = |name| find(&rows, name, "direct").map(|row| row.instructions);
        let (few_cost, many_cost) = (cost(few)?, cost(many)?);
        let ratio = many_cost.zip(few_cost).map(|(many, few)| many / few);
        ensure!(ratio.is_some_and(|ratio| ratio <= *most), "{many}: {ratio:?} times '{few}'");
    }
    let name = "page fault, manager has the page";
    let (direct, mapper) = (find(&rows, name, "direct")?, find(&rows, name, "region mapper")?);
    let twice = |a: Option<f64>, b: Option<f64>| a.zip(b).is_some_and(|(a, b)| a >= 2.0 * b);
    let more = twice(mapper.entries, direct.entries) && twice(mapper.switches, direct.switches);
    ensure!(more, "a region mapper needs twice as many entries and switches: {mapper:?}");
    for (name, form) in MEASURED {
        let row = find(&rows, name, form)?;
        ensure!(row.instructions > Some(0.0), "{name}, {form}: {row:?}");
    }
    Ok(())
}
