//! `trapline top`: what is in memory, of which manager and of which VM, and what is not.
use crate::cache::Cache;
use crate::machine::{Vm, attach};
use crate::supervise;
use anyhow::Result;
use hostlink::memory::{Entry, Heap, Sample};
use ledger::{Row, SPACE};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Options of `trapline top`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Print one JSON object per sample
    #[arg(long)]
    json: bool,
    /// Seconds between samples
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    interval: u64,
    /// End after so many samples, instead of with the machine
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Show the machine of this `trapline` process, instead of the one that was started last
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// Events per second since the sample before.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
struct Rates {
    faults: f64,
    put_off: f64,
    unpacked: f64,
    read: f64,
    written: f64,
}

/// A line of a sample.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    entry: Entry,
    per_second: Rates,
}

/// What a VM has.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Guest {
    name: &'static str,
    /// The manager of its memory, and what that tells of it.
    manager: String,
    memory: Row,
    /// Bytes of files that it is shown, of which there is one copy for all.
    shared: u64,
    /// Events of its memory; faults on shared files are counted among the faults.
    per_second: Rates,
}

/// The VMs among the lines.
fn guests(lines: &[Line]) -> Vec<Guest> {
    let guest = |vm: Vm| {
        let name = vm.name();
        let line = |object: String| lines.iter().find(|line| line.entry.object == object);
        let memory = line(format!("ram-{name}"))?;
        let files = line(format!("{SPACE}{name}"));
        let faults = files.map_or(0.0, |files| files.per_second.faults);
        Some(Guest {
            name,
            manager: memory.entry.manager.clone(),
            memory: memory.entry.row,
            shared: files.map_or(0, |files| files.entry.row.shown),
            per_second: Rates { faults: memory.per_second.faults + faults, ..memory.per_second },
        })
    };
    [Vm::Compute, Vm::Service].into_iter().filter_map(guest).collect()
}

/// Shows samples of a machine, until it ends.
///
/// # Errors
/// None is running.
pub fn top(arguments: &Arguments) -> Result<u8> {
    let path = attach::find(&Cache::open()?, arguments.pid)?;
    let mut before: Option<(Instant, Sample)> = None;
    let mut shown = 0;
    loop {
        let sample = match attach::ask(&path) {
            Ok(sample) => sample,
            // The end of the machine is the end of this, unless nothing was shown at all.
            Err(error) => return if before.is_some() { Ok(0) } else { Err(error) },
        };
        let lines = lines(&sample, before.as_ref());
        let text = if arguments.json { json(&lines, &sample.1)? } else { table(&lines, &sample.1) };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            // Whoever read this has gone.
            return Ok(0);
        }
        drop(out);
        before = Some(sample);
        shown += 1;
        if arguments.count == Some(shown) {
            return Ok(0);
        }
        pause(Duration::from_secs(arguments.interval.max(1)))?;
    }
}

fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        supervise::check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn lines(now: &(Instant, Sample), before: Option<&(Instant, Sample)>) -> Vec<Line> {
    let line = |entry: &Entry| {
        let per_second = before.map_or_else(Rates::default, |(then, sample)| {
            let same = |e: &&Entry| e.manager == entry.manager && e.object == entry.object;
            let old = sample.entries.iter().find(same).map(|e| e.row).unwrap_or_default();
            let seconds = now.0.duration_since(*then).as_secs_f64().max(0.001);
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
            let row = entry.row;
            Rates {
                faults: rate(row.faults, old.faults),
                put_off: rate(row.put_off, old.put_off),
                unpacked: rate(row.unpacked, old.unpacked),
                read: rate(row.read, old.read),
                written: rate(row.written, old.written),
            }
        });
        Line { entry: entry.clone(), per_second }
    };
    now.1.entries.iter().map(line).collect()
}

fn json(lines: &[Line], Sample { heaps, kernel, .. }: &Sample) -> Result<String> {
    let machines = guests(lines);
    let sample = serde_json::json!({
        "machines": machines, "objects": lines, "heaps": heaps, "kernel": kernel,
    });
    Ok(serde_json::to_string(&sample)?)
}

/// Amounts in MiB; what is zero is left out.
fn table(lines: &[Line], Sample { heaps, kernel, .. }: &Sample) -> String {
    let mut text = String::from(
        "manager  object              size    RAM   most  shown spaces compressed(in)   disk \
         | /s: faults  later unpack   read  write   lost\n",
    );
    for Line { entry: Entry { manager, object, row }, per_second: rates } in lines {
        let packed = packed(row);
        let _ = writeln!(
            text,
            "{manager:8} {object:16} {:>7} {:>6} {:>6} {:>6} {:>6} {packed:>14} {:>6} | {:>10} {:>6} \
             {:>6} {:>6} {:>6} {:>6}",
            amount(row.size),
            amount(row.resident),
            amount(row.resident_most),
            amount(row.shown),
            count(row.spaces as f64),
            amount(row.disk),
            count(rates.faults),
            count(rates.put_off),
            count(rates.unpacked),
            count(rates.read),
            count(rates.written),
            count(row.lost as f64),
        );
    }
    text.push_str(&guest_table(lines));
    let once: u64 = lines.iter().map(|line| saved(&line.entry)).sum();
    let _ = writeln!(text, "shown more than once, and in RAM once: {} MiB", amount(once));
    let heap = |h: &Heap| format!("{} {}/{}", h.program, h.used >> 10, h.size >> 10);
    let heaps: Vec<String> = heaps.iter().map(heap).collect();
    let _ = writeln!(text, "heaps, KiB in use: {}", heaps.join(", "));
    let _ = writeln!(
        text,
        "kernel: {} objects, {} KiB; faults {}, refused {}, late {}",
        kernel.objects,
        kernel.bytes >> 10,
        kernel.faults,
        kernel.faults_refused,
        kernel.faults_late
    );
    text
}

