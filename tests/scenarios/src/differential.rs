//! The cases of `guest/probe` three ways: on this machine, untrusted in the service VM, and trusted
//! in the compute VM. What they see must be the same, apart from what `tests/scenarios/
//! differences.toml` lists with a reason that stands in `doc/caveats.md`.
//!
//! `$TRAPLINE_CASES` chooses cases by parts of their names, with commas between them.
use crate::policy::boot;
use crate::rig::{Rig, succeeded, text};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use trapline::machine::Vm;
use trapline::parts::Repository;

/// The program inside the VMs.
pub const PROGRAM: &str = "/run/trapline/probe";
/// The same, by way of the launcher of trusted programs.
const TRUSTED: &str = "/run/trapline/bin/probe";
/// What the cases may reach: the default rules, and the folder of the cases about files.
const POLICY: &str = r#"
[[program]]
path = "/run/trapline/probe"
connect = [{ protocol = ["tcp", "udp", "icmp"] }]
listen = [
    { ports = "21000-21099", protocol = "tcp", place = "both" },
    { protocol = ["tcp", "udp", "icmp"] },
]
files = [{ path = "/tmp/trapline-cases", write = true }]
"#;
/// Address of the peer in the service VM, which is remote for the compute VM.
pub const ADDRESS: &str = "10.0.2.15";
/// How long all cases get in one place.
const LIMIT: Duration = Duration::from_secs(900);

/// A difference that is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// Where it is: `case/label`, as the cases print it.
    line: String,
    /// Which results differ: `native` from the service VM's, or `trusted` from the service VM's.
    from: Place,
    /// Words of `doc/caveats.md` that say why.
    caveat: String,
}

/// Whose results are compared with those of the service VM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    /// This machine.
    Native,
    /// The compute VM.
    Trusted,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    known: Vec<Known>,
}

/// Results by `case/label`, in order.
struct Results(Vec<(String, String)>);

impl Results {
    fn read(output: &str) -> Self {
        let pair = |line: &str| line.split_once(": ").map(|(a, b)| (a.to_owned(), b.to_owned()));
        Self(output.lines().filter_map(pair).collect())
    }

    fn map(&self) -> BTreeMap<&str, &str> {
        self.0.iter().map(|(line, value)| (line.as_str(), value.as_str())).collect()
    }

    /// Leaves out the cases that another system has nothing for.
    fn without_absent(&self, other: &Self) -> Self {
        let case = |line: &str| line.split('/').next().unwrap_or_default().to_owned();
        let absent = other.0.iter().filter(|(line, _)| line.ends_with("/absent"));
        let absent: BTreeSet<String> = absent.map(|(line, _)| case(line)).collect();
        let kept = self.0.iter().filter(|(line, _)| !absent.contains(&case(line)));
        Self(kept.cloned().collect())
    }

    /// Lines whose values differ, or that only one of them has, in order.
    fn differences(&self, other: &Self) -> Vec<(String, String)> {
        let (own, others) = (self.map(), other.map());
        let said = |value: Option<&&str>| value.map_or("nothing".to_owned(), |v| (*v).to_owned());
        let mut seen = BTreeSet::new();
        let lines = self.0.iter().chain(&other.0).map(|(line, _)| line.as_str());
        lines
            .filter(|line| own.get(line) != others.get(line) && seen.insert(*line))
            .map(|line| {
                let text = format!("{}, not {}", said(others.get(line)), said(own.get(line)));
                (line.to_owned(), text)
            })
            .collect()
    }
}

