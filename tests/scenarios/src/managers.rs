//! The memory managers, tested by their clients, with the real root server: stacks, private copies of files, quotas; and
//! managers that end while they are used.
use crate::bare::{has_lines, log_of};
use crate::rig::{LIMIT, Rig};
use anyhow::{Result, ensure};
use std::time::Instant;
use trapline::cache::Cache;
use trapline::launch::Options;
use trapline::machine::kernel_test::{self, Program};
use trapline::web::Server;

/// The system; two managers are made to fail while it runs, and the memory that they give is not zero at first.
const SYSTEM: Program = Program {
    name: "root",
    files: &["anon", "image", "native-managers"],
    system: Some(include_str!("managers.toml")),
    pattern: 5 * 4096 + 2048,
    command_line: "fail.image=1000,2500 fail.anon=1500 until=3500 dirty=1",
    ..kernel_test::TESTS
};

/// Managers that do not end but loop, or wait for what never comes; and one that fails as soon as it is started again.
const SILENT: &str = "loop.image=1000 mute.anon=1000 until=86400000";
const HOPELESS: &str = "fail.image=1000,1000,1000,1000,1000 until=86400000";

/// Lines of the log: what each says, and how often.
const EXPECTED: &[(&str, usize)] = &[
    // What the kernel reports, and what the root server does.
    ("not resolved: stack overflow", 2),
    ("program 'overflow' ended: page fault at ", 1),
    ("program 'greedy' ended: page fault", 1),
    ("program 'spender' ended: page fault", 1),
    ("not resolved: quota of memory exhausted", 4),
    ("region without that right", 2),
    ("program 'reader' ended: page fault", 1),
    ("manager 'image' was started again", 2),
    ("manager 'anon' was started again", 1),
    ("judge: all is as it should be", 1),
    ("FAILED", 0),
    ("panic", 0),
];

/// The scenario.
pub fn run() -> Result<()> {
    has_lines(&log_of(&trapline::parts::Repository::find()?, SYSTEM)?, EXPECTED)
}

/// What the crier said last, behind the last of these lines: rounds of its own, of the first and the second client.
fn said_after(log: &str, lines: &[&str]) -> Option<Vec<Vec<u64>>> {
    let places: Option<Vec<usize>> = lines.iter().map(|line| log.rfind(line)).collect();
    let behind = log.get(places?.into_iter().max()?..)?;
    let said = behind.lines().filter_map(|line| {
        line.split_once("crier: ")?.1.trim().split(' ').map(|n| n.parse().ok()).collect()
    });
    Some(said.collect())
}

/// True when all of these columns of what was said have grown.
fn grown(said: &[Vec<u64>], columns: &[usize]) -> bool {
    let (Some(first), Some(last)) = (said.first(), said.last()) else { return false };
    columns.iter().all(|n| matches!((first.get(*n), last.get(*n)), (Some(a), Some(b)) if a < b))
}

fn run_until(command_line: &'static str, done: impl Fn(&str) -> bool) -> Result<String> {
    let repository = trapline::parts::Repository::find()?;
    repository.build(false, &trapline::progress::Progress::new(false))?;
    let system = Program { command_line, ..SYSTEM };
    let report = kernel_test::run_until(&Cache::open()?, &repository, system, |log, _| done(log))?;
    println!("{}", report.log.trim_end());
    ensure!(done(&report.log), "{}", report.why);
    for bad in ["FAILED", "panic"] {
        ensure!(!report.log.contains(bad), "'{bad}' is in the log");
    }
    Ok(report.log)
}

/// A manager that loops, and one that waits for ever, are noticed, and started again, before any client is late: both go on.
pub fn silent() -> Result<()> {
    let again = ["manager 'image' was started again", "manager 'anon' was started again"];
    let log = run_until(SILENT, |log| {
        said_after(log, &again).is_some_and(|said| grown(&said, &[0, 1, 2]))
    })?;
    for name in ["image", "anon"] {
        let line = format!("manager '{name}' does not answer");
        let found = log.matches(&line).count();
        ensure!(found == 1, "'{line}' is in the log {found} times");
    }
    ensure!(!log.contains("in time"), "a client was late");
    Ok(())
}

/// A manager that fails again and again is given up: its clients end, each with a report, and who does not need it goes on.
pub fn given_up() -> Result<()> {
    let off = "manager 'image' has failed too often: it stays off";
    let ended = ["first", "second"].map(|name| format!("program '{name}' ended: "));
    let lines = [off, &ended[0], &ended[1]];
    let log =
        run_until(HOPELESS, |log| said_after(log, &lines).is_some_and(|said| grown(&said, &[0])))?;
    let restarts = log.matches("manager 'image' was started again").count();
    ensure!(restarts == 4, "it was started again {restarts} times");
    ensure!(!log.contains("program 'crier' ended"), "the crier has ended");
    ensure!(!log.contains("program 'anon' ended"), "another manager has ended");
    Ok(())
}

/// When managers are made to fail, in milliseconds after the system is up: while the VMs boot, and later; by ending, by
/// looping, by never answering.
const FAILURES: [&str; 4] =
    ["fail.image=1500,9000", "loop.image=15000", "fail.anon=2500", "mute.anon=12000"];
/// How often they are then started again.
const RESTARTS: [(&str, usize); 2] = [("image", 3), ("anon", 2)];

/// Both VMs and all servers run on managers that fail, and notice nothing: each file of the root image is what it was, memory
/// keeps what is in it, and a transfer of a trusted program goes on.
pub fn under_machines() -> Result<()> {
    let server = Server::start(16 << 20)?;
    let rig = Rig::boot_with(Options {
        trust: vec!["curl".into()],
        words: FAILURES.map(str::to_owned).into(),
        ..Options::default()
    })?;
    let sums = "cat /usr/bin/* /usr/lib/x86_64-linux-gnu/*.so* 2>/dev/null | sha256sum";
    let (compute, service) = (rig.compute(sums)?.stdout, rig.service(sums)?.stdout);
    // What is anonymous memory in the guest, with contents that are known.
    rig.succeed("seq 4000000 > /tmp/numbers")?;
    let numbers = rig.succeed("sha256sum < /tmp/numbers")?;
    let log = || std::fs::read_to_string(rig.machine.logs().join("kernel.log"));
    let restarts =
        |log: &str, name: &str| log.matches(&format!("manager '{name}' was started again")).count();
    let end = Instant::now() + LIMIT;
    loop {
        let done = log()?;
        let all = RESTARTS.iter().all(|(name, count)| restarts(&done, name) >= *count);
        ensure!(rig.compute(sums)?.stdout == compute, "other files in the compute VM");
        ensure!(rig.service(sums)?.stdout == service, "other files in the service VM");
        ensure!(rig.succeed("sha256sum < /tmp/numbers")? == numbers, "other memory");
        let sum =
            rig.succeed(&format!("curl -sS -m 60 {} | sha256sum | cut -c-64", server.url()))?;
        ensure!(sum.trim() == server.sha256(), "another file arrived: {sum}");
        if all {
            break;
        }
        ensure!(Instant::now() < end, "the managers were not started again within {LIMIT:?}");
    }
    let log = log()?;
    for (name, count) in RESTARTS {
        let found = restarts(&log, name);
        ensure!(found == count, "manager '{name}' was started again {found} times, not {count}");
    }
    ensure!(!log.contains("fatal"), "something else ended");
    Ok(())
}
