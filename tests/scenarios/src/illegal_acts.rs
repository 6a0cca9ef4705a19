//! The list of illegal acts, `doc/illegal-acts.md`: made from what the kernel's tests did on the machine, so
//! that what it says was done. And the kernel's own report of each, which must name the thread, the
//! instruction and the cause.
use anyhow::{Context, Result, ensure};
use trapline::parts::Repository;

/// An act as a line of the log tells it: `act|kind|act|what comes of it`, and for those that end a
/// thread `|instruction|cause`.
struct Act<'a> {
    kind: &'a str,
    name: &'a str,
    outcome: &'a str,
    /// Instruction and cause.
    end: Option<(&'a str, &'a str)>,
    /// The line before.
    before: &'a str,
}

fn acts(log: &str) -> Result<Vec<Act<'_>>> {
    let mut found = Vec::new();
    let mut before = "";
    for line in log.lines() {
        if let Some((_, act)) = line.split_once("act|") {
            let words: Vec<&str> = act.trim_end().split('|').collect();
            let (kind, name, outcome, end) = match words[..] {
                [kind, name, outcome] => (kind, name, outcome, None),
                [kind, name, outcome, ip, cause] => (kind, name, outcome, Some((ip, cause))),
                _ => anyhow::bail!("not an act: {line}"),
            };
            found.push(Act { kind, name, outcome, end, before });
        }
        before = line;
    }
    Ok(found)
}

/// The kernel's report stands before each act that ends a thread.
fn check_reports(acts: &[Act<'_>]) -> Result<()> {
    for act in acts {
        let Some((ip, cause)) = act.end else { continue };
        let report = act.before;
        let parts = [" thread ", &format!(" ended at ip {ip}: "), cause];
        let complete =
            report.contains("kernel: space ") && parts.iter().all(|p| report.contains(p));
        ensure!(complete, "{}, {}: the kernel reports '{report}'", act.kind, act.name);
    }
    Ok(())
}

/// The list as a table; what was done several times, with other numbers, is one line.
fn table(acts: &[Act<'_>]) -> String {
    let mut text = String::from(
        "# Illegal acts\n\n\
         What programs must not do, and what comes of it. Each was done by the kernel's tests\n\
         (`tests/native/src/acts`, `processes.rs`): the thread ends, or the call is refused; the kernel reports every end with\n\
         space, thread, instruction and cause; a bystander goes on, and objects, kernel memory and quota are as before.\n\
         Made by the scenario `kernel`, which holds this file against what was done.\n\n\
         | kind | act | cases | what comes of it |\n| --- | --- | --- | --- |\n",
    );
    let mut rows: Vec<(&Act<'_>, usize)> = Vec::new();
    for act in acts {
        let same = |(row, _): &&mut (&Act<'_>, usize)| {
            (row.kind, row.name, row.outcome) == (act.kind, act.name, act.outcome)
        };
        match rows.iter_mut().find(same) {
            Some((_, count)) => *count += 1,
            None => rows.push((act, 1)),
        }
    }
    for (act, count) in rows {
        text.push_str(&format!("| {} | {} | {count} | {} |\n", act.kind, act.name, act.outcome));
    }
    text
}

/// Holds the list and the reports against the log of the kernel's tests.
pub fn check(repository: &Repository, log: &str) -> Result<()> {
    let acts = acts(log)?;
    check_reports(&acts)?;
    let (path, table) = (repository.path("doc/illegal-acts.md"), table(&acts));
    if std::env::var_os("TRAPLINE_WRITE").is_some() {
        std::fs::write(&path, &table)?;
    }
    let text = std::fs::read_to_string(&path).context("doc/illegal-acts.md")?;
    ensure!(
        text == table,
        "doc/illegal-acts.md is stale: TRAPLINE_WRITE=1 ./trapline test --group kernel"
    );
    Ok(())
}