/// The scenario.
pub fn run() -> Result<()> {
    let filter = std::env::var("TRAPLINE_CASES").unwrap_or_default();
    let repository = Repository::find()?;
    let known = known(&repository)?;
    let rig = boot(POLICY)?;
    let whole = native(&repository, &filter)?;
    let native = whole.without_absent(&whole);
    let port = peer(&rig)?;
    let peer = format!("{ADDRESS}:{port}");
    let inside = |vm: Vm, program: &str| -> Result<Results> {
        let outcome = rig.machine.run(vm, &[program, "run", &peer, &filter], LIMIT)?;
        let output = succeeded("the cases", &outcome)?;
        keep(&rig, vm.name(), &output)?;
        Ok(Results::read(&output))
    };
    let service = inside(Vm::Service, PROGRAM)?;
    let trusted = inside(Vm::Compute, TRUSTED)?;
    let cases = service.0.iter().filter(|(line, _)| line.ends_with("/end")).count();
    ensure!(cases > 0, "no case is called '{filter}'");
    println!("{cases} cases, {} results", service.0.len());
    let found = [(Place::Native, &native), (Place::Trusted, &trusted)];
    let mut wrong = Vec::new();
    for (place, results) in found {
        let service = match place {
            // A setting of this machine may forbid what both VMs allow.
            Place::Native => service.without_absent(&whole),
            Place::Trusted => service.without_absent(&Results(Vec::new())),
        };
        wrong.extend(judge(place, &service.differences(results), &known, &service));
    }
    ensure!(wrong.is_empty(), "{} (outputs: {})", wrong.join("\n"), rig.machine.logs().display());
    Ok(())
}

/// Keeps an output beside the machine's logs.
fn keep(rig: &Rig, name: &str, output: &str) -> Result<()> {
    let path = rig.machine.logs().join(format!("cases-{name}.txt"));
    Ok(std::fs::write(path, output)?)
}

/// What is different and not known, or known and not different.
fn judge(
    place: Place,
    differences: &[(String, String)],
    known: &[Known],
    ran: &Results,
) -> Vec<String> {
    let listed = |line: &str| known.iter().any(|entry| entry.from == place && entry.line == line);
    let new = differences.iter().filter(|(line, _)| !listed(line));
    let mut wrong: Vec<String> =
        new.map(|(line, text)| format!("{place:?}: {line}: {text}")).collect();
    let case = |line: &str| line.split('/').next().unwrap_or_default().to_owned();
    let cases: BTreeSet<String> = ran.0.iter().map(|(line, _)| case(line)).collect();
    for entry in known.iter().filter(|entry| entry.from == place) {
        let differs = differences.iter().any(|(line, _)| *line == entry.line);
        if !differs && cases.contains(&case(&entry.line)) {
            wrong.push(format!("{place:?}: {}: listed as a difference, but equal", entry.line));
        }
    }
    wrong
}

/// The list of known differences; each must be explained.
fn known(repository: &Repository) -> Result<Vec<Known>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
    };
    let list: List = toml::from_str(&read(&repository.path("tests/scenarios/differences.toml"))?)
        .context("differences.toml")?;
    let caveats = read(&repository.path("doc/caveats.md"))?;
    let caveats = caveats.split_whitespace().collect::<Vec<_>>().join(" ");
    for entry in &list.known {
        ensure!(
            caveats.contains(&entry.caveat),
            "{}: doc/caveats.md does not say '{}'",
            entry.line,
            entry.caveat
        );
    }
    Ok(list.known)
}

/// Starts the peer in the service VM; its port.
fn peer(rig: &Rig) -> Result<u16> {
    let script = format!(
        "{PROGRAM} peer {ADDRESS}:0 > /run/peer 2> /run/peer.log < /dev/null & \
         for _ in $(seq 100); do test -s /run/peer && break; sleep 0.1; done; cat /run/peer"
    );
    let outcome = rig.service(&script)?;
    let port = String::from_utf8_lossy(&outcome.stdout).trim().parse();
    port.with_context(|| format!("no peer in the service VM: {}", text(&outcome)))
}

/// The cases on this machine.
fn native(repository: &Repository, filter: &str) -> Result<Results> {
    let programs = repository.guest().others;
    let (_, program) = programs.iter().find(|(name, _)| name == "probe").context("no probe")?;
    let mut peer =
        Command::new(program).args(["peer", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn()?;
    let mut port = String::new();
    BufReader::new(peer.stdout.take().context("no output")?).read_line(&mut port)?;
    let address = format!("127.0.0.1:{}", port.trim());
    let output = Command::new(program).args(["run", &address, filter]).output();
    peer.kill()?;
    peer.wait()?;
    let output = output?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "on this machine: {} {said}", output.status);
    Ok(Results::read(&String::from_utf8_lossy(&output.stdout)))
}
