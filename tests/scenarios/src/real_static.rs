//! Programs that are static, have another libc or none, or a run-time system of their own, trusted in
//! the compute VM.
use crate::real_python::start_resolver;
use crate::rig::{Rig, succeeded};
use crate::served::PACKAGES;
use crate::tools::Tools;
use anyhow::{Context, Result, ensure};
use std::process::Command;
use trapline::command::output;
use trapline::launch::Options;
use trapline::parts::Repository;
use trapline::web::{HOST, Server};

/// Where programs that are built here are put: among those that belong to no package.
const BARE: &str = "/run/trapline/bare";
const MUSL: &str = "/run/trapline/musl";

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
        trust: ["busybox", "gobuster", BARE, MUSL].map(str::to_owned).to_vec(),
        packages: PACKAGES.iter().map(|name| (*name).to_owned()).collect(),
        ..Options::default()
    })?;
    let sum = rig.succeed(&format!("busybox wget -q -O - {} | sha256sum", server.url()))?;
    ensure!(sum.starts_with(&server.sha256()), "busybox wget: {sum}");
    go(&rig, &server)?;
    echo(&rig)?;
    bare(&rig)?;
    musl(&rig)?;
    rig.wait_for_stats("something is left", |s| s.processes == 0 && s.descriptors == 0)?;
    Ok(())
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

/// Starts the echo server in the service VM.
fn echo(rig: &Rig) -> Result<()> {
    let script = format!(
        "cat > /run/echo.py <<'END'\n{ECHO}END\n\
         python3 /run/echo.py > /run/echo.log 2>&1 < /dev/null &\n\
         for _ in $(seq 300); do test -s /run/echo && exit; sleep 0.1; done; \
         cat /run/echo.log >&2; exit 1"
    );
    succeeded("the echo server", &rig.service(&script)?).map(drop)
}

/// A program of system calls alone, whose threads all have the same FS base.
fn bare(rig: &Rig) -> Result<()> {
    bring(rig, "bare.c", BARE, |compiler| {
        compiler.args(["-nostdlib", "-fno-builtin"]);
    })?;
    let said = rig.succeed("bare 7020")?;
    ensure!(said == "all answers\n", "bare: '{said}'");
    Ok(())
}

/// Another libc, with a resolver and threads of its own.
fn musl(rig: &Rig) -> Result<()> {
    let tools = Tools::open()?;
    let library = tools.path("usr/lib/x86_64-linux-musl");
    let compile = |compiler: &mut Command| {
        compiler.args(["-nostdlib", "-nostdinc", "-isystem"]);
        compiler.arg(tools.path("usr/include/x86_64-linux-musl"));
        compiler.args(["crt1.o", "crti.o", "libc.a", "crtn.o"].map(|name| library.join(name)));
        compiler.arg("-lgcc");
    };
    bring(rig, "musl.c", MUSL, compile)?;
    start_resolver(rig)?;
    let said = rig.succeed("musl short.test 7020")?;
    let address = format!("192.0.2.{}", u32::from(b's'));
    ensure!(said == format!("{address}\nall answers\n"), "musl: '{said}'");
    Ok(())
}

/// Builds a program from its source, and puts it into the compute VM.
fn bring(rig: &Rig, source: &str, place: &str, more: impl Fn(&mut Command)) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("program");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-static", "-fno-stack-protector", "-o"]).arg(&program);
    compiler.arg(Repository::find()?.path("tests/scenarios/programs").join(source));
    more(&mut compiler);
    output(&mut compiler).with_context(|| format!("can't build {source}"))?;
    rig.put(&std::fs::read(&program)?, place)
}
