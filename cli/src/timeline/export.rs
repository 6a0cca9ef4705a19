//! The Trace Event format, which Perfetto and Chromium's viewer open.
use super::events::{Event, Kind, Story};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The track of the kernel; those of threads are their numbers and [`THREADS`].
const KERNEL: u64 = 0;
const THREADS: u64 = 1;

/// All stories, one process of the viewer for each processor. Every `B` has its `E`.
#[must_use]
pub fn export(stories: &[Story]) -> Value {
    let mut out = Vec::new();
    let mut tracks = BTreeSet::new();
    for story in stories {
        Exporter { rate: story.rate.max(1), open: BTreeMap::new(), out: &mut out }.story(story);
        tracks.extend(story.events.iter().map(|e| (e.cpu, e.thread)));
    }
    let mut names: Vec<Value> = Vec::new();
    for cpu in tracks.iter().map(|(cpu, _)| *cpu).collect::<BTreeSet<_>>() {
        names.push(name("process_name", cpu, KERNEL, &format!("processor {cpu}")));
        names.push(name("thread_name", cpu, KERNEL, "kernel"));
    }
    let threads = tracks.iter().filter(|(_, thread)| is_thread(*thread));
    names.extend(threads.map(|(cpu, thread)| {
        name("thread_name", *cpu, thread + THREADS, &format!("thread {thread}"))
    }));
    names.append(&mut out);
    json!({ "displayTimeUnit": "ns", "traceEvents": names })
}

/// Interrupts of an idle processor have none.
fn is_thread(number: u64) -> bool {
    number < u64::from(u32::MAX)
}

fn name(what: &str, pid: u64, tid: u64, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": pid, "tid": tid, "args": { "name": name } })
}

struct Exporter<'o> {
    rate: u64,
    /// What has begun, by processor: the track and the name.
    open: BTreeMap<u64, (u64, String)>,
    out: &'o mut Vec<Value>,
}

impl Exporter<'_> {
    fn story(mut self, story: &Story) {
        for event in &story.events {
            self.event(event);
        }
        let Some(last) = story.events.last() else { return };
        for cpu in self.open.keys().copied().collect::<Vec<_>>() {
            self.end(cpu, last.tsc);
        }
    }

    fn event(&mut self, event: &Event) {
        let Event { tsc, cpu, thread, kind } = event;
        match kind {
            Kind::Call(call) => self.begin(*cpu, *tsc, KERNEL, call.clone()),
            Kind::Vector(vector) => self.begin(*cpu, *tsc, KERNEL, format!("vector {vector:#x}")),
            Kind::Leave => self.begin(*cpu, *tsc, thread + THREADS, "runs".into()),
            Kind::Switch(from) => {
                let from = from.map_or("nothing".to_owned(), |from| format!("thread {from}"));
                self.instant(event, &format!("switch from {from} to thread {thread}"));
            }
            Kind::End(reason) => self.instant(event, &format!("thread {thread} ends: {reason}")),
            Kind::Boot(stage) => self.instant(event, &format!("boot, stage {stage}")),
            Kind::Other(what, a, b) => {
                self.instant(event, &format!("{what} of thread {thread}: {a:#x}, {b:#x}"));
            }
        }
    }

    /// Microseconds, as the format wants them.
    fn time(&self, tsc: u64) -> f64 {
        tsc as f64 * 1000.0 / self.rate as f64
    }

    fn begin(&mut self, cpu: u64, tsc: u64, track: u64, name: String) {
        self.end(cpu, tsc);
        let ts = self.time(tsc);
        self.out.push(json!({ "ph": "B", "name": name, "pid": cpu, "tid": track, "ts": ts }));
        self.open.insert(cpu, (track, name));
    }

    fn end(&mut self, cpu: u64, tsc: u64) {
        let Some((track, name)) = self.open.remove(&cpu) else { return };
        let ts = self.time(tsc);
        self.out.push(json!({ "ph": "E", "name": name, "pid": cpu, "tid": track, "ts": ts }));
    }

    fn instant(&mut self, event: &Event, name: &str) {
        let ts = self.time(event.tsc);
        let (pid, s) = (event.cpu, "t");
        self.out
            .push(json!({ "ph": "i", "name": name, "pid": pid, "tid": KERNEL, "ts": ts, "s": s }));
    }
}
