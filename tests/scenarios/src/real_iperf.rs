//! `iperf3`, trusted in the compute VM, against its server in the service VM: TCP both ways, UDP.
use crate::rig::{Rig, succeeded};
use anyhow::{Context, Result, ensure};
use trapline::launch::Options;

/// The scenario.
pub fn run() -> Result<()> {
    let rig = Rig::boot_with(Options {
        trust: vec!["/usr/bin/iperf3".into()],
        packages: vec!["iperf3".into()],
        ..Options::default()
    })?;
    let script = "iperf3 -s -D -I /run/iperf.pid --logfile /run/iperf.log";
    succeeded(script, &rig.service(script)?)?;
    let megabyte = 1_000_000.0;
    let tcp = measured(&rig, "-n 16M")?;
    bytes(&tcp, "sum_sent", 16.0 * megabyte)?;
    bytes(&tcp, "sum_received", 15.0 * megabyte)?;
    let back = measured(&rig, "-n 16M -R")?;
    bytes(&back, "sum_received", 15.0 * megabyte)?;
    let several = measured(&rig, "-n 8M -P 4")?;
    bytes(&several, "sum_received", 7.0 * megabyte)?;
    let udp = measured(&rig, "-u -b 4M -l 1200 -n 1M")?;
    bytes(&udp, "sum", megabyte)?;
    let lost = number(&udp, &["end", "sum", "lost_percent"])?;
    ensure!(lost < 50.0, "{lost} % of the datagrams were lost");
    Ok(())
}

fn measured(rig: &Rig, options: &str) -> Result<serde_json::Value> {
    let text = rig.succeed(&format!("iperf3 -J -c 10.0.2.15 {options}"))?;
    serde_json::from_str(&text).with_context(|| format!("iperf3 {options}: '{text}'"))
}

fn number(report: &serde_json::Value, path: &[&str]) -> Result<f64> {
    let value = path.iter().fold(report, |value, name| &value[*name]);
    value.as_f64().with_context(|| format!("no {path:?} in {report}"))
}

fn bytes(report: &serde_json::Value, sum: &str, least: f64) -> Result<()> {
    let moved = number(report, &["end", sum, "bytes"])?;
    ensure!(moved >= least, "{sum}: {moved} bytes, not {least}");
    Ok(())
}
