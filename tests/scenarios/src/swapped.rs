//! A compute VM that believes in more memory than it has: a real job comes out right.
use crate::four_at_once::download_four;
use crate::rig::{LIMIT, Rig, succeeded, trapline, within};
use anyhow::{Context, Result, ensure};
use hostlink::memory::Entry;
use std::time::{Duration, Instant};
use trapline::launch::Options;
use trapline::machine::Vm;
use trapline::web::Server;

/// Sorts a file that lies in the VM's memory, piece by piece in place, and checks every line.
const JOB: &str = include_str!("swapped.sh");
/// Bytes of a place on the disk.
pub const SLOT: u64 = 9 * 512;

/// Sizes in MiB.
struct Sizes {
    memory: u64,
    resident: u64,
    file: u64,
    piece: u64,
}

fn boot(sizes: &Sizes) -> Result<Rig> {
    let (memory, resident) = (sizes.memory << 20, Some(sizes.resident << 20));
    Rig::boot_with(Options { memory, resident, ..Options::default() })
}

/// What the manager of the compute VM's memory says.
pub fn ledger(rig: &Rig) -> Result<Entry> {
    let entries = rig.machine.memory()?.entries;
    let found = entries.into_iter().find(|e| (&*e.manager, &*e.object) == ("swap", "ram-compute"));
    found.context("the swapping manager tells nothing")
}

fn sort(sizes: &Sizes, limit: Duration) -> Result<()> {
    let rig = boot(sizes)?;
    let script = format!("SIZE={}; PIECE={}\n{JOB}", sizes.file, sizes.piece);
    let outcome = rig.machine.run(Vm::Compute, &["sh", "-c", &script], limit)?;
    let said = succeeded("the job", &outcome)?;
    let expected = format!("{} lines are right", sizes.file * 1024);
    ensure!(said.contains(&expected), "{said}");
    let row = ledger(&rig)?.row;
    println!("{row:?}");
    ensure!(row.quota == sizes.resident << 20 && row.size == sizes.memory << 20, "{row:?}");
    // A quarter of the quota is for compressed pages.
    ensure!(row.resident_most <= row.quota - row.quota / 4, "too much was in RAM: {row:?}");
    ensure!(row.packed_bytes <= row.quota / 4, "too much was compressed: {row:?}");
    ensure!(row.packings > 0 && row.unpacked > 0, "nothing was compressed: {row:?}");
    ensure!(row.written > 0 && row.read > 0 && row.disk > 0, "nothing went to the disk: {row:?}");
    ensure!(row.lost == 0, "{row:?}");
    Ok(())
}

/// The scenario.
pub fn run() -> Result<()> {
    sort(&Sizes { memory: 320, resident: 96, file: 96, piece: 16 }, Duration::from_secs(300))
}

/// The same with 600 MiB in 384 MiB.
pub fn full() -> Result<()> {
    sort(&Sizes { memory: 1024, resident: 384, file: 600, piece: 60 }, Duration::from_secs(1800))
}

/// Trusted programs download while the pages of their VM come and go: monitor, relay and *device* fault too.
/// What `trapline top` says meanwhile.
pub fn downloads() -> Result<()> {
    let server = Server::start(2 << 20)?;
    let trust = vec!["curl".to_owned()];
    let (memory, resident) = (256 << 20, Some(64 << 20));
    let rig = Rig::boot_with(Options { memory, resident, trust, ..Options::default() })?;
    rig.succeed(
        "head -c 80M /dev/urandom > /tmp/much
         while :; do sha256sum /tmp/much; done > /dev/null 2>&1 < /dev/null &",
    )?;
    for sum in download_four(&rig, &server)? {
        ensure!(sum == server.sha256(), "another file arrived: {sum}");
    }
    let row = ledger(&rig)?.row;
    ensure!(row.read > 0 && row.spaces == 4 && row.lost == 0, "{row:?}");
    top()
}

