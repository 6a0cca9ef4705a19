//! Without trust nothing in the compute VM reaches the network, whatever it tries.
use crate::rig::{Rig, text};
use anyhow::{Result, ensure};
use trapline::web::{HOST, Server};

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(1000)?;
    let rig = Rig::boot(&[])?;
    ensure!(rig.succeed("ls /sys/class/net")?.trim() == "lo", "there are network devices");
    let (url, port) = (server.url(), server.port());
    let attempts = [
        format!("curl -sS -m 10 {url}"),
        format!("wget -q -T 10 -t 1 -O - {url}"),
        format!("nc -w 5 {HOST} {port} </dev/null"),
        format!("python3 -c 'import urllib.request as u; u.urlopen(\"{url}\", timeout=10)'"),
        format!("bash -c 'echo x >/dev/tcp/{HOST}/{port}'"),
        format!("/run/trapline/launcher /usr/bin/curl -sS -m 10 {url}"),
        "ip link add dummy0 type dummy && ip addr add 10.0.2.9/24 dev dummy0".to_owned()
            + &format!(" && ip link set dummy0 up && curl -sS -m 5 {url}"),
    ];
    for attempt in &attempts {
        let outcome = rig.compute(attempt)?;
        ensure!(outcome.status != 0, "'{attempt}' got through: {}", text(&outcome));
    }
    ensure!(server.connections() == 0, "the web server saw a connection");
    Ok(())
}
