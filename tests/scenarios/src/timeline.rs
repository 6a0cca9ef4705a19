//! `trapline timeline`: pictures and trace of a run, in the right order.
use crate::rig::{LIMIT, trapline, within};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What the picture of a process's life must hold, from top to bottom.
const LIFE: &[&str] = &[
    "initialize trap table",
    "remember addresses of call, trap and timer handlers",
    "create entry for process list",
    "load program and stack into memory",
    "set up stack, argument and program counter",
    "return-from-trap",
    "run main()",
    "call system call: trap via Log",
    "handle trap: do work of Log",
    "go on",
    "return from main: trap via Exit",
    "handle trap: exit",
    "end the thread",
    "free memory of process",
];

/// And that of a switch.
const SWITCH: &[&str] = &[
    "initialize trap table",
    "remember addresses of call, trap and timer handlers",
    "start interrupt timer",
    "timer counts",
    "process A runs",
    "timer interrupt",
    "save registers of A",
    "switch() from A to B",
    "return-from-trap (into B)",
    "restore registers of B",
    "process B runs",
];

/// The scenario.
pub fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().to_str().context("a path that is text")?;
    let output = within(trapline()?.args(["timeline", "--out", out]), LIMIT)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    picture(&folder.path().join("life.svg"), LIFE)?;
    picture(&folder.path().join("switch.svg"), SWITCH)?;
    trace(&folder.path().join("trace.json"))
}

/// Reads a picture with a parser; its texts, from top to bottom, hold these in this order.
fn picture(path: &Path, wanted: &[&str]) -> Result<()> {
    let text = std::fs::read_to_string(path)?;
    let mut texts = Vec::new();
    let mut depth = 0i32;
    for event in svg::read(&text)? {
        match event {
            svg::parser::Event::Tag(_, svg::node::element::tag::Type::Start, _) => depth += 1,
            svg::parser::Event::Tag(_, svg::node::element::tag::Type::End, _) => depth -= 1,
            svg::parser::Event::Text(text) => texts.push(text.to_owned()),
            svg::parser::Event::Error(error) => return Err(error).context("no SVG"),
            _ => {}
        }
    }
    ensure!(depth == 0, "{}: elements that don't end", path.display());
    let mut rest = texts.iter();
    for wanted in wanted {
        let found = rest.any(|text| text.contains(wanted));
        ensure!(found, "{}: no '{wanted}' where it belongs in {texts:#?}", path.display());
    }
    Ok(())
}

/// The trace is JSON, and what begins on a track ends there.
fn trace(path: &Path) -> Result<()> {
    let value: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let events = value["traceEvents"].as_array().context("no list of events")?;
    let mut open = BTreeMap::new();
    let mut pairs = 0;
    for event in events {
        let track = (event["pid"].as_u64(), event["tid"].as_u64());
        match event["ph"].as_str() {
            Some("B") => ensure!(open.insert(track, &event["name"]).is_none(), "{event}"),
            Some("E") => {
                ensure!(open.remove(&track) == Some(&event["name"]), "{event}");
                pairs += 1;
            }
            _ => {}
        }
    }
    ensure!(open.is_empty(), "{open:?}");
    ensure!(pairs > 20, "only {pairs} pairs");
    Ok(())
}
