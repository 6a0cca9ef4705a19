//! A policy file: what its rules allow works, all else is refused as by Linux' own rules.
use crate::rig::{Rig, command_fails_saying, text, trapline};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use trapline::launch::Options;
use trapline::web::{HOST, Server};

/// Boots with the policy of this text.
pub fn boot(policy: &str) -> Result<Rig> {
    boot_with(policy, Options::default())
}

/// The same with other options, too.
pub fn boot_with(policy: &str, options: Options) -> Result<Rig> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("policy.toml");
    std::fs::write(&path, policy)?;
    Rig::boot_with(Options { policy: Some(path), ..options })
}

/// The scenario of addresses and ports.
pub fn rules() -> Result<()> {
    let server = Server::start(20_000)?;
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let forbidden = other.local_addr()?.port();
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    datagrams.set_nonblocking(true)?;
    let rig = boot(&format!(
        "[[program]]\npath = \"/usr/bin/curl\"\n\
         connect = [{{ to = \"{HOST}\", ports = {}, protocol = \"tcp\" }}]\n\
         [[program]]\npath = \"/usr/bin/python3\"\n\
         listen = [{{ ports = 8000, protocol = \"tcp\" }}]\n",
        server.port()
    ))?;
    let sum = rig.succeed(&format!("curl -sS {} | sha256sum", server.url()))?;
    ensure!(sum.starts_with(&server.sha256()), "curl: {sum}");
    for address in [format!("{HOST}:{forbidden}"), format!("10.0.2.3:{}", server.port())] {
        let outcome = rig.compute(&format!("curl -v -m 20 http://{address}/"))?;
        ensure!(outcome.status != 0, "curl reached {address}");
        ensure!(text(&outcome).contains("Permission denied"), "{address}: {}", text(&outcome));
    }
    let script = python(forbidden, datagrams.local_addr()?.port())?;
    let answers = rig.succeed(&script)?;
    let expected = "connect EACCES\nsendto EPERM\nunspec EPERM\nbind 8000 0\nbind 8001 EACCES\n\
                    listen unbound EACCES\nbind loopback 0\n";
    ensure!(answers == expected, "{answers}");
    let mut buffer = [0; 10];
    ensure!(datagrams.recv(&mut buffer).is_err(), "a datagram got through");
    other.set_nonblocking(true)?;
    ensure!(other.accept().is_err(), "a connection got through");
    Ok(())
}

/// Calls of one program, with what they answer.
fn python(port: u16, udp: u16) -> Result<String> {
    let mut script = String::from(
        "python3 - <<'END'\nimport ctypes, errno, socket, struct\n\
         T, U = socket.SOCK_STREAM, socket.SOCK_DGRAM\n\
         def show(what, call):\n    \
             try: call(); print(what, 0)\n    \
             except OSError as e: print(what, errno.errorcode[e.errno])\n\
         def new(kind): return socket.socket(socket.AF_INET, kind)\n",
    );
    writeln!(script, "show('connect', lambda: new(T).connect(('{HOST}', {port})))")?;
    writeln!(script, "show('sendto', lambda: new(U).sendto(b'x', ('{HOST}', {udp})))")?;
    // Linux takes a destination of family AF_UNSPEC for an IPv4 address.
    writeln!(
        script,
        "def unspec():\n    \
             libc = ctypes.CDLL(None, use_errno=True)\n    \
             to = struct.pack('=H', 0) + struct.pack('>H', {udp}) + socket.inet_aton('{HOST}') + bytes(8)\n    \
             u = new(U)\n    \
             if libc.sendto(u.fileno(), b'x', 1, 0, to, 16) < 0: raise OSError(ctypes.get_errno(), '')"
    )?;
    script.push_str(
        "show('unspec', unspec)\n\
         show('bind 8000', lambda: new(T).bind(('', 8000)))\n\
         show('bind 8001', lambda: new(T).bind(('', 8001)))\n\
         show('listen unbound', lambda: new(T).listen(1))\n\
         show('bind loopback', lambda: new(T).bind(('127.0.0.1', 9000)))\nEND",
    );
    Ok(script)
}

/// `./trapline` with these arguments fails, and says these words.
pub fn fails(arguments: &[&str], words: &[&str]) -> Result<()> {
    let mut command = trapline()?;
    command.env("TRAPLINE_NO_BUILD", "1").args(arguments);
    command_fails_saying(&mut command, words)
}

/// Mistakes are named with their place; a good file is summed up.
pub fn check() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("policy.toml");
    let name = path.to_str().context("a path of text")?;
    std::fs::write(
        &path,
        "[[program]]\npath = \"/usr/bin/curl\"\nconnect = [{ to = \"10.0.0.1/8\" }]\n",
    )?;
    for arguments in [&["policy", "check", name][..], &["run", "--policy", name, "--", "true"]] {
        fails(arguments, &[":3:19: ", "did you mean 10.0.0.0/8"])?;
    }
    std::fs::write(&path, "[[program]]\npath = \"/usr/bin/no-such\"\n")?;
    fails(&["run", "--policy", name, "--", "true"], &[":2:8: there is no program"])
}
