//! Unmodified programs of Debian, trusted, against servers on this machine.
use crate::rig::Rig;
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, UdpSocket};
use trapline::web::{HOST, Server};

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(300_000)?;
    let rig = Rig::boot(&["curl", "wget", "nc", "python3"])?;
    wget(&rig, &server)?;
    curl_post(&rig, &server)?;
    nc(&rig, &server)?;
    python_threads(&rig, &server)?;
    udp(&rig)?;
    refused_port(&rig)
}

fn wget(rig: &Rig, server: &Server) -> Result<()> {
    let sum = rig.succeed(&format!("wget -q -O - {} | sha256sum", server.url()))?;
    ensure!(sum.starts_with(&server.sha256()), "wget: {sum}");
    Ok(())
}

fn curl_post(rig: &Rig, server: &Server) -> Result<()> {
    let script = format!(
        "head -c 500000 /dev/zero > /tmp/body && curl -sS -H Expect: --data-binary @/tmp/body {}",
        server.url()
    );
    ensure!(rig.succeed(&script)?.trim() == "500000", "curl --data-binary");
    Ok(())
}

fn nc(rig: &Rig, server: &Server) -> Result<()> {
    let script = format!(
        "printf 'GET /small HTTP/1.0\\r\\n\\r\\n' | nc -q 2 -w 10 {HOST} {}",
        server.port()
    );
    let answer = rig.succeed(&script)?;
    ensure!(answer.ends_with("ok\n"), "nc: {answer}");
    Ok(())
}

fn python_threads(rig: &Rig, server: &Server) -> Result<()> {
    let script = format!(
        "python3 - <<'END'\n\
         import hashlib, threading, urllib.request\n\
         sums = []\n\
         def get():\n    \
             data = urllib.request.urlopen('{}', timeout=60).read()\n    \
             sums.append(hashlib.sha256(data).hexdigest())\n\
         threads = [threading.Thread(target=get) for _ in range(4)]\n\
         [t.start() for t in threads]\n\
         [t.join() for t in threads]\n\
         print(len(sums), *set(sums))\n\
         END",
        server.url()
    );
    let answer = rig.succeed(&script)?;
    ensure!(answer.trim() == format!("4 {}", server.sha256()), "python3: {answer}");
    Ok(())
}

fn udp(rig: &Rig) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = socket.local_addr()?.port();
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            buffer[..length].reverse();
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    let script = format!(
        "python3 -c \"\nimport socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.settimeout(20)\ns.sendto(b'abc', ('{HOST}', {port}))\nprint(s.recv(100).decode())\""
    );
    let answer = rig.succeed(&script).context("UDP")?;
    ensure!(answer.trim() == "cba", "UDP: {answer}");
    Ok(())
}

/// An error of the network is the program's own error.
fn refused_port(rig: &Rig) -> Result<()> {
    let outcome = rig.compute(&format!("curl -sS -m 20 http://{HOST}:1/"))?;
    ensure!(outcome.status == 7, "curl's status for a refused connection: {}", outcome.status);
    Ok(())
}
