//! The other side: a TCP and a UDP server on one port.
//!
//! The first line of a connection says what it does; a datagram's text does too.
use crate::value::pattern;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the peer waits where a case wants to be waiting first.
const LATER: Duration = Duration::from_millis(700);

/// Serves until the process is killed; prints the port first.
pub fn serve(address: SocketAddr) -> Result<()> {
    let (listener, datagrams) = (0..20)
        .find_map(|_| {
            let listener = TcpListener::bind(address).ok()?;
            let datagrams = UdpSocket::bind(listener.local_addr().ok()?).ok()?;
            Some((listener, datagrams))
        })
        .context("no port for the peer")?;
    println!("{}", listener.local_addr()?.port());
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            let (text, Ok(socket)) = (buffer[..length].to_vec(), datagrams.try_clone()) else {
                continue;
            };
            // Errors: the case has gone. What takes its time does so in a thread of its own; all
            // else is answered in order.
            let work = move || drop(datagram(&socket, &text, from));
            match &buffer[..length] {
                b"later" | b"stranger" => drop(std::thread::spawn(work)),
                _ => work(),
            }
        }
    });
    for client in listener.incoming().flatten() {
        std::thread::spawn(move || connection(client));
    }
    Ok(())
}

/// Answers a datagram: `size N` by one of that size, `two` by two, `stranger` from another port,
/// anything else by itself.
fn datagram(socket: &UdpSocket, text: &[u8], from: SocketAddr) -> std::io::Result<()> {
    let words = String::from_utf8_lossy(text).into_owned();
    match words.split(' ').collect::<Vec<_>>()[..] {
        ["size", number] => {
            socket.send_to(&pattern(number.parse().unwrap_or(0)), from)?;
        }
        ["two"] => {
            socket.send_to(b"first", from)?;
            socket.send_to(b"second", from)?;
        }
        ["stranger"] => {
            let other = UdpSocket::bind((socket.local_addr()?.ip(), 0))?;
            other.send_to(b"stranger", from)?;
            std::thread::sleep(Duration::from_millis(50));
            socket.send_to(b"peer", from)?;
        }
        ["later"] => {
            std::thread::sleep(LATER);
            socket.send_to(b"later", from)?;
        }
        _ => {
            socket.send_to(text, from)?;
        }
    }
    Ok(())
}

fn line(stream: &mut TcpStream) -> std::io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn connection(mut stream: TcpStream) -> std::io::Result<()> {
    let line = line(&mut stream)?;
    let words: Vec<&str> = line.split(' ').collect();
    if let ["connect", port, rest @ ..] = &words[..] {
        let port = port.parse().unwrap_or(0);
        let address = SocketAddr::new(stream.local_addr()?.ip(), port);
        let mut back = TcpStream::connect(address)?;
        let done = behave(&mut back, rest);
        stream.write_all(b"done\n")?;
        return done;
    }
    behave(&mut stream, &words)
}

fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 65536];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}

fn reset(stream: &TcpStream) -> std::io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    Ok(setsockopt(stream, sockopt::Linger, &linger)?)
}

fn behave(stream: &mut TcpStream, words: &[&str]) -> std::io::Result<()> {
    let number = |text: &str| text.parse().unwrap_or(0);
    match words {
        // Until the case closes its side.
        ["echo"] => echo(stream),
        // Says it, closes.
        ["say", text] => stream.write_all(text.as_bytes()),
        // Says it, and nothing else until the case closes its side.
        ["hold", text] => {
            stream.write_all(text.as_bytes())?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        }
        // The same, after a while.
        ["later", text] => {
            std::thread::sleep(LATER);
            behave(stream, &["hold", text])
        }
        // Twice, the second time after a while.
        ["twice", text] => {
            stream.write_all(text.as_bytes())?;
            behave(stream, &["later", text])
        }
        // Closes after a while.
        ["bye"] => {
            std::thread::sleep(LATER);
            Ok(())
        }
        // Many bytes, closes.
        ["many", length] => stream.write_all(&pattern(number(length))),
        // Resets the connection, at once or after a while.
        ["reset"] => reset(stream),
        ["reset-later"] => {
            std::thread::sleep(LATER);
            reset(stream)
        }
        // Ends its sending half, then tells how much came until the case ended its own.
        ["half"] => {
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        }
        ["count"] => {
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            write!(stream, "{}", crate::value::data(&all))
        }
        // Reads nothing for a while, then everything.
        ["stall"] => {
            std::thread::sleep(LATER * 3);
            stream.read_to_end(&mut Vec::new()).map(drop)
        }
        ["urgent"] => {
            stream.write_all(b"ab")?;
            send(stream.as_raw_fd(), b"!", MsgFlags::MSG_OOB)?;
            stream.write_all(b"cd")?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        }
        _ => not_reading(stream, words),
    }
}

/// Ports of clients whose connections shall be read from now on.
static RELEASED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

fn released() -> MutexGuard<'static, BTreeSet<u16>> {
    RELEASED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_for_release(stream: &TcpStream) -> std::io::Result<()> {
    let port = stream.peer_addr()?.port();
    while !released().remove(&port) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What a peer does that does not read what it is sent.
fn not_reading(stream: &mut TcpStream, words: &[&str]) -> std::io::Result<()> {
    match words {
        // Until the case closes its side.
        ["deaf"] => {
            let flags = PollFlags::from_bits_retain(libc::POLLRDHUP);
            poll(&mut [PollFd::new(stream.as_fd(), flags)], PollTimeout::NONE)?;
            Ok(())
        }
        // Until another connection releases the client's port.
        ["held"] => {
            wait_for_release(stream)?;
            std::io::copy(stream, &mut std::io::sink()).map(drop)
        }
        // The same, and says something then.
        ["asked", text] => {
            wait_for_release(stream)?;
            behave(stream, &["hold", text])
        }
        ["release", port] => {
            released().extend(port.parse::<u16>());
            stream.write_all(b"released")
        }
        _ => Ok(()),
    }
}
