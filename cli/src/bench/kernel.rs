//! The kernel's own operations, by counting instructions: a native program measures them in the
//! place of the root server and prints a line for each.
use super::Row;
use crate::cache::Cache;
use crate::machine::kernel_test::{self, Program};
use crate::parts::Repository;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::io::Write;

/// One processor, so that all instructions counted are the operation's; memory for the kernel's
/// part of 100 000 regions.
const PROGRAM: Program =
    Program { name: "native-bench", memory: 2 << 30, processors: 1, count_instructions: true };

/// Runs it.
///
/// # Errors
/// What can't be started, and what it says went wrong.
pub fn run(cache: &Cache, progress: &Progress) -> Result<Vec<Row>> {
    let repository = Repository::find()?;
    repository.build(false, progress)?;
    progress.step("counting the instructions of the kernel's operations");
    let report = kernel_test::run(cache, &repository, PROGRAM)?;
    let rows = rows(&report.log)?;
    if !report.passed || rows.is_empty() {
        bail!("{}:\n{}", report.why, report.log.trim_end());
    }
    Ok(rows)
}

/// The rows in a log; the first one is the base of the ratios.
fn rows(log: &str) -> Result<Vec<Row>> {
    let lines = log.lines().filter_map(|line| line.split_once("row|"));
    let mut rows: Vec<Row> =
        lines.map(|(_, line)| row(line).with_context(|| line.to_owned())).collect::<Result<_>>()?;
    let base = rows.first().and_then(|row| row.instructions).unwrap_or(1.0);
    for row in &mut rows {
        row.ratio = row.instructions.unwrap_or_default() / base;
    }
    Ok(rows)
}

/// Reads `name|form|instructions|entries|switches|space switches|exits|faults|rounds`, the counts in
/// thousandths.
fn row(line: &str) -> Result<Row> {
    let mut words = line.trim_end().split('|');
    let mut word = || words.next().context("a word is missing");
    let (row, form) = (word()?.to_owned(), word()?.to_owned());
    let mut counts = [0.0; 6];
    for count in &mut counts {
        *count = word()?.parse::<u32>().map(f64::from)? / 1000.0;
    }
    let [instructions, entries, switches, spaces, exits, faults] = counts;
    Ok(Row {
        suite: "kernel",
        row,
        form,
        operations: word()?.parse()?,
        instructions: Some(instructions),
        exits: Some(exits),
        entries: Some(entries),
        switches: Some(switches),
        space_switches: Some(spaces),
        faults: Some(faults),
        ..Row::default()
    })
}

/// Prints the rows.
///
/// # Errors
/// Those of the output.
pub fn table(rows: &[Row], out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "{:<42} {:<10} {:>12} {:>8} {:>8} {:>8} {:>7} {:>7}",
        "", "form", "instructions", "entries", "switches", "spaces", "exits", "faults"
    )?;
    let number = |value: Option<f64>| value.unwrap_or_default();
    for row in rows {
        writeln!(
            out,
            "{:<42} {:<10} {:>12.1} {:>8.2} {:>8.2} {:>8.2} {:>7.2} {:>7.2}",
            row.row,
            row.form,
            number(row.instructions),
            number(row.entries),
            number(row.switches),
            number(row.space_switches),
            number(row.exits),
            number(row.faults)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let log = "Trapline\ns0: row|null call|direct|50000|1000|0|0|0|0|1000\n\
                   s0: row|a fault|direct|100500|2000|2000|2000|0|1000|7\ns0: end\n";
        let rows = rows(log).expect("rows");
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[1].row.as_str(), rows[1].operations), ("a fault", 7));
        assert_eq!((rows[1].instructions, rows[1].switches), (Some(100.5), Some(2.0)));
        assert!((rows[1].ratio - 2.01).abs() < 1e-9);
        assert!(super::rows("row|a|b|1|2\n").is_err());
    }
}
