//! Many at once: a thousand remote connections of one process, two hundred trusted processes,
//! thousands of short connections. Afterwards everything is as before.
use crate::rig::{Rig, succeeded, text};
use crate::served::PACKAGES;
use anyhow::{Result, ensure};
use hostlink::relay::Stats;
use std::time::Duration;
use trapline::launch::Options;
use trapline::machine::Vm;

/// How long one of them may take.
const LIMIT: Duration = Duration::from_secs(240);

/// Connections of one process.
const CONNECTIONS: usize = 1000;
/// Trusted processes.
const PROCESSES: usize = 200;
/// Connections one after another, of each of 16 threads.
const SHORT: usize = 64;

/// A server of lines. It keeps the answers to `wait N` back until there are N of them, so that all
/// must be connected at the same time; other lines come back in capital letters.
const SERVER: &str = "
import selectors, socket
selector = selectors.DefaultSelector()
listener = socket.create_server(('10.0.2.15', 7030), backlog=2000)
listener.setblocking(False)
selector.register(listener, selectors.EVENT_READ, None)
waiting = []
def answer(client, line):
    if line.startswith(b'wait '):
        waiting.append(client)
        if len(waiting) == int(line[5:]):
            for each in waiting:
                each.sendall(b'all here\\n')
            waiting.clear()
    else:
        client.sendall(line.upper() + b'\\n')
open('/run/lines', 'w').write('up')
while True:
    for key, _ in selector.select():
        if key.data is None:
            client, _ = listener.accept()
            selector.register(client, selectors.EVENT_READ, [b''])
            continue
        data = key.fileobj.recv(4096)
        if not data:
            selector.unregister(key.fileobj)
            key.fileobj.close()
            continue
        *lines, key.data[0] = (key.data[0] + data).split(b'\\n')
        for line in lines:
            answer(key.fileobj, line)
";

/// Many connections of one process.
const MANY: &str = "
import asyncio, sys
count = int(sys.argv[1])
async def connect():
    reader, writer = await asyncio.open_connection('10.0.2.15', 7030)
    writer.write(b'wait %d\\n' % count)
    return reader, writer
async def talk(number, reader, writer):
    assert await reader.readline() == b'all here\\n'
    writer.write(b'number %d\\n' % number)
    assert await reader.readline() == b'NUMBER %d\\n' % number, number
    writer.close()
    await writer.wait_closed()
async def main():
    pairs = []
    for n in range(0, count, 50):
        pairs += await asyncio.gather(*(connect() for _ in range(min(50, count - n))))
    await asyncio.gather(*(talk(n, *pair) for n, pair in enumerate(pairs)))
    print('right:', count)
asyncio.run(main())
";

/// Short connections of 16 threads.
const THREADS: &str = "
import socket, sys, threading
right = [0] * 16
def work(thread):
    for n in range(int(sys.argv[1])):
        with socket.create_connection(('10.0.2.15', 7030)) as client:
            said = b'thread %d, %d\\n' % (thread, n)
            client.sendall(said)
            answer = b''
            while not answer.endswith(b'\\n'):
                answer += client.recv(100)
            right[thread] += answer == said.upper()
threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print('right:', sum(right))
";

/// Starts the server in the service VM, and brings the clients into the compute VM:
/// `/tmp/many.py COUNT` and `/tmp/threads.py COUNT`.
pub fn serve(rig: &Rig) -> Result<()> {
    let script = format!(
        "ulimit -n 8192; cat > /run/lines.py <<'END'\n{SERVER}END\n\
         python3 /run/lines.py > /run/lines.log 2>&1 < /dev/null &\n\
         for _ in $(seq 300); do test -s /run/lines && exit; sleep 0.1; done; \
         cat /run/lines.log >&2; exit 1"
    );
    succeeded("the server", &rig.service(&script)?)?;
    rig.succeed(&format!(
        "cat > /tmp/many.py <<'END'\n{MANY}END\ncat > /tmp/threads.py <<'END'\n{THREADS}END\n"
    ))?;
    Ok(())
}

/// The scenario.
pub fn run() -> Result<()> {
    let rig = Rig::boot_with(Options {
        trust: ["python3", "busybox"].map(str::to_owned).to_vec(),
        packages: PACKAGES.iter().map(|name| (*name).to_owned()).collect(),
        ..Options::default()
    })?;
    serve(&rig)?;
    // Pools and caches are as full as they get after the first of each.
    connections(&rig, 60)?;
    let before = idle(&rig)?;
    connections(&rig, CONNECTIONS)?;
    processes(&rig, PROCESSES)?;
    let said = succeed(&rig, &format!("python3 /tmp/threads.py {SHORT}"))?;
    ensure!(said == format!("right: {}\n", 16 * SHORT), "short connections: {said}");
    idle(&rig)?;
    as_before(&rig, &before).map(drop)
}

/// Runs a script in the compute VM that must succeed; it gets more time than others.
fn succeed(rig: &Rig, script: &str) -> Result<String> {
    succeeded(script, &rig.machine.run(Vm::Compute, &["sh", "-c", script], LIMIT)?)
}

fn connections(rig: &Rig, count: usize) -> Result<()> {
    let said = succeed(rig, &format!("ulimit -n 4096; python3 /tmp/many.py {count}"))?;
    ensure!(said == format!("right: {count}\n"), "{count} connections: {said}");
    Ok(())
}

/// As many processes; each has its say when all are connected.
fn processes(rig: &Rig, count: usize) -> Result<()> {
    let said = succeed(
        rig,
        &format!(
            "for n in $(seq {count}); do \
             (echo wait {count}; sleep 200) | busybox nc 10.0.2.15 7030 > /tmp/said.$n & done; \
             n=0; until test $(cat /tmp/said.* | grep -c 'all here') = {count}; do \
             n=$((n+1)); test $n -lt 400 || break; sleep 0.5; done; \
             cat /tmp/said.* | grep -c 'all here'; rm /tmp/said.*; \
             pkill busybox; pkill sleep; wait"
        ),
    );
    if said.as_ref().is_ok_and(|said| *said == format!("{count}\n")) {
        return Ok(());
    }
    let state = rig.service("ps aux | grep -c delegate; free; dmesg | tail -n 5")?;
    anyhow::bail!("{count} processes: {said:?}; {:?}; {}", rig.machine.stats(), text(&state));
}

fn idle(rig: &Rig) -> Result<Stats> {
    rig.wait_for_stats("something is left", |stats| {
        stats.processes == 0
            && stats.delegates == 0
            && stats.descriptors == 0
            && stats.in_service == 0
            && stats.workers == 0
    })
}

/// Waits until nothing is more than before; memory is given back in its own time.
pub fn as_before(rig: &Rig, before: &Stats) -> Result<Stats> {
    // An epoll instance forgets closed connections from time to time (`servicing::epoll`).
    let limit = before.heap + before.heap / 20 + (64 << 10);
    rig.wait_for_stats(&format!("there is more than before, {before:?}"), |after| {
        after.processes == before.processes
            && after.delegates == before.delegates
            && after.descriptors == before.descriptors
            && after.heap <= limit
    })
}
