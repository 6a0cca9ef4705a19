//! Python, trusted in the compute VM: an `asyncio` server with many connections from this machine,
//! and names looked up over UDP and TCP at a resolver in the service VM.
use crate::rig::{LIMIT, Rig, succeeded, text};
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};
use trapline::launch::Options;
use trapline::machine::Vm;
use trapline::machine::qemu::Forward;
use trapline::machine::session::{Kept, command};

/// Connections that are open at the same time.
const CONNECTIONS: usize = 200;

/// An echo server; its readiness comes from `poll(2)`.
const ECHO: &str = "
import asyncio, selectors
async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, '0.0.0.0', 7007, backlog=300)
    await server.serve_forever()
loop = asyncio.SelectorEventLoop(selectors.PollSelector())
loop.run_until_complete(main())
";

/// A name server: over UDP it answers `short.test`, and says that the answer for any other name is
/// too long; over TCP it answers everything, with the question's first letter in the address.
const RESOLVER: &str = "
import socket, struct, threading
def answer(query, tcp):
    end = query.index(0, 12) + 5
    name, kind = query[12:end - 4], query[end - 4:end - 2]
    cut = not tcp and not name.startswith(b'\\x05short')
    good = kind == b'\\0\\1' and not cut
    flags = 0x8180 | (0x0200 if cut else 0)
    head = query[:2] + struct.pack('>HHHHH', flags, 1, 1 if good else 0, 0, 0)
    body = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4' + bytes([192, 0, 2, name[1]])
    return head + query[12:end] + (body if good else b'')
def tcp():
    listener = socket.create_server(('10.0.2.15', 53))
    while True:
        client, _ = listener.accept()
        while len(size := client.recv(2, socket.MSG_WAITALL)) == 2:
            query = client.recv(struct.unpack('>H', size)[0], socket.MSG_WAITALL)
            said = answer(query, True)
            client.sendall(struct.pack('>H', len(said)) + said)
        client.close()
threading.Thread(target=tcp).start()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('10.0.2.15', 53))
open('/run/resolver', 'w').write('up')
while True:
    query, sender = datagrams.recvfrom(2000)
    datagrams.sendto(answer(query, False), sender)
";

/// The scenario.
pub fn run() -> Result<()> {
    let forward = Forward { host: 0, guest: 7007 }.resolve()?;
    let rig = Rig::boot_with(Options {
        trust: vec!["python3".into()],
        forwards: vec![forward],
        ..Options::default()
    })?;
    names(&rig)?;
    rig.succeed(&format!("cat > /tmp/echo.py <<'END'\n{ECHO}END\n"))?;
    let mut server = rig.machine.exec(Vm::Compute, command(["python3", "/tmp/echo.py"]))?;
    server.close_stdin();
    connections(forward.host)?;
    server.signal(15);
    let status = server.wait(&rig.machine, &mut Kept::default(), Some(LIMIT))?;
    ensure!(status == Some(143), "the server did not end by SIGTERM: {status:?}");
    Ok(())
}

/// Starts the name server in the service VM, and has the compute VM ask it.
pub fn start_resolver(rig: &Rig) -> Result<()> {
    let script = format!(
        "cat > /run/resolver.py <<'END'\n{RESOLVER}END\n\
         python3 /run/resolver.py > /run/resolver.log 2>&1 < /dev/null &\n\
         for _ in $(seq 300); do test -s /run/resolver && exit; sleep 0.1; done; \
         cat /run/resolver.log >&2; exit 1"
    );
    let outcome = rig.service(&script)?;
    succeeded("the resolver", &outcome).with_context(|| text(&outcome))?;
    rig.succeed("echo nameserver 10.0.2.15 > /etc/resolv.conf")?;
    Ok(())
}

fn names(rig: &Rig) -> Result<()> {
    start_resolver(rig)?;
    let said = rig.succeed(
        "python3 -c \"\nimport socket\nfor name in ('short.test', 'long.test'):\n    \
         print(socket.gethostbyname(name), \
         socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)[0][4][0])\"",
    )?;
    let expected = format!(
        "192.0.2.{0} 192.0.2.{0}\n192.0.2.{1} 192.0.2.{1}\n",
        u32::from(b's'),
        u32::from(b'l')
    );
    ensure!(said == expected, "'{said}', not '{expected}'");
    Ok(())
}

/// Opens all connections, then talks on each, in two rounds.
fn connections(port: u16) -> Result<()> {
    let end = Instant::now() + LIMIT;
    let mut open: Vec<TcpStream> = Vec::new();
    // The forwarded port takes connections before anybody listens inside.
    while !matches!(open.first_mut().map(|stream| talk(stream, 0)), Some(Ok(()))) {
        ensure!(Instant::now() < end, "the server can't be reached");
        open.clear();
        open.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?);
        std::thread::sleep(Duration::from_millis(200));
    }
    while open.len() < CONNECTIONS {
        open.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?);
    }
    for round in 1..=2 {
        for (number, stream) in open.iter_mut().enumerate() {
            talk(stream, number).with_context(|| format!("round {round}, connection {number}"))?;
        }
    }
    Ok(())
}

fn talk(stream: &mut TcpStream, number: usize) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let line = format!("line {number}\n");
    stream.write_all(line.as_bytes())?;
    let mut answer = vec![0; line.len()];
    stream.read_exact(&mut answer)?;
    ensure!(answer == line.to_uppercase().as_bytes(), "another line came back");
    Ok(())
}
