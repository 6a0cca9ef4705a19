//! Trace records, as a program on the machine prints them into the kernel's log.
use anyhow::{Context, Result};

/// What a record tells (`abi::trace::Kind`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The thread entered the kernel by a system call of this name.
    Call(String),
    /// It was interrupted, or raised an exception: the vector.
    Vector(u64),
    /// The thread goes on outside of the kernel.
    Leave,
    /// The processor changed from another thread (none at first) to this one.
    Switch(Option<u64>),
    /// The thread is over, for this reason.
    End(u64),
    /// The machine came to this stage of its start.
    Boot(u64),
    /// A fault was sent to a manager, or a VM exited: its name, and the two words of the record.
    Other(String, u64, u64),
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Time-stamp counter.
    pub tsc: u64,
    /// Processor.
    pub cpu: u64,
    /// Thread.
    pub thread: u64,
    /// What happened.
    pub kind: Kind,
}

/// Some consecutive records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Story {
    /// Its name.
    pub name: String,
    /// Ticks of the time-stamp counter in a millisecond.
    pub rate: u64,
    /// The records, oldest first.
    pub events: Vec<Event>,
}

/// The stories in a log: `story|NAME|RATE`, then `trace|TSC|KIND|CPU|THREAD|A|B|CALL` lines.
///
/// # Errors
/// A line that makes no sense.
pub fn stories(log: &str) -> Result<Vec<Story>> {
    let mut stories: Vec<Story> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("story|") {
            let (name, rate) = rest.trim_end().split_once('|').context("a story without rate")?;
            let rate = rate.parse().with_context(|| format!("the rate in '{line}'"))?;
            stories.push(Story { name: name.to_owned(), rate, events: Vec::new() });
        } else if let Some((_, rest)) = line.split_once("trace|")
            && let Some(story) = stories.last_mut()
        {
            let event = event(rest.trim_end()).with_context(|| format!("bad record '{line}'"))?;
            story.events.push(event);
        }
    }
    stories.retain(|story| !story.name.is_empty());
    Ok(stories)
}

fn event(line: &str) -> Result<Event> {
    let words: Vec<&str> = line.split('|').collect();
    let [tsc, kind, cpu, thread, a, b, call] = words[..] else {
        anyhow::bail!("{} words", words.len())
    };
    let a: u64 = a.parse()?;
    let kind = match kind {
        "Enter" if call.is_empty() => Kind::Vector(a),
        "Enter" => Kind::Call(call.to_owned()),
        "Leave" => Kind::Leave,
        "Switch" => Kind::Switch((a != u64::MAX).then_some(a)),
        "End" => Kind::End(a),
        "Boot" => Kind::Boot(a),
        other => Kind::Other(other.to_owned(), a, b.parse()?),
    };
    Ok(Event { tsc: tsc.parse()?, cpu: cpu.parse()?, thread: thread.parse()?, kind })
}
