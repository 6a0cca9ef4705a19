//! What users of similar systems suffer from, as tests: small programs in Python, trusted in the
//! compute VM, against a peer in the service VM. See `regressions/clauses.py`.
use crate::differential::{ADDRESS, PROGRAM};
use crate::policy::boot;
use crate::rig::{LIMIT, Rig, text};
use anyhow::{Context, Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use trapline::machine::Vm;

const CLAUSES: &str = include_str!("regressions/clauses.py");

/// Where the peer is, and where nobody may connect to.
const PORTS: [u16; 2] = [7700, 7701];

/// Files in which the processes of a clause say how far they are.
const PROGRESS: &str = "/tmp/progress.*";

/// All clauses.
const NAMES: &[&str] = &[
    "port_zero",
    "accept_blocked",
    "accept_until_eagain",
    "nonblocking_connect",
    "reuse_port",
    "end_after_fork",
    "timeouts",
    "stalled_peer",
    "many_short",
    "flipped_address",
    "epoll_rounds",
];

fn rig() -> Result<Rig> {
    let [_, forbidden] = PORTS;
    let rig = boot(&format!(
        "[[program]]\npath = \"/usr/bin/python3\"\n\
         connect = [{{ to = \"{ADDRESS}\", ports = {forbidden}, deny = true }}, {{ }}]\n\
         listen = [{{ }}]\n"
    ))?;
    for port in PORTS {
        let script = format!(
            "{PROGRAM} peer {ADDRESS}:{port} > /run/peer{port} 2>&1 < /dev/null & \
             for _ in $(seq 100); do test -s /run/peer{port} && break; sleep 0.1; done; \
             cat /run/peer{port}"
        );
        let outcome = rig.service(&script)?;
        ensure!(text(&outcome).contains(&format!("'{port}'")), "no peer: {}", text(&outcome));
    }
    rig.succeed(&format!("cat > /tmp/clauses.py <<'END'\n{CLAUSES}END\n"))?;
    Ok(rig)
}

fn clause(rig: &Rig, name: &str, form: &str, limit: Duration) -> Result<()> {
    let script =
        format!("rm -f {PROGRESS}; exec python3 /tmp/clauses.py {name} {} {form}", PORTS[0]);
    let (start, done) = (Instant::now(), AtomicBool::new(false));
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| tell(rig, name, &done));
        let outcome = rig.machine.run(Vm::Compute, &["sh", "-c", &script], limit);
        done.store(true, Ordering::Relaxed);
        outcome.with_context(|| name.to_owned())
    })?;
    let output = String::from_utf8_lossy(&outcome.stdout);
    ensure!(outcome.status == 0 && output.ends_with("good\n"), "{name}: {}", text(&outcome));
    print!("{name} ({:.1} s): {output}", start.elapsed().as_secs_f64());
    Ok(())
}

/// Says every minute how far a clause is.
fn tell(rig: &Rig, name: &str, done: &AtomicBool) {
    let (start, mut told) = (Instant::now(), 0);
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(200));
        let minute = start.elapsed().as_secs() / 60;
        if minute > told
            && let Ok(outcome) = rig.compute(&format!("cat {PROGRESS}"))
        {
            told = minute;
            let text = String::from_utf8_lossy(&outcome.stdout);
            let words = |line: &str| {
                let (done, all) = line.split_once(" of ")?;
                Some((done.parse::<u64>().ok()?, all.parse::<u64>().ok()?))
            };
            let counts = text.lines().filter_map(words);
            let (done, all) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            println!("{name}, minute {minute}: {done} of {all} rounds");
        }
    }
}

/// All clauses, then what was wrong.
fn clauses(form: &str, limit: Duration) -> Result<()> {
    let rig = rig()?;
    let chosen = std::env::var("TRAPLINE_CLAUSES").unwrap_or_default();
    let chosen = |name: &&&str| chosen.split(',').any(|part| name.contains(part));
    let mut wrong = Vec::new();
    for name in NAMES.iter().filter(chosen) {
        if let Err(error) = clause(&rig, name, form, limit) {
            wrong.push(format!("{error:#}"));
        }
    }
    let used = rig.service(&format!("ss -Htan sport = :{} | grep -vc LISTEN", PORTS[1]))?;
    ensure!(text(&used).contains("'0'"), "somebody got to the forbidden port: {}", text(&used));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The scenario; `$TRAPLINE_CLAUSES` chooses clauses by parts of their names.
pub fn run() -> Result<()> {
    clauses("short", LIMIT)
}

/// The same with ten thousand calls of `accept`, a million rounds of `epoll` and so on.
pub fn long() -> Result<()> {
    clauses("long", Duration::from_secs(3 * 3600))
}
