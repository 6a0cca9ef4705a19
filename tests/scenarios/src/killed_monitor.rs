//! A monitor fails. The service VM's: errors at once, the compute VM goes on, the service VM starts again, and new sockets
//! work. The compute VM's: its user is told, and everything else runs on.
use crate::killed_delegate::{ends_badly, start_slow};
use crate::killed_service_vm::goes_on;
use crate::rig::Rig;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use trapline::launch::Options;
use trapline::web::Server;

/// When it fails, in milliseconds after the system is up. Where the machine is not in use by then, the next time counts.
const LATER: &str = "60000,150000,300000";

fn boot(how: &str, monitor: &str) -> Result<Rig> {
    Rig::boot_with(Options {
        trust: vec!["curl".into()],
        words: vec![format!("{how}.{monitor}={LATER}")],
        ..Options::default()
    })
}

fn in_log(rig: &Rig, line: &str) -> Result<usize> {
    Ok(std::fs::read_to_string(rig.machine.logs().join("kernel.log"))?.matches(line).count())
}

/// Waits until a line is in the log so many times.
fn wait_for_log(rig: &Rig, line: &str, times: usize) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(400);
    while in_log(rig, line)? < times {
        ensure!(Instant::now() < end, "'{line}' is not in the log");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The service VM's monitor ends.
pub fn service() -> Result<()> {
    fails("fail")
}

/// The service VM's monitor loops.
pub fn looping() -> Result<()> {
    fails("loop")
}

fn fails(how: &str) -> Result<()> {
    let server = Server::start(16 << 20)?;
    let rig = boot(how, "vmm-service")?;
    let again = "manager 'vmm-service' was started again";
    let session = start_slow(&rig, &server)?;
    let before = in_log(&rig, again)?;
    wait_for_log(&rig, again, before + 1)?;
    ends_badly(&rig, session)?;
    goes_on(&rig, &server)
}

/// The compute VM's monitor ends.
pub fn compute() -> Result<()> {
    let rig = boot("fail", "vmm-compute")?;
    ensure!(rig.succeed("echo alive")? == "alive\n", "the compute VM does not run");
    wait_for_log(&rig, "the compute VM is over: its monitor failed", 1)?;
    let console = rig.machine.logs().join("compute.log");
    let end = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(&console).unwrap_or_default().contains("its monitor failed") {
        ensure!(Instant::now() < end, "its user is not told");
        std::thread::sleep(Duration::from_millis(100));
    }
    let service = rig.service("echo alive")?;
    ensure!(service.stdout == b"alive\n", "the service VM does not go on");
    Ok(())
}
