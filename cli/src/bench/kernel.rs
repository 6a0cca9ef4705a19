//! The kernel's own operations, by counting instructions: a native program measures them in the
//! place of the root server and prints a line for each. Beside them some of Linux' own, measured by the
//! first program of a stock kernel on the same emulated machine.
use super::Row;
use crate::cache::Cache;
use crate::image::{initramfs, kernel};
use crate::machine::kernel_test::{self, Program};
use crate::parts::Repository;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::io::Write;

/// One processor, so that all instructions counted are the operation's; memory for the kernel's
/// part of 100 000 regions.
const PROGRAM: Program = Program {
    name: "native-bench",
    files: &["native-child"],
    system: None,
    memory: 2 << 30,
    processors: 1,
    count_instructions: Some(0),
    command_line: "",
    pattern: 0,
    disk: None,
};

/// What the kernels of the table are called in its rows' forms.
const LINUX: &str = "Linux";

/// The stock kernel; pages of 4 KiB only, as in the rows beside it.
const LINUX_COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 transparent_hugepage=never";

/// Runs both.
///
/// # Errors
/// What can't be started, and what it says went wrong.
pub fn run(cache: &Cache, progress: &Progress) -> Result<Vec<Row>> {
    let repository = Repository::find()?;
    repository.build(false, progress)?;
    progress.step("counting the instructions of the kernel's operations");
    let report = kernel_test::run(cache, &repository, PROGRAM)?;
    let mut all = complete(&report)?;
    progress.step("counting the instructions of Linux' operations");
    let image = kernel::stock(cache, progress)?.image;
    let initrd = initramfs::single(cache, &repository.guest_program("trapline-linux-costs"))?;
    let report = kernel_test::linux(cache, image, initrd, LINUX_COMMAND_LINE)?;
    all.extend(complete(&report)?.into_iter().map(of_linux));
    let base = all.first().and_then(|row| row.instructions).unwrap_or(1.0);
    for row in &mut all {
        row.ratio = row.instructions.unwrap_or_default() / base;
    }
    Ok(all)
}

/// A row for which nothing but instructions was counted.
fn of_linux(row: Row) -> Row {
    Row {
        form: format!("{LINUX}, {}", row.form),
        exits: None,
        entries: None,
        switches: None,
        space_switches: None,
        faults: None,
        ..row
    }
}

/// All rows of a program that says that it succeeded.
fn complete(report: &kernel_test::Report) -> Result<Vec<Row>> {
    let rows = rows(&report.log)?;
    if !report.passed || rows.is_empty() || report.log.contains("FAILED") {
        bail!("{}:\n{}", report.why, report.log.trim_end());
    }
    Ok(rows)
}

/// The rows in a log.
fn rows(log: &str) -> Result<Vec<Row>> {
    let lines = log.lines().filter_map(|line| line.split_once("row|"));
    lines.map(|(_, line)| row(line).with_context(|| line.to_owned())).collect()
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
        "{:<42} {:<16} {:>12} {:>8} {:>8} {:>8} {:>7} {:>7}",
        "", "form", "instructions", "entries", "switches", "spaces", "exits", "faults"
    )?;
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    for row in rows {
        writeln!(
            out,
            "{:<42} {:<16} {:>12.1} {:>8} {:>8} {:>8} {:>7} {:>7}",
            row.row,
            row.form,
            row.instructions.unwrap_or_default(),
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
        assert_eq!(
            (of_linux(rows[1].clone()).form.as_str(), of_linux(rows[1].clone()).faults),
            ("Linux, direct", None)
        );
        assert!(super::rows("row|a|b|1|2\n").is_err());
    }
}
