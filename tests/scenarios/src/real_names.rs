//! Names looked up by `host`, which speaks DNS itself, and by `getent`, at a resolver in the service
//! VM: over UDP, over TCP, and over TCP after an answer that was cut.
use crate::real_python::start_resolver;
use crate::rig::Rig;
use crate::served::PACKAGES;
use anyhow::{Result, ensure};
use trapline::launch::Options;

/// The resolver puts the question's first letter into the address.
const ANSWERS: &[(&str, &str, char)] = &[
    ("host -t A short.test", "short.test", 's'),
    ("host -t A long.test", "long.test", 'l'),
    ("host -T -t A short.test 10.0.2.15", "short.test", 's'),
    ("host -T -t A tcp.test 10.0.2.15", "tcp.test", 't'),
    ("getent ahostsv4 short.test", "short.test", 's'),
    ("getent ahostsv4 long.test", "long.test", 'l'),
];

/// The scenario.
pub fn run() -> Result<()> {
    let rig = Rig::boot_with(Options {
        trust: ["host", "getent"].map(str::to_owned).to_vec(),
        packages: PACKAGES.iter().map(|name| (*name).to_owned()).collect(),
        ..Options::default()
    })?;
    start_resolver(&rig)?;
    for (script, name, letter) in ANSWERS {
        let said = rig.succeed(script)?;
        let address = format!("192.0.2.{}", u32::from(*letter));
        ensure!(said.contains(&address) && said.contains(name), "{script}: '{said}'");
    }
    // Nobody answers there.
    let outcome = rig.compute("host -W 2 -R 1 -t A short.test 10.0.2.77")?;
    ensure!(outcome.status != 0, "an answer came from nowhere");
    rig.wait_for_stats("something is left", |s| s.processes == 0 && s.descriptors == 0)?;
    Ok(())
}
