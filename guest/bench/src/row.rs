//! The rows: which descriptors a round selects, and which of them are ready.
use anyhow::{Context, Result, bail};
use nix::sys::select::{FdSet, select};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// One local descriptor, ready; a remote one has a higher number.
    Local,
    /// One local descriptor, ready; a remote one has a lower number.
    LocalHigh,
    /// A local one, ready, and a remote one that never is.
    LocalFirst,
    /// A remote one, ready.
    Remote,
    /// A remote one, ready, and a local one that never is.
    RemoteFirst,
    /// A byte is sent, waited for and read: nothing can be known beforehand.
    Echo,
    /// No loop: holds a connection until standard input ends.
    Hold,
}

impl Row {
    /// The row of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "base" | "untrusted" | "local" => Self::Local,
            "local-high" => Self::LocalHigh,
            "local+[remote]" => Self::LocalFirst,
            "remote" => Self::Remote,
            "[local]+remote" => Self::RemoteFirst,
            "remote-echo" => Self::Echo,
            "hold" => Self::Hold,
            _ => return None,
        })
    }
}

/// Open descriptors of a row.
pub struct Sockets {
    row: Row,
    local: UnixStream,
    /// Keeps the local pair open; what it wrote makes `local` ready.
    _peer: UnixStream,
    remote: Option<TcpStream>,
}

impl Sockets {
    /// Opens what the row needs and brings it into the state that the row wants. The remote
    /// connection comes last, so that its descriptor is the higher one, but for one row.
    pub fn open(row: Row, peer: Option<SocketAddr>) -> Result<Self> {
        let early = if row == Row::LocalHigh { connect(row, peer)? } else { None };
        let (local, mut other) = UnixStream::pair().context("socket pair")?;
        if matches!(row, Row::Local | Row::LocalHigh | Row::LocalFirst) {
            other.write_all(b"x").context("local write")?;
        }
        let mut remote = if early.is_some() { early } else { connect(row, peer)? };
        if matches!(row, Row::Remote | Row::RemoteFirst)
            && let Some(remote) = &mut remote
        {
            remote.write_all(b"d").context("remote write")?;
        }
        Ok(Self { row, local, _peer: other, remote })
    }

    /// One call.
    pub fn round(&mut self) -> Result<()> {
        if self.row == Row::Echo {
            self.tell(b"d")?;
        }
        let local = !matches!(self.row, Row::Remote | Row::Echo);
        let remote = !matches!(self.row, Row::Local | Row::LocalHigh);
        let local = local.then(|| self.local.as_fd());
        let remote = self.remote.as_ref().filter(|_| remote).map(AsFd::as_fd);
        let asked = [local, remote].into_iter().flatten();
        // Without a number `select` here looks for the highest one in all the set, which takes many times as
        // long as the call.
        let count = asked.clone().map(|fd| fd.as_raw_fd() + 1).max();
        let mut set = FdSet::new();
        asked.for_each(|fd| set.insert(fd));
        let ready = select(count, &mut set, None, None, None).context("select")?;
        if ready != 1 {
            bail!("select found {ready} descriptors ready, not 1");
        }
        if self.row == Row::Echo
            && let Some(remote) = &mut self.remote
        {
            remote.read_exact(&mut [0]).context("remote read")?;
        }
        Ok(())
    }

    fn tell(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(remote) = &mut self.remote else { return Ok(()) };
        remote.write_all(bytes).context("remote write")
    }

    /// Waits for the end of standard input.
    pub fn hold(&mut self) -> Result<()> {
        std::io::stdin().read_to_end(&mut Vec::new()).context("standard input")?;
        Ok(())
    }
}

/// The remote connection of a row.
fn connect(row: Row, peer: Option<SocketAddr>) -> Result<Option<TcpStream>> {
    match peer {
        Some(peer) => {
            let stream = TcpStream::connect(peer);
            let stream = stream.with_context(|| format!("cannot connect to {peer}"))?;
            stream.set_nodelay(true).context("TCP_NODELAY")?;
            Ok(Some(stream))
        }
        None if row == Row::Local => Ok(None),
        None => bail!("this row needs --connect"),
    }
}
