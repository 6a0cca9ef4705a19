//! Servers in the compute VM under load from this machine.
use crate::rig::{Rig, text};
use crate::tools::Tools;
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};
use trapline::launch::Options;
use trapline::machine::qemu::Forward;
use trapline::web;

/// Packages of all scenarios with real servers: one root image serves them all.
pub const PACKAGES: &[&str] = &[
    "apache2-bin",
    "bind9-host",
    "busybox-static",
    "git",
    "gobuster",
    "nginx",
    "openssh-client",
    "openssh-server",
    "redis-server",
];

/// How long a client on this machine gets.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Numbers that the web servers serve as `/numbers`.
const NUMBERS: u32 = 20_000;

/// A machine whose trusted server is reached from here.
pub struct Served {
    /// The machine.
    pub rig: Rig,
    /// Programs of this machine.
    pub tools: Tools,
    /// The port of this machine that leads to the server.
    pub port: u16,
}

impl Served {
    /// Boots with these programs trusted, and a port that leads to `guest`.
    pub fn boot(trust: &[&str], guest: u16) -> Result<Self> {
        Ok(Self::boot_several(trust, &[guest])?.0)
    }

    /// The same with several ports; all of them are told, and the first is [`Self::port`].
    pub fn boot_several(trust: &[&str], guests: &[u16]) -> Result<(Self, Vec<u16>)> {
        let tools = Tools::open()?;
        let resolve = |guest: &u16| Forward { host: 0, guest: *guest }.resolve();
        let forwards = guests.iter().map(resolve).collect::<Result<Vec<_>>>()?;
        let rig = Rig::boot_with(Options {
            trust: trust.iter().map(|name| (*name).to_owned()).collect(),
            packages: PACKAGES.iter().map(|name| (*name).to_owned()).collect(),
            forwards: forwards.clone(),
            ..Options::default()
        })?;
        let ports: Vec<u16> = forwards.iter().map(|forward| forward.host).collect();
        let port = *ports.first().context("no port")?;
        Ok((Self { rig, tools, port }, ports))
    }

    /// Starts a server in the compute VM, its output in a log; its process number.
    pub fn start(&self, command: &str) -> Result<u32> {
        let script = format!("{command} > /tmp/server.log 2>&1 < /dev/null & echo $!");
        let pid = self.rig.succeed(&script)?;
        pid.trim().parse().with_context(|| format!("no process number: '{pid}'"))
    }

    /// Tries until it works; what the server wrote belongs to the error.
    pub fn reach<T>(&self, attempt: impl Fn() -> Result<T>) -> Result<T> {
        let end = Instant::now() + LIMIT;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() > end => {
                    let log =
                        self.rig.compute("tail -n 20 /tmp/server.log; ps aux | tail -n 20")?;
                    bail!("the server can't be reached: {error:#}; {}", text(&log));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    /// Makes the folder of web servers, `/tmp/www`.
    pub fn web_folder(&self) -> Result<()> {
        self.rig.succeed(&format!(
            "mkdir -p /tmp/www && seq 1 {NUMBERS} > /tmp/www/numbers && seq 1 1000 > /tmp/www/small"
        ))?;
        Ok(())
    }

    /// Gets `/numbers`, and compares it.
    pub fn numbers(&self) -> Result<()> {
        let expected: String = (1..=NUMBERS).map(|number| format!("{number}\n")).collect();
        let answer = web::get(self.port, "/numbers")?;
        ensure!(answer.ends_with(expected.as_bytes()), "got {} bytes", answer.len());
        Ok(())
    }

    /// `ab`: so many requests for a file on 32 connections at a time, unless the options say
    /// otherwise, none of which may fail.
    pub fn ab(&self, path: &str, requests: u32, options: &[&str]) -> Result<()> {
        let (count, url) = (requests.to_string(), format!("http://127.0.0.1:{}{path}", self.port));
        let common = ["-q", "-s", "90", "-c", "32", "-n", &count];
        let arguments = [&common, options, &[url.as_str()]].concat();
        let said = self.tools.run("ab", &arguments, LIMIT)?;
        let number = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok())
        };
        ensure!(number("Complete requests:") == Some(requests), "ab: {said}");
        ensure!(number("Failed requests:") == Some(0), "ab: {said}");
        ensure!(!said.contains("Non-2xx"), "ab: {said}");
        Ok(())
    }

    /// Ends a server, and waits until nothing of it is left.
    pub fn stop(&self, pid: u32) -> Result<()> {
        self.rig.succeed(&format!(
            "kill {pid}; n=0; while kill -0 {pid} 2> /dev/null; do n=$((n+1)); \
             test $n -lt 200 || {{ ps aux >&2; exit 1; }}; sleep 0.1; done"
        ))?;
        self.rig.wait_for_stats("something of the server is left", |stats| {
            stats.processes == 0 && stats.descriptors == 0 && stats.in_service == 0
        })?;
        Ok(())
    }
}
