//! Programs that are static, have no libc, or a run-time system of their own, trusted in the compute VM.
use crate::rig::{LIMIT, Rig, succeeded};
use crate::served::PACKAGES;
use anyhow::{Context, Result, ensure};
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use trapline::command::output;
use trapline::launch::Options;
use trapline::machine::Vm;
use trapline::machine::session::{Kept, command};
use trapline::parts::Repository;
use trapline::web::{HOST, Server};

/// Where the program without libc is put: among those that belong to no package.
const BARE: &str = "/run/trapline/bare";

/// Answers lines in capital letters, each connection in a thread.
const ECHO: &str = "
import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())
class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 100
server = Server(('10.0.2.15', 7020), Handler)
open('/run/echo', 'w').write('up')
server.serve_forever()
";

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(700_000)?;
    let rig = Rig::boot_with(Options {
        trust: ["busybox", "gobuster", BARE].map(str::to_owned).to_vec(),
        packages: PACKAGES.iter().map(|name| (*name).to_owned()).collect(),
        ..Options::default()
    })?;
    let sum = rig.succeed(&format!("busybox wget -q -O - {} | sha256sum", server.url()))?;
    ensure!(sum.starts_with(&server.sha256()), "busybox wget: {sum}");
    go(&rig, &server)?;
    bare(&rig)
}

/// A Go program: its scheduler has many threads, and sockets that never block.
fn go(rig: &Rig, server: &Server) -> Result<()> {
    let script = format!(
        "(seq -f none%g 60; echo small; seq -f more%g 60; echo file) > /tmp/words && \
         gobuster dir -q -z --no-color --no-error -t 8 -w /tmp/words -u http://{HOST}:{}/",
        server.port()
    );
    let said = rig.succeed(&script)?;
    // A line may begin with what erases a terminal's line.
    let mut found: Vec<&str> = said
        .lines()
        .filter_map(|line| Some(line.split_once('/')?.1.split(' ').next().unwrap_or_default()))
        .collect();
    found.sort_unstable();
    ensure!(found == ["file", "small"], "gobuster: {said}");
    Ok(())
}

/// A program of system calls alone, whose threads all have the same FS base.
fn bare(rig: &Rig) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("bare");
    compile(&Repository::find()?.path("tests/scenarios/programs/bare.c"), &program)?;
    let write = format!("cat > {BARE} && chmod 755 {BARE}");
    let mut session = rig.machine.exec(Vm::Compute, command(["sh", "-c", &write]))?;
    session.feed(Cursor::new(std::fs::read(&program)?))?;
    let status = session.wait(&rig.machine, &mut Kept::default(), Some(LIMIT))?;
    ensure!(status == Some(0), "the program could not be brought in: {status:?}");
    let script = format!(
        "cat > /run/echo.py <<'END'\n{ECHO}END\n\
         python3 /run/echo.py > /run/echo.log 2>&1 < /dev/null &\n\
         for _ in $(seq 300); do test -s /run/echo && exit; sleep 0.1; done; \
         cat /run/echo.log >&2; exit 1"
    );
    succeeded("the echo server", &rig.service(&script)?)?;
    let said = rig.succeed("bare 7020")?;
    ensure!(said == "all answers\n", "bare: '{said}'");
    rig.wait_for_stats("something is left", |s| s.processes == 0 && s.descriptors == 0)?;
    Ok(())
}

fn compile(source: &Path, program: &Path) -> Result<()> {
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-static", "-nostdlib", "-fno-stack-protector", "-fno-builtin", "-o"]);
    output(compiler.arg(program).arg(source)).map(drop).context("can't build bare.c")
}
