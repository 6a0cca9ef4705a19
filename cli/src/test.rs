//! `trapline test`: every test there is, one account at the end.
use crate::command::find;
use crate::parts::Repository;
use crate::supervise;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

/// A group of tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Group {
    /// Formatting and lints.
    Lint,
    /// Tests of pure crates and rules about the source, on the host.
    Host,
    /// Rules about the linked images.
    Image,
    /// The kernel, tested by a user program in QEMU.
    Kernel,
    /// Whole scenarios with both VMs.
    Scenario,
}

/// Options of `trapline test`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Only these groups
    #[arg(long, value_enum)]
    group: Vec<Group>,
    /// Only scenarios whose name contains this
    filter: Option<String>,
    /// Also the scenarios that take long
    #[arg(long)]
    long: bool,
}

/// Number of tests that passed and failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Count {
    passed: u64,
    failed: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs the tests; the last line is `N passed, N failed`.
///
/// # Errors
/// Nothing could be run.
pub fn test(arguments: &Arguments) -> Result<u8> {
    let repository = Repository::find()?;
    let all = [Group::Lint, Group::Host, Group::Image, Group::Kernel, Group::Scenario];
    let chosen = |group: &Group| {
        let only_scenarios = arguments.filter.is_some() && *group != Group::Scenario;
        (arguments.group.is_empty() && !only_scenarios) || arguments.group.contains(group)
    };
    let start = Instant::now();
    let mut total = Count::default();
    for group in all.iter().filter(|group| chosen(group)) {
        supervise::check()?;
        for step in steps(*group, arguments) {
            println!("== {}", step.title);
            let count = step.run(&repository)?;
            println!("== {}: {} passed, {} failed", step.title, count.passed, count.failed);
            total += count;
        }
    }
    println!("{:.0} s", start.elapsed().as_secs_f64());
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(u8::from(total.failed > 0))
}

/// One run of cargo.
struct Step {
    title: &'static str,
    arguments: Vec<String>,
}

/// Crates without `std`. They can't be built together with crates that switch features with `std`
/// on in those that both use.
const FREESTANDING: &[&str] = &[
    "kernel",
    "rt",
    "root",
    "anon",
    "image",
    "swap",
    "shared",
    "device",
    "vmm",
    "relay",
    "net",
    "link",
    "native-tests",
];

fn steps(group: Group, options: &Arguments) -> Vec<Step> {
    let each = |option: &str| {
        FREESTANDING.iter().map(|name| format!(" {option} {name}")).collect::<String>()
    };
    let (exclude, only) = (each("--exclude"), each("-p"));
    let step = |title, line: &str| {
        let arguments = line.split(' ').map(str::to_owned).collect();
        Step { title, arguments }
    };
    match group {
        Group::Lint => vec![
            step("formatting", "fmt --all --check"),
            step(
                "lints of host and guest programs",
                &format!("clippy --quiet --workspace{exclude} --all-targets -- -D warnings"),
            ),
            step(
                "lints of kernel and native programs",
                &format!("clippy --quiet{only} -- -D warnings"),
            ),
        ],
        Group::Host => {
            let line = format!(
                "test --workspace{exclude} --exclude images-test --exclude scenarios --no-fail-fast"
            );
            vec![step("host tests", &line)]
        }
        Group::Image => vec![
            step("build of all programs", "run --quiet --release -p xtask -- build"),
            step("image tests", "test -p images-test --no-fail-fast"),
        ],
        Group::Kernel => vec![step("kernel tests", "run --quiet --release -p scenarios -- kernel")],
        Group::Scenario => {
            let mut scenarios =
                step("scenarios", "run --quiet --release -p scenarios -- --skip kernel");
            if options.long {
                scenarios.arguments.push("--include-ignored".into());
            }
            scenarios.arguments.extend(options.filter.clone());
            vec![scenarios]
        }
    }
}

impl Step {
    /// Runs it, passes its output on, and counts the tests in it; a run without tests is one test.
    fn run(&self, repository: &Repository) -> Result<Count> {
        let cargo = std::env::var_os("CARGO").map(Into::into).or_else(|| find("cargo"));
        let cargo = cargo.context("cargo is missing")?;
        let mut child = supervise::child(&cargo.display().to_string())
            .args(&self.arguments)
            .current_dir(repository.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't run cargo")?;
        let output = child.stdout.take().context("cargo without output")?;
        let mut count = Count::default();
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            if let Some(result) = result_line(&line) {
                count += result;
            }
        }
        let status = child.wait()?;
        supervise::check()?;
        if status.success() && count == Count::default() {
            count.passed = 1;
        } else if !status.success() && count.failed == 0 {
            if status.code().is_none() {
                bail!("{} was killed", self.title);
            }
            count.failed = 1;
        }
        Ok(count)
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; …`, and what the kernel's tests say on the machine:
/// `s0: 3 passed, 0 failed`.
fn result_line(line: &str) -> Option<Count> {
    if let Some(rest) = line.strip_prefix("s0: ")
        && let Some((passed, failed)) = rest.trim_end().split_once(" passed, ")
    {
        let failed = failed.strip_suffix(" failed")?.parse().ok()?;
        return Some(Count { passed: passed.parse().ok()?, failed });
    }
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut parts = rest.split("; ");
    let number =
        |part: Option<&str>, word: &str| part?.strip_suffix(word)?.trim().parse::<u64>().ok();
    Some(Count { passed: number(parts.next(), "passed")?, failed: number(parts.next(), "failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_line(line), Some(Count { passed: 3, failed: 2 }));
        assert_eq!(result_line("test result: ok"), None);
        assert_eq!(result_line("running 3 tests"), None);
        let line = "s0: 74 passed, 1 failed";
        assert_eq!(result_line(line), Some(Count { passed: 74, failed: 1 }));
    }
}
