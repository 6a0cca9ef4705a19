//! Process 1 of both VMs: brings the machine up, then runs commands for the host. `guest/README.md`
//! says what it expects.
#![forbid(unsafe_code)]

mod agent;
mod log;
mod modules;
mod mounts;
mod netlink;
mod network;
mod parameters;
mod service;
mod settings;
mod vdso;

use parameters::{Parameters, Role};
use std::sync::Arc;

/// Everything before the agent; answers what stopped the boot.
fn boot() -> Result<(Parameters, Arc<agent::Line>), String> {
    mounts::early()?;
    let line =
        std::fs::read_to_string("/proc/cmdline").map_err(|e| format!("/proc/cmdline: {e}"))?;
    let parameters = Parameters::parse(&line);
    for word in &parameters.rejected {
        log::error(format_args!("kernel parameter {word:?} is not understood"));
    }
    if parameters.role == Role::Compute
        && let Err(failure) = vdso::show()
    {
        log::error(failure);
    }
    for failure in modules::load_all(parameters.role) {
        log::error(failure);
    }
    let agent = open_agent(&parameters)?;
    // From here on the host can be told in words.
    if let Err(failure) = prepare(&parameters) {
        agent.log(format!("fatal: {failure}"));
        return Err(failure);
    }
    Ok((parameters, Arc::new(agent)))
}

/// The nodes of all virtual consoles exist before the consoles do: wait until ours can be opened.
fn open_agent(parameters: &Parameters) -> Result<agent::Line, String> {
    let path = &parameters.agent;
    mounts::patiently(|| agent::Line::open(path)).map_err(|e| format!("{}: {e}", path.display()))
}

fn prepare(parameters: &Parameters) -> Result<(), String> {
    mounts::root(parameters)?;
    settings::apply();
    settings::trust(parameters);
    network::configure(parameters);
    Ok(())
}

fn main() {
    let (parameters, line) = boot().unwrap_or_else(|failure| log::fatal(failure));
    let reaper = agent::Reaper::start();
    if parameters.role == Role::Service {
        service::start(&parameters, &reaper, &line);
    }
    let end = agent::serve(&parameters, line, reaper);
    log::fatal(format_args!("{}: {end}", parameters.agent.display()));
}