/// The command tells the same, of each VM and of each manager, and that both VMs share the files that they boot from.
fn top() -> Result<()> {
    // Others may run machines, too. The second sample has rates.
    let pid = std::process::id().to_string();
    let arguments = ["top", "--json", "--count", "2", "--interval", "5", "--pid", &pid];
    let output = within(trapline()?.args(arguments), LIMIT)?;
    let last = String::from_utf8_lossy(&output.stdout);
    let last = last.trim().lines().nth(1).unwrap_or_default();
    let said: serde_json::Value = serde_json::from_str(last)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let found = |object: &str| {
        let all = said["objects"].as_array().into_iter().flatten();
        let mut rows = all.filter(|o| o["object"] == object).map(|o| o["row"].clone());
        rows.next().with_context(|| format!("'{object}' is missing: {said}"))
    };
    let kernel = found("vmlinuz")?;
    let amount = |row: &serde_json::Value, name: &str| row[name].as_u64().unwrap_or(0);
    ensure!(amount(&kernel, "spaces") == 2 && amount(&kernel, "resident") > 0, "{kernel}");
    let twice = 2 * amount(&kernel, "resident");
    ensure!(amount(&kernel, "shown") == twice, "it is not shared: {kernel}");
    ensure!(found("ram-compute")?["read"].as_u64() > Some(0), "{said}");
    // Both VMs and the relay see the root image.
    let root = found("root.erofs")?;
    ensure!(amount(&root, "spaces") == 3, "{root}");
    let machines = said["machines"].as_array().into_iter().flatten();
    let [compute, service] = machines.collect::<Vec<_>>()[..] else { anyhow::bail!("{said}") };
    ensure!(compute["name"] == "compute" && service["name"] == "service", "{said}");
    let (files, most) =
        ([compute, service].map(|vm| amount(vm, "shared")), amount(&root, "resident"));
    ensure!(files.iter().all(|shown| (1..=most).contains(shown)), "{files:?} of {most}");
    ensure!(files.iter().sum::<u64>() > most, "nothing is shared: {files:?} of {most}");
    let memory = &compute["memory"];
    for name in ["resident", "packed", "disk", "read", "written"] {
        ensure!(amount(memory, name) > 0, "no '{name}': {memory}");
    }
    ensure!(compute["per_second"]["faults"].as_f64() > Some(0.0), "no faults: {compute}");
    Ok(())
}

/// When the manager is made to end, to loop, and never to answer, in milliseconds after the system is up.
const FAILURES: [&str; 3] = ["fail.swap=20000,45000", "loop.swap=70000", "mute.swap=95000"];

/// The manager fails while pages come and go: the VM goes on, and each byte is what it was.
pub fn restarted() -> Result<()> {
    let (memory, resident) = (256 << 20, Some(64 << 20));
    let words = FAILURES.map(str::to_owned).into();
    let rig = Rig::boot_with(Options { memory, resident, words, ..Options::default() })?;
    let sum = "sha256sum < /tmp/much";
    let first = rig.succeed(&format!("head -c 80M /dev/urandom > /tmp/much; {sum}"))?;
    let end = Instant::now() + Duration::from_secs(600);
    loop {
        let log = std::fs::read_to_string(rig.machine.logs().join("kernel.log"))?;
        let restarts = log.matches("manager 'swap' was started again").count();
        // Once more after the last failure.
        ensure!(rig.succeed(sum)? == first, "the file has changed");
        if restarts == 4 {
            let silent = log.matches("manager 'swap' does not answer").count();
            ensure!(silent == 2, "it was found silent {silent} times");
            break;
        }
        ensure!(Instant::now() < end, "it was started again {restarts} times");
    }
    let row = ledger(&rig)?.row;
    ensure!(row.read > 0 && row.lost == 0, "{row:?}");
    let service = succeeded("the service VM", &rig.service("echo still here")?)?;
    ensure!(service.trim() == "still here", "{service}");
    Ok(())
}
