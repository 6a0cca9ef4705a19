//! `redis-server`, trusted in the compute VM, under `redis-benchmark` on this machine; values that
//! come back, and messages to subscribers.
use crate::served::{LIMIT, Served};
use anyhow::{Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Its port.
pub const PORT: u16 = 6379;

/// Starts it; its process number.
pub fn start(served: &Served) -> Result<u32> {
    let options = "--bind 0.0.0.0 --protected-mode no --save '' --appendonly no --dir /tmp";
    served.start(&format!("redis-server --port {PORT} {options}"))
}

/// `redis-benchmark` through a port of this machine.
pub fn benchmark(served: &Served, port: u16, tests: &str, options: &[&str]) -> Result<()> {
    let port = port.to_string();
    let common = ["-h", "127.0.0.1", "-p", &port, "--csv", "-t", tests];
    let said = served.tools.run("redis-benchmark", &[&common, options].concat(), LIMIT)?;
    // A line of titles, then one for each test.
    let (count, lines) = (tests.split(',').count(), said.lines().count());
    ensure!(lines == count + 1 && !said.contains("rror"), "redis-benchmark: {said}");
    Ok(())
}

/// The scenario.
pub fn run() -> Result<()> {
    let served = Served::boot(&["redis-server"], PORT)?;
    let pid = start(&served)?;
    served.reach(|| talk(&mut connect(served.port)?, b"PING\r\n", b"+PONG\r\n"))?;
    value(served.port)?;
    subscribers(served.port)?;
    let benchmark = |tests: &str, options: &[&str]| benchmark(&served, served.port, tests, options);
    benchmark("set,get,incr,lpush,mset", &["-c", "32", "-n", "96"])?;
    benchmark("set,get,lpush", &["-c", "8", "-n", "2048", "-P", "32"])?;
    benchmark("set,get", &["-c", "8", "-n", "24", "-d", "50000"])?;
    served.stop(pid)
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

fn expect(stream: &mut TcpStream, expected: &[u8]) -> Result<()> {
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer)?;
    ensure!(
        answer == expected,
        "'{}', not '{}'",
        answer[..answer.len().min(200)].escape_ascii(),
        expected[..expected.len().min(200)].escape_ascii()
    );
    Ok(())
}

fn talk(stream: &mut TcpStream, said: &[u8], answer: &[u8]) -> Result<()> {
    stream.write_all(said)?;
    expect(stream, answer)
}

/// A large value comes back as it was.
fn value(port: u16) -> Result<()> {
    let value: Vec<u8> =
        (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let bulk = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
    let mut stream = connect(port)?;
    let set = [b"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n".as_slice(), &bulk].concat();
    talk(&mut stream, &set, b"+OK\r\n")?;
    talk(&mut stream, b"GET large\r\n", &bulk)
}

/// Each of some subscribers gets each message, in order.
fn subscribers(port: u16) -> Result<()> {
    let confirmed = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    let mut all = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(port)?;
        talk(&mut stream, b"SUBSCRIBE news\r\n", confirmed)?;
        all.push(stream);
    }
    let mut publisher = connect(port)?;
    let (said, answers): (String, String) =
        (100..200).map(|n| (format!("PUBLISH news {n}\r\n"), ":8\r\n")).unzip();
    talk(&mut publisher, said.as_bytes(), answers.as_bytes())?;
    let messages: String =
        (100..200).map(|n| format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$3\r\n{n}\r\n")).collect();
    all.iter_mut().try_for_each(|stream| expect(stream, messages.as_bytes()))
}
