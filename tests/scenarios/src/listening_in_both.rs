//! A policy with `place = "both"`: servers in the compute VM are reached from this machine through the
//! service VM, and from the compute VM's own loopback, at the same time and under the same port.
use crate::policy::boot_with;
use crate::rig::{LIMIT, Rig, succeeded, text};
use anyhow::{Context, Result, ensure};
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};
use trapline::launch::Options;
use trapline::machine::Vm;
use trapline::machine::qemu::Forward;
use trapline::machine::session::{Kept, command};

/// Ports of the two servers, and two that somebody else has: in the compute and in the service VM.
const PORTS: [u16; 4] = [7101, 7102, 7103, 7104];
/// Connections from each side to each server.
const CONNECTIONS: usize = 20;

/// Two servers that tell their clients where these come from: one waits in `epoll`, one in `accept`.
const SERVERS: &str = "
import asyncio, errno, socket, threading
def taken(port):
    try: socket.socket().bind(('', port))
    except OSError as e: return errno.errorcode[e.errno]
print(taken(7103), taken(7104))
free = socket.create_server(('', 0))
port = free.getsockname()[1]
client = socket.create_connection(('127.0.0.1', port))
other = socket.create_connection(('10.0.2.15', port))
print(sorted(free.accept()[1][0] for _ in range(2)), flush=True)
def blocking():
    server = socket.create_server(('0.0.0.0', 7102), backlog=100)
    while True:
        client, peer = server.accept()
        client.sendall(peer[0].encode())
        client.close()
threading.Thread(target=blocking, daemon=True).start()
async def serve(reader, writer):
    writer.write(writer.get_extra_info('peername')[0].encode())
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, '0.0.0.0', 7101, backlog=100)
    await server.serve_forever()
asyncio.run(main())
";

/// The scenario.
pub fn run() -> Result<()> {
    let [first, second, own, remote] = PORTS;
    let forwards = [first, second].map(|guest| Forward { host: 0, guest }.resolve());
    let forwards = forwards.into_iter().collect::<Result<Vec<_>>>()?;
    let hosts: Vec<u16> = forwards.iter().map(|forward| forward.host).collect();
    let rig = boot_with(
        "[[program]]\npath = \"/usr/bin/python3\"\nconnect = [{ }]\n\
         listen = [{ place = \"both\", protocol = \"tcp\" }]\n",
        Options { forwards, ..Options::default() },
    )?;
    occupy(&rig, Vm::Compute, own)?;
    occupy(&rig, Vm::Service, remote)?;
    rig.succeed(&format!("cat > /tmp/servers.py <<'END'\n{SERVERS}END\n"))?;
    let script = "python3 /tmp/servers.py > /tmp/said 2>&1";
    let servers = rig.machine.exec(Vm::Compute, command(["sh", "-c", script]))?;
    servers.close_stdin();
    rig.wait_until(&format!("nc -z 127.0.0.1 {first} && nc -z 127.0.0.1 {second}"), LIMIT)?;
    let said = rig.succeed("cat /tmp/said")?;
    ensure!(said == "EADDRINUSE EADDRINUSE\n['10.0.2.15', '127.0.0.1']\n", "{said}");
    // Both sides at once.
    let script = format!(
        "for n in $(seq {CONNECTIONS}); do nc -w 60 127.0.0.1 {first} < /dev/null; echo; \
         nc -w 60 127.0.0.1 {second} < /dev/null; echo; done | sort | uniq -c > /tmp/inside"
    );
    let mut inside = rig.machine.exec(Vm::Compute, command(["sh", "-c", &script]))?;
    inside.close_stdin();
    for _ in 0..CONNECTIONS {
        for port in &hosts {
            let answer = ask(*port)?;
            ensure!(answer == "10.0.2.2", "the host's connection comes from '{answer}'");
        }
    }
    let status = inside.wait(&rig.machine, &mut Kept::default(), Some(LIMIT))?;
    let counts = rig.succeed("cat /tmp/inside")?;
    let expected = format!("{} 127.0.0.1", 2 * CONNECTIONS);
    ensure!(status == Some(0) && counts.trim() == expected, "inside: {status:?} '{counts}'");
    Ok(())
}

/// An untrusted program has the port.
fn occupy(rig: &Rig, vm: Vm, port: u16) -> Result<()> {
    let script = format!(
        "nc -lk {port} > /dev/null 2>&1 < /dev/null & \
         for _ in $(seq 100); do ss -Hltn | grep -q :{port} && exit; sleep 0.1; done; exit 1"
    );
    let outcome = rig.machine.run(vm, &["sh", "-c", &script], LIMIT)?;
    succeeded("nc", &outcome).map(drop).with_context(|| text(&outcome))
}

/// What the server says. A forwarded port takes connections before anybody listens inside.
fn ask(port: u16) -> Result<String> {
    let end = Instant::now() + LIMIT;
    loop {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Ok(_) if !answer.is_empty() => return Ok(answer),
            other => ensure!(Instant::now() < end, "no answer from port {port}: {other:?}"),
        }
    }
}
