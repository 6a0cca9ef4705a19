//! A small web server on this machine's loopback address, for demonstrations, tests and
//! benchmarks. The service VM reaches it as [`HOST`].
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Address under which QEMU's user-mode network shows this machine's loopback.
pub const HOST: &str = "10.0.2.2";

/// A file of random bytes, served to whoever asks; ends with this process.
pub struct Server {
    port: u16,
    content: Arc<Vec<u8>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Serves `length` random bytes on a free port.
    ///
    /// # Errors
    /// No port, or no random bytes.
    pub fn start(length: usize) -> Result<Self> {
        let mut content = vec![0; length];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut content))
            .context("can't read random bytes")?;
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a web server")?;
        let port = listener.local_addr()?.port();
        let server = Self { port, content: Arc::new(content), connections: Arc::default() };
        let (content, connections) = (server.content.clone(), server.connections.clone());
        std::thread::Builder::new().name("web".into()).spawn(move || {
            for client in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                let content = content.clone();
                // A client that goes away is its own affair.
                std::thread::spawn(move || drop(answer(client, &content)));
            }
        })?;
        Ok(server)
    }

    /// Address of the file as the service VM sees it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{HOST}:{}/file", self.port)
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// SHA-256 of the file, in hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> String {
        crate::cache::hex(&Sha256::digest(self.content.as_slice()))
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// The pause behind each 16 KiB of what is slow: 16 MiB last for more than three minutes, so that what is to
/// happen meanwhile does on a fast machine, too.
const SLOW: std::time::Duration = std::time::Duration::from_millis(200);

/// Requests: `GET /file` gives the file, `GET /slow` the same in small pieces with pauses,
/// `POST` says how long its body was; anything else is not found.
fn answer(mut client: TcpStream, content: &[u8]) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut length = 0u64;
        let mut header = String::new();
        while {
            header.clear();
            reader.read_line(&mut header)? > 2
        } {
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let read = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let mut words = request.split(' ');
        match (words.next(), words.next()) {
            (Some("GET" | "HEAD"), Some("/small")) => {
                head(&mut client, "200 OK", 3).and_then(|()| client.write_all(b"ok\n"))?
            }
            (Some("GET"), Some("/file")) => {
                head(&mut client, "200 OK", content.len())?;
                client.write_all(content)?;
            }
            (Some("GET"), Some("/slow")) => {
                head(&mut client, "200 OK", content.len())?;
                for piece in content.chunks(16 << 10) {
                    client.write_all(piece)?;
                    std::thread::sleep(SLOW);
                }
            }
            (Some("POST"), _) => {
                let text = format!("{read}\n");
                head(&mut client, "200 OK", text.len())?;
                client.write_all(text.as_bytes())?;
            }
            _ => head(&mut client, "404 Not Found", 0)?,
        }
    }
}

fn head(client: &mut TcpStream, status: &str, length: usize) -> std::io::Result<()> {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    client.write_all(text.as_bytes())
}

/// Gets a path from a server on this machine; headers and body.
///
/// # Errors
/// No connection.
pub fn get(port: u16, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_arrives_and_connections_are_counted() {
        let server = Server::start(100_000).expect("starts");
        let mut stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connects");
        stream.write_all(b"GET /file HTTP/1.1\r\n\r\n").expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("shut down");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("read");
        let body = &answer[answer.len() - 100_000..];
        assert_eq!(crate::cache::hex(&Sha256::digest(body)), server.sha256());
        assert_eq!(server.connections(), 1);
    }
}
