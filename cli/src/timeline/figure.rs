//! From records to the lines of the two figures. What stands in a line was recorded; nothing is made up.
use super::events::{Kind, Story};
use anyhow::{Context, Result};
use std::collections::BTreeSet;

/// Who does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    /// The kernel, or the root program on its behalf.
    Os,
    /// The processor.
    Hardware,
    /// The program.
    Program,
}

/// A line of a figure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Ticks since the figure's first record.
    pub time: u64,
    /// Who.
    pub column: Column,
    /// What.
    pub text: String,
}

#[derive(Default)]
struct Rows {
    start: Option<u64>,
    rows: Vec<Row>,
}

impl Rows {
    fn add(&mut self, tsc: u64, column: Column, text: impl Into<String>) {
        let start = *self.start.get_or_insert(tsc);
        self.rows.push(Row { time: tsc.saturating_sub(start), column, text: text.into() });
    }

    /// The machine has come to this stage of its start.
    fn boot(&mut self, tsc: u64, stage: u64) {
        if stage == 0 {
            self.add(tsc, Column::Os, "initialize trap table");
            let text = "remember addresses of call, trap and timer handlers";
            self.add(tsc, Column::Hardware, text);
        } else {
            self.add(tsc, Column::Os, "start interrupt timer, measure its rate");
            self.add(
                tsc,
                Column::Hardware,
                "timer counts; interrupts the processor when it is told to",
            );
        }
    }
}

/// What the operating system does when the root program makes this call for the process.
fn for_process(call: &str) -> Option<&'static str> {
    Some(match call {
        "CreateSpace" => "create entry for process list (its space)",
        "RegionBind" => "allocate memory: bind regions",
        "Map" => "load program and stack into memory",
        "CreateThread" => "set up stack, argument and program counter",
        "FaultPortal" => "ask to be told of its end",
        "CreateSc" => "make it runnable",
        "Wait" => "wait for its end",
        "Destroy" => "free memory of process, remove it from the list",
        _ => return None,
    })
}

/// The start of the machine and the life of a process.
///
/// # Errors
/// The records tell of none.
pub fn life(story: &Story) -> Result<Vec<Row>> {
    let first = story.events.iter().find(|e| e.kind == Kind::Leave);
    let root = first.context("nobody runs")?.thread;
    let process = story.events.iter().find_map(|e| match e.kind {
        Kind::Switch(from) if from == Some(root) => Some(e.thread),
        _ => None,
    });
    let process = process.context("no process runs")?;
    let mut rows = Rows::default();
    let (mut said, mut inside) = (BTreeSet::new(), false);
    for event in &story.events {
        let tsc = event.tsc;
        match &event.kind {
            Kind::Boot(stage) => rows.boot(tsc, *stage),
            Kind::Call(call) if event.thread == root => {
                // One step, however many regions and pages there are.
                if let Some(text) = for_process(call).filter(|text| said.insert(*text)) {
                    rows.add(tsc, Column::Os, text);
                }
            }
            Kind::Call(call) if event.thread == process => {
                rows.add(tsc, Column::Program, program_call(call));
                rows.add(
                    tsc,
                    Column::Hardware,
                    "save registers, kernel mode, jump to trap handler",
                );
                rows.add(tsc, Column::Os, os_call(call));
                inside = true;
            }
            Kind::Leave if event.thread == process => {
                rows.add(tsc, Column::Os, "return-from-trap");
                rows.add(tsc, Column::Hardware, "restore registers, user mode, jump to program");
                rows.add(tsc, Column::Program, if inside { "go on" } else { "run main()" });
            }
            Kind::Switch(_) if event.thread == process => {
                rows.add(tsc, Column::Os, "switch to the process");
            }
            Kind::End(0) if event.thread == process => {
                rows.add(tsc, Column::Os, "end the thread, tell who waits for it");
            }
            _ => {}
        }
    }
    Ok(rows.rows)
}

fn program_call(call: &str) -> String {
    match call {
        "Exit" => "return from main: trap via Exit".into(),
        other => format!("call system call: trap via {other}"),
    }
}

fn os_call(call: &str) -> String {
    match call {
        "Exit" => "handle trap: exit".into(),
        other => format!("handle trap: do work of {other}"),
    }
}

/// Vectors of interrupts; below are exceptions.
const FIRST_INTERRUPT: u64 = 0x20;

/// The first change from one process to another by the timer.
///
/// # Errors
/// The records tell of none.
pub fn switch(story: &Story) -> Result<Vec<Row>> {
    let events = &story.events;
    // The interrupted one, and who goes on at the end of the same stay in the kernel.
    let at = events.iter().enumerate().position(|(n, event)| {
        let interrupted = matches!(event.kind, Kind::Vector(v) if v >= FIRST_INTERRUPT);
        let after = events.get(n + 1).filter(|next| next.thread != event.thread);
        interrupted && after.is_some_and(|next| next.kind == Kind::Switch(Some(event.thread)))
    });
    let at = at.context("no timer interrupt changes the process")?;
    let (a, b) = (events.get(at), events.get(at + 1));
    let (a, b) = a.zip(b).map(|(a, b)| (a.thread, b.thread)).context("the records end")?;
    let name = |thread: u64| if thread == a { "A" } else { "B" };
    let begin = events.iter().take(at).rposition(|e| e.kind == Kind::Leave && e.thread == a);
    let mut rows = Rows::default();
    for event in events {
        if let Kind::Boot(stage) = event.kind {
            rows.boot(event.tsc, stage);
        }
    }
    for event in events.iter().skip(begin.unwrap_or(at)) {
        let (tsc, who) = (event.tsc, name(event.thread));
        match event.kind {
            Kind::Leave => {
                rows.add(tsc, Column::Os, format!("return-from-trap (into {who})"));
                let text = format!("restore registers of {who}, user mode, jump to {who}");
                rows.add(tsc, Column::Hardware, text);
                rows.add(tsc, Column::Program, format!("process {who} runs"));
                if event.thread == b {
                    break;
                }
            }
            Kind::Vector(vector) => {
                let text = format!("timer interrupt (vector {vector:#x})");
                rows.add(tsc, Column::Hardware, text);
                let text = format!("save registers of {who}, kernel mode, jump to handler");
                rows.add(tsc, Column::Hardware, text);
                rows.add(tsc, Column::Os, "handle the interrupt: the quantum is over");
            }
            Kind::Switch(_) => {
                rows.add(tsc, Column::Os, "choose the next thread: switch() from A to B");
                rows.add(tsc, Column::Os, "its frame and address space are B's now");
            }
            _ => {}
        }
    }
    Ok(rows.rows)
}
