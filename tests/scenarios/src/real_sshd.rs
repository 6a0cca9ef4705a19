//! `sshd`, trusted in the compute VM: a process for each connection, started anew, with its own
//! seccomp sandbox and user; `scp` and `ssh` of this machine.
use crate::served::{LIMIT, Served};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::path::Path;

/// `sshd` with its own keys and settings; see `real_ssh` for its user.
const SERVER: &str = "
set -e
mkdir -p /tmp/ssh /run/sshd /home/guest
grep -q ^sshd: /etc/passwd || echo 'sshd:x:105:65534::/run/sshd:/usr/sbin/nologin' >> /etc/passwd
echo 'guest:x:1000:1000::/home/guest:/bin/sh' >> /etc/passwd
echo 'guest:x:1000:' >> /etc/group
chown 1000:1000 /home/guest
ssh-keygen -q -t ed25519 -N '' -f /tmp/ssh/host
ssh-keygen -q -t ed25519 -N '' -f /tmp/ssh/user
";

const SSHD: &str = "/usr/sbin/sshd -D -e -f /dev/null -p 2222 -h /tmp/ssh/host -o UsePAM=no \
                    -o StrictModes=no -o AuthorizedKeysFile=/tmp/ssh/user.pub -o PidFile=none \
                    -o 'Subsystem=sftp internal-sftp'";

/// Bytes of the file that is copied each way.
const BYTES: usize = 64 << 20;

/// The scenario.
pub fn run() -> Result<()> {
    let served = Served::boot(&["/usr/sbin/sshd"], 2222)?;
    served.rig.succeed(SERVER)?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    private(&folder.path().join("key"), &served.rig.succeed("cat /tmp/ssh/user")?)?;
    let pid = served.start(&format!("trusted {SSHD}"))?;
    let (key, port) = (at("key"), served.port.to_string());
    let common = [
        "-q",
        "-F",
        "none",
        "-i",
        &key,
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=60",
    ];
    let ssh = |command: &str| {
        let words = ["-p", port.as_str(), "guest@127.0.0.1", command];
        served.tools.run("ssh", &[&common, words.as_slice()].concat(), LIMIT)
    };
    let said = served.reach(|| ssh("echo from; uname -s; id -u"))?;
    ensure!(said == "from\nLinux\n1000\n", "ssh: '{said}'");
    let program = served.tools.script("ssh", folder.path())?.display().to_string();
    let scp = |from: &str, to: &str| {
        let words = ["-P", &port, "-S", &program, from, to];
        served.tools.run("scp", &[&common, words.as_slice()].concat(), LIMIT)
    };
    let sum = trapline::cache::hex(&Sha256::digest(random(&folder.path().join("up"))?));
    scp(&at("up"), "guest@127.0.0.1:up")?;
    let arrived = ssh("sha256sum up")?;
    ensure!(arrived.starts_with(&sum), "sent {sum}, arrived '{arrived}'");
    scp("guest@127.0.0.1:up", &at("down"))?;
    let arrived = trapline::cache::hex(&Sha256::digest(std::fs::read(at("down"))?));
    ensure!(arrived == sum, "sent back {sum}, arrived {arrived}");
    several(&ssh)?;
    served.stop(pid)
}

/// Connections at the same time, and statuses that come out.
fn several(ssh: &(impl Fn(&str) -> Result<String> + Sync)) -> Result<()> {
    std::thread::scope(|scope| {
        let start =
            |n: u32| scope.spawn(move || ssh(&format!("seq {n} 30000 | sha1sum; echo {n}")));
        let all: Vec<_> = (0..4).map(start).collect();
        for (n, thread) in all.into_iter().enumerate() {
            let said = thread.join().ok().context("a thread panicked")??;
            ensure!(said.ends_with(&format!("\n{n}\n")), "ssh {n}: '{said}'");
        }
        Ok(())
    })
}

fn random(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = vec![0; BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    std::fs::write(path, &bytes)?;
    Ok(bytes)
}

fn private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
