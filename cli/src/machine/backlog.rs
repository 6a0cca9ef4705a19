//! Forwarded ports that take many connections at once.
//!
//! QEMU listens with a backlog of one. When several clients connect in the same moment, this
//! machine's kernel then drops what does not fit: some wait for seconds, some are reset after a minute,
//! and the server inside never hears of them. `listen` can be called again for a longer queue, by whoever
//! has the socket: here, QEMU's parent.
use super::qemu::Forward;
use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{getsockname, listen};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Connections that may wait until QEMU takes them.
const BACKLOG: i32 = 1024;

/// How long the process may take until it listens, and how often that is looked at.
const PATIENCE: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_millis(20);

/// Lengthens the queues of a process's listeners for these ports; waits for those that it has not
/// opened yet.
///
/// # Errors
/// A listener does not appear, or this machine does not let one reach it.
pub fn lengthen(process: u32, forwards: &[Forward]) -> Result<()> {
    lengthen_within(process, forwards, PATIENCE)
}

fn lengthen_within(process: u32, forwards: &[Forward], patience: Duration) -> Result<()> {
    let mut ports: Vec<u16> = forwards.iter().map(|forward| forward.host).collect();
    let end = Instant::now() + patience;
    while !ports.is_empty() {
        look(process, &mut ports)?;
        if !ports.is_empty() && Instant::now() > end {
            bail!("no access to QEMU's listeners for {ports:?}");
        }
        std::thread::sleep(PERIOD);
    }
    Ok(())
}

/// Lengthens the queues that there are, and takes their ports out.
fn look(process: u32, ports: &mut Vec<u16>) -> Result<()> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).context("no process number")?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let socket = match pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()) {
            Ok(socket) => socket,
            // It has been closed meanwhile.
            Err(Errno::BADF) => continue,
            Err(error) => return Err(error).context("no access to QEMU's descriptors"),
        };
        if socket_acceptconn(&socket) != Ok(true) {
            continue;
        }
        let address = getsockname(&socket).ok().and_then(|name| SocketAddr::try_from(name).ok());
        let mine = |port: &u16| address == Some(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
        if let Some(place) = ports.iter().position(mine) {
            listen(&socket, BACKLOG)?;
            ports.swap_remove(place);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn clients_that_come_at_the_same_time_get_in() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listen(&listener, 1).expect("a short queue");
        let port = listener.local_addr().expect("bound").port();
        let forward = Forward { host: port, guest: 1 };
        lengthen(std::process::id(), &[forward]).expect("lengthened");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(900));
        // Beyond its backlog, the kernel would not answer before a second has passed.
        let clients: Vec<_> = (0..50).map(|_| connect()).collect();
        assert!(clients.iter().all(Result::is_ok));
    }

    #[test]
    fn a_port_without_listener_is_named() {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let forward = Forward { host: port, guest: 1 };
        let outcome = lengthen_within(std::process::id(), &[forward], Duration::ZERO);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(&port.to_string()), "{error}");
    }
}
