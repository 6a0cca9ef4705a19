//! Which programs work: the table in `doc/programs.md` is made from this list.
//!
//! `TRAPLINE_WRITE=1 ./trapline test programs_table` writes it.
use anyhow::{Context, Result, ensure};
use trapline::parts::Repository;

/// A real program that a scenario runs.
struct Program {
    /// Its name, with the parts of it that are trusted.
    name: &'static str,
    /// Debian package.
    package: &'static str,
    /// The scenario.
    scenario: &'static str,
    /// What is done with it, and checked.
    checked: &'static str,
}

/// Shorthand, so that the list reads as a table.
const fn program(
    name: &'static str,
    package: &'static str,
    scenario: &'static str,
    checked: &'static str,
) -> Program {
    Program { name, package, scenario, checked }
}

/// All of them. A scenario fails when its program does not work.
const PROGRAMS: &[Program] = &[
    program("curl", "curl", "demo", "a download; the sum"),
    program("curl", "curl", "four_at_once", "four downloads at once, signals, time-outs"),
    program("curl, POST", "curl", "programs", "an upload; what arrived"),
    program("wget", "wget", "programs", "a download; the sum"),
    program("nc", "netcat-openbsd", "programs", "a request by hand"),
    program("python3, urllib and threads", "python3", "programs", "four downloads; the sums"),
    program("python3, UDP", "python3", "programs", "a datagram and its answer"),
    program(
        "python3 -m http.server",
        "python3",
        "server_reached_from_the_host",
        "a server in the compute VM; requests from the host",
    ),
    program("scp and ssh", "openssh-client", "real_ssh", "64 MiB each way; the sums; a command"),
    program("git clone over http", "git", "real_git", "60 files; their sums, the history"),
    program("iperf3", "iperf3", "real_iperf", "TCP each way, four streams, UDP; what arrived"),
    program(
        "python3, asyncio",
        "python3",
        "real_python",
        "a server in the compute VM; 200 connections of the host; every answer",
    ),
    program("python3, glibc's resolver", "python3", "real_python", "names over UDP and over TCP"),
    program(
        "apache2, event MPM",
        "apache2-bin",
        "real_apache",
        "a server in the compute VM; `ab` with 32 connections of the host; a file",
    ),
    program(
        "nginx, four workers",
        "nginx",
        "real_nginx",
        "the same, also after a reload (new workers, same listener)",
    ),
    program(
        "redis-server",
        "redis-server",
        "real_redis",
        "`redis-benchmark` of the host, pipelines; a value of 3 MB; subscribers",
    ),
    program(
        "sshd, with its seccomp sandbox",
        "openssh-server",
        "real_sshd",
        "`scp` of the host, 64 MiB each way; the sums; four `ssh` at once",
    ),
    program(
        "host",
        "bind9-host",
        "real_names",
        "names over UDP, over TCP, and after an answer that was cut",
    ),
    program("getent", "libc-bin", "real_names", "names over UDP and over TCP"),
    program("busybox wget, static", "busybox-static", "real_static", "a download; the sum"),
    program(
        "gobuster, written in Go",
        "gobuster",
        "real_static",
        "122 requests on eight connections; the answers",
    ),
    program(
        "a client without libc",
        "none",
        "real_static",
        "`tests/scenarios/programs/bare.c`: twelve threads without thread-local storage; `epoll`",
    ),
    program(
        "a client with musl, static",
        "musl-dev",
        "real_static",
        "`tests/scenarios/programs/musl.c`: its own resolver; eight threads",
    ),
    program("python3, asyncio", "python3", "load", "1 000 connections at once; every answer"),
    program("busybox nc", "busybox-static", "load", "200 processes at once; every answer"),
    program("python3, threads", "python3", "load", "1 024 short connections of 16 threads"),
    program(
        "curl, ssh, git, python3, nginx, redis-server",
        "see above",
        "soak_short",
        "all in rotation, three jobs at a time; an hour of it with `--long`",
    ),
];

fn table() -> String {
    let mut text = String::from(
        "# Programs that work\n\n\
         Unmodified programs of Debian, trusted in the compute VM; each row is checked by the scenario\n\
         that it names (`./trapline test SCENARIO`). Made from the list in `tests/scenarios/src/table.rs`.\n\n\
         | program | package | scenario | what is done and checked |\n| --- | --- | --- | --- |\n",
    );
    for Program { name, package, scenario, checked } in PROGRAMS {
        text.push_str(&format!("| {name} | `{package}` | `{scenario}` | {checked} |\n"));
    }
    text
}

/// The scenario: the table is that of the list, and names scenarios that there are.
pub fn run() -> Result<()> {
    for entry in PROGRAMS {
        let exists = super::names().any(|name| name == entry.scenario);
        ensure!(exists, "{}: there is no scenario '{}'", entry.name, entry.scenario);
    }
    let path = Repository::find()?.path("doc/programs.md");
    if std::env::var_os("TRAPLINE_WRITE").is_some() {
        std::fs::write(&path, table())?;
    }
    let text = std::fs::read_to_string(&path).context("doc/programs.md")?;
    ensure!(
        text == table(),
        "doc/programs.md is stale: TRAPLINE_WRITE=1 ./trapline test programs_table"
    );
    Ok(())
}
