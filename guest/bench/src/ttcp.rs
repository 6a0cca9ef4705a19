//! A transfer as TTCP makes it: writes, or reads, of 8 KiB over one TCP connection, with or without
//! a `select` before each of them.
use anyhow::{Context, Result, bail};
use nix::sys::select::{FdSet, select};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;

/// Bytes of a write, and room of a read.
const PIECE: usize = 8 << 10;

/// Which way the data go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To the peer.
    Send,
    /// From the peer.
    Receive,
}

impl Way {
    /// The way of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "send" => Some(Self::Send),
            "receive" => Some(Self::Receive),
            _ => None,
        }
    }
}

/// A transfer that can begin.
pub struct Transfer {
    stream: TcpStream,
    way: Way,
    bytes: u64,
    select: bool,
}

impl Transfer {
    /// Connects, and tells the peer what is wanted: a letter and eight bytes of length.
    pub fn open(way: Way, peer: Option<SocketAddr>, bytes: u64, select: bool) -> Result<Self> {
        let Some(peer) = peer else { bail!("a transfer needs --connect") };
        let mut stream =
            TcpStream::connect(peer).with_context(|| format!("cannot connect to {peer}"))?;
        let mut order = [0; 9];
        order[0] = if way == Way::Send { b's' } else { b'r' };
        order[1..].copy_from_slice(&bytes.to_le_bytes());
        stream.write_all(&order).context("no order could be sent")?;
        Ok(Self { stream, way, bytes, select })
    }

    /// Transfers everything; ends when all has arrived. Answers how many reads or writes it took.
    pub fn run(&mut self) -> Result<u64> {
        match self.way {
            Way::Send => self.send(),
            Way::Receive => self.receive(),
        }
    }

    fn ready(&self) -> Result<()> {
        if !self.select {
            return Ok(());
        }
        let mut set = FdSet::new();
        set.insert(self.stream.as_fd());
        let ready = match self.way {
            Way::Send => select(None, None, &mut set, None, None),
            Way::Receive => select(None, &mut set, None, None, None),
        };
        if ready.context("select")? != 1 {
            bail!("select returned, and the connection is not ready");
        }
        Ok(())
    }

    fn send(&mut self) -> Result<u64> {
        let piece = [b'x'; PIECE];
        let (mut left, mut calls) = (self.bytes, 0);
        while left > 0 {
            self.ready()?;
            let length = left.min(PIECE as u64) as usize;
            left -= self.stream.write(&piece[..length]).context("write")? as u64;
            calls += 1;
        }
        self.stream.shutdown(Shutdown::Write).context("shutdown")?;
        let mut answer = [0; 8];
        self.stream.read_exact(&mut answer).context("the peer's answer")?;
        if u64::from_le_bytes(answer) != self.bytes {
            bail!("{} of {} bytes arrived", u64::from_le_bytes(answer), self.bytes);
        }
        Ok(calls)
    }

    fn receive(&mut self) -> Result<u64> {
        let mut piece = [0; PIECE];
        let (mut got, mut calls) = (0, 0);
        loop {
            self.ready()?;
            calls += 1;
            match self.stream.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => got += n as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read"),
            }
        }
        if got != self.bytes {
            bail!("{got} of {} bytes arrived", self.bytes);
        }
        Ok(calls)
    }
}