/// The same for each VM.
fn guest_table(lines: &[Line]) -> String {
    let mut text = String::from(
        "VM       memory of          size    RAM shared compressed(in)   disk \
         | /s: faults  later unpack   read  write\n",
    );
    for Guest { name, manager, memory: row, shared, per_second: rates } in guests(lines) {
        let _ = writeln!(
            text,
            "{name:8} {manager:16} {:>7} {:>6} {:>6} {:>14} {:>6} | {:>10} {:>6} {:>6} {:>6} {:>6}",
            amount(row.size),
            amount(row.resident),
            amount(shared),
            packed(&row),
            amount(row.disk),
            count(rates.faults),
            count(rates.put_off),
            count(rates.unpacked),
            count(rates.read),
            count(rates.written),
        );
    }
    text
}

/// Bytes that would be in RAM too if no space shared them with another one.
fn saved(entry: &Entry) -> u64 {
    if entry.object.starts_with(SPACE) {
        return 0;
    }
    entry.row.shown.saturating_sub(entry.row.resident)
}

/// What is compressed, and what it takes.
fn packed(row: &Row) -> String {
    match row.packed {
        0 => String::new(),
        packed => format!("{}({})", amount(packed), amount(row.packed_bytes)),
    }
}

fn amount(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { format!("{:.1}", bytes as f64 / (1 << 20) as f64) }
}

fn count(number: f64) -> String {
    if number == 0.0 { String::new() } else { format!("{number:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostlink::memory::Kernel;

    const KERNEL: Kernel =
        Kernel { objects: 7, bytes: 4096, faults: 9, faults_refused: 0, faults_late: 0 };

    fn sample(faults: u64) -> Sample {
        let row =
            Row { size: 3 << 20, resident: 1 << 20, shown: 2 << 20, faults, ..Row::default() };
        let entry = Entry { manager: "image".into(), object: "root.erofs".into(), row };
        let heap = Heap { program: "net".into(), used: 3 << 10, size: 4 << 20 };
        Sample { entries: vec![entry], heaps: vec![heap], kernel: KERNEL }
    }

    #[test]
    fn rates_are_those_since_the_sample_before() {
        let start = Instant::now();
        let later = start + Duration::from_secs(4);
        let before = (start, sample(10));
        let lines = lines(&(later, sample(50)), Some(&before));
        assert_eq!(lines[0].per_second.faults, 10.0);
        let text = table(&lines, &sample(50));
        assert!(text.contains("root.erofs"), "{text}");
        assert!(text.contains("in RAM once: 1.0 MiB"), "{text}");
        assert!(text.contains("net 3/4096"), "{text}");
        assert!(text.contains("kernel: 7 objects, 4 KiB; faults 9"), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&json(&lines, &sample(50)).expect("text")).expect("JSON");
        assert_eq!(json["objects"][0]["row"]["faults"], 50);
        assert_eq!(json["objects"][0]["per_second"]["faults"], 10.0);
        assert_eq!(json["heaps"][0]["used"], 3 << 10);
        assert_eq!(json["kernel"]["objects"], 7);
    }

    #[test]
    fn each_machine_has_its_memory_and_its_files() {
        let entry = |manager: &str, object: &str, faults| {
            let row = Row { resident: 5 << 20, shown: 7 << 20, faults, ..Row::default() };
            Entry { manager: manager.into(), object: object.into(), row }
        };
        let sample = |faults| {
            let all = [
                ("swap", "ram-compute"),
                ("image", "root.erofs"),
                ("image", "@compute"),
                ("image", "@relay"),
                ("anon", "ram-service"),
            ];
            let entries = all.map(|(manager, object)| entry(manager, object, faults)).into();
            Sample { entries, heaps: Vec::new(), kernel: KERNEL }
        };
        let start = Instant::now();
        let (before, later) = ((start, sample(10)), (start + Duration::from_secs(1), sample(30)));
        let lines = lines(&later, Some(&before));
        let [compute, service] = guests(&lines).try_into().expect("two machines");
        assert_eq!((compute.name, &*compute.manager, compute.shared), ("compute", "swap", 7 << 20));
        assert_eq!(compute.per_second.faults, 40.0);
        assert_eq!((service.name, &*service.manager, service.shared), ("service", "anon", 0));
        assert_eq!(service.per_second.faults, 20.0);
        let text = table(&lines, &later.1);
        // Two of the memories and the file; what is told of spaces is in them already.
        assert!(text.contains("in RAM once: 6.0 MiB"), "{text}");
    }

    #[test]
    fn the_first_sample_has_no_rates() {
        let lines = lines(&(Instant::now(), sample(10)), None);
        assert_eq!(lines[0].per_second, Rates::default());
    }
}
