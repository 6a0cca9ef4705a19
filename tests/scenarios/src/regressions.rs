//! What users of similar systems suffer from, as tests: small programs in Python, trusted in the
//! compute VM, against a peer in the service VM. See `regressions/clauses.py`.
use crate::differential::{ADDRESS, PROGRAM};
use crate::policy::boot;
use crate::rig::{LIMIT, Rig, text};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use trapline::machine::Vm;

const CLAUSES: &str = include_str!("regressions/clauses.py");

/// Where the peer is, and where nobody may connect to.
const PORTS: [u16; 2] = [7700, 7701];

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
    let line = format!("python3 /tmp/clauses.py {name} {} {form}", PORTS[0]);
    let start = Instant::now();
    let outcome = rig
        .machine
        .run(Vm::Compute, &["sh", "-c", &line], limit)
        .with_context(|| name.to_owned())?;
    let output = String::from_utf8_lossy(&outcome.stdout);
    ensure!(outcome.status == 0 && output.ends_with("good\n"), "{name}: {}", text(&outcome));
    print!("{name} ({:.1} s): {output}", start.elapsed().as_secs_f64());
    Ok(())
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
