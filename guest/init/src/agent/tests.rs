//! The agent on a pseudo-terminal, driven from its other side.

use super::*;
use hostlink::agent::{Command, Exit, Output, TtySize, WINDOW, encode};
use rustix::fd::OwnedFd;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::path::Path;

/// A process has one: it takes the ends of all children.
pub static REAPER: std::sync::OnceLock<Arc<Reaper>> = std::sync::OnceLock::new();

struct Host {
    terminal: OwnedFd,
    decoder: Decoder,
}

impl Host {
    /// Starts an agent and waits until it is ready.
    fn start() -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("terminal");
        grantpt(&terminal).expect("grantpt");
        unlockpt(&terminal).expect("unlockpt");
        let name = ptsname(&terminal, Vec::new()).expect("name").into_string().expect("UTF-8");
        let line = Arc::new(Line::open(Path::new(&name)).expect("line"));
        let reaper = REAPER.get_or_init(Reaper::start).clone();
        std::thread::spawn(move || serve(&Parameters::default(), line, reaper));
        let mut host = Self { terminal, decoder: Decoder::new() };
        assert!(matches!(host.next(), ToHost::Ready { version: VERSION, .. }));
        host
    }

    fn send(&self, message: &ToGuest) {
        let mut bytes = Vec::new();
        encode(message, &mut bytes).expect("short");
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let sent = rustix::io::write(&self.terminal, rest).expect("write");
            rest = &rest[sent..];
        }
    }

    /// The next message but for repeated greetings.
    fn next(&mut self) -> ToHost {
        loop {
            match self.decoder.next_message::<ToHost>() {
                Some(ToHost::Ready { .. }) if self.decoder.skipped() > 0 => {}
                Some(message) => return message,
                None => {
                    let mut buffer = [0; 4096];
                    let length = rustix::io::read(&self.terminal, &mut buffer).expect("read");
                    self.decoder.push(&buffer[..length]);
                }
            }
        }
    }

    fn exec(&self, session: u32, argv: &[&str], tty: Option<TtySize>) {
        let argv = argv.iter().map(|word| word.as_bytes().to_vec()).collect();
        let command = Command { argv, cwd: b"/".to_vec(), tty, env: vec![b"A=b".to_vec()] };
        self.send(&ToGuest::Exec { session, command });
    }

    /// Follows a session to its end: outputs and end. Gives credit for all that arrives.
    fn follow(&mut self, number: u32) -> (Vec<u8>, Vec<u8>, Result<Exit, u16>) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.next() {
                ToHost::Output { session, output, data } if session == number => {
                    let bytes = data.len() as u32;
                    match output {
                        Output::Stdout => stdout.extend(data),
                        Output::Stderr => stderr.extend(data),
                    }
                    self.send(&ToGuest::Credit { session, output, bytes });
                }
                ToHost::Exited { session, exit } if session == number => {
                    return (stdout, stderr, Ok(exit));
                }
                ToHost::Error { session, errno, .. } if session == number => {
                    return (stdout, stderr, Err(errno));
                }
                ToHost::Credit { .. } | ToHost::Started { .. } | ToHost::Ready { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn commands_run_with_their_streams_and_their_ends() {
    let mut host = Host::start();
    host.exec(1, &["sh", "-c", "cat; echo $A >&2; exit 7"], None);
    host.send(&ToGuest::Stdin { session: 1, data: b"hello".to_vec() });
    host.send(&ToGuest::CloseStdin { session: 1 });
    assert_eq!(host.follow(1), (b"hello".to_vec(), b"b\n".to_vec(), Ok(Exit::Status(7))));
    host.exec(2, &["no-such-program"], None);
    assert_eq!(host.follow(2).2, Err(2));
    host.exec(3, &["sleep", "100"], None);
    host.send(&ToGuest::Signal { session: 3, signal: 15 });
    assert_eq!(host.follow(3).2, Ok(Exit::Signal(15)));
    host.exec(4, &["sh", "-c", "sleep 30 & echo early"], None);
    assert_eq!(host.follow(4), (b"early\n".to_vec(), Vec::new(), Ok(Exit::Status(0))));
    host.send(&ToGuest::Ping { token: 9 });
    assert_eq!(host.next(), ToHost::Pong { token: 9 });
}

#[test]
fn much_data_passes_in_windows() {
    let mut host = Host::start();
    host.exec(1, &["sh", "-c", "head -c 3000000 /dev/zero; echo end >&2"], None);
    let (stdout, stderr, end) = host.follow(1);
    assert_eq!(
        (stdout.len(), stderr.as_slice(), end),
        (3_000_000, b"end\n".as_slice(), Ok(Exit::Status(0)))
    );
    host.exec(2, &["wc", "-c"], None);
    let mut credit = WINDOW;
    for _ in 0..100 {
        while credit < 10_000 {
            if let ToHost::Credit { bytes, .. } = host.next() {
                credit += bytes;
            }
        }
        credit -= 10_000;
        host.send(&ToGuest::Stdin { session: 2, data: vec![7; 10_000] });
    }
    host.send(&ToGuest::CloseStdin { session: 2 });
    assert_eq!(host.follow(2).0, b"1000000\n");
}

#[test]
fn a_terminal_has_a_size_and_takes_control_characters() {
    let mut host = Host::start();
    host.exec(
        1,
        &["sh", "-c", "stty size; read x; sleep 100"],
        Some(TtySize { rows: 11, columns: 22 }),
    );
    host.send(&ToGuest::Stdin { session: 1, data: b"line\n".to_vec() });
    std::thread::sleep(Duration::from_millis(300));
    host.send(&ToGuest::Stdin { session: 1, data: vec![3] });
    let (stdout, _, end) = host.follow(1);
    assert!(String::from_utf8_lossy(&stdout).contains("11 22\r\n"), "{stdout:?}");
    assert_eq!(end, Ok(Exit::Signal(2)));
}
