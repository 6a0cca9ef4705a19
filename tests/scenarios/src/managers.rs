//! The memory managers, tested by their clients, with the real root server: stacks, private copies of files, quotas; and
//! managers that end while they are used.
use crate::rig::{LIMIT, Rig};
use anyhow::{Result, ensure};
use std::time::Instant;
use trapline::cache::Cache;
use trapline::launch::Options;
use trapline::machine::kernel_test::{self, Program};
use trapline::web::Server;

/// The system; two managers are made to fail while it runs.
const SYSTEM: Program = Program {
    name: "root",
    files: &["anon", "image", "native-managers"],
    system: Some(include_str!("managers.toml")),
    pattern: 5 * 4096 + 2048,
    command_line: "fail.image=1000,2500 fail.anon=1500 until=3500",
    ..kernel_test::TESTS
};

/// Lines of the log: what each says, and how often.
const EXPECTED: &[(&str, usize)] = &[
    ("not resolved: stack overflow", 1),
    ("program 'overflow' ended: page fault", 1),
    ("program 'greedy' ended: page fault", 1),
    ("program 'spender' ended: page fault", 1),
    ("not resolved: quota of memory exhausted", 2),
    ("region without that right", 1),
    ("program 'reader' ended: page fault", 1),
    ("manager 'image' was started again", 2),
    ("manager 'anon' was started again", 1),
    ("judge: all is as it should be", 1),
    ("FAILED", 0),
    ("panic", 0),
];

/// The scenario.
pub fn run() -> Result<()> {
    let repository = trapline::parts::Repository::find()?;
    repository.build(false, &trapline::progress::Progress::new(false))?;
    let report = kernel_test::run(&Cache::open()?, &repository, SYSTEM)?;
    println!("{}", report.log.trim_end());
    ensure!(report.passed, "{}", report.why);
    for (line, count) in EXPECTED {
        let found = report.log.lines().filter(|l| l.contains(line)).count();
        ensure!(found == *count, "'{line}' is in the log {found} times instead of {count}");
    }
    Ok(())
}

/// When managers are made to fail, in milliseconds after the system is up: while the VMs boot, and later.
const FAILURES: [&str; 2] = ["fail.image=1500,9000,15000", "fail.anon=2500,12000"];
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
