//! OpenSSH: `scp`, trusted in the compute VM, copies files to and from an `sshd` in the service VM.
use crate::rig::{Rig, succeeded};
use crate::served::PACKAGES;
use anyhow::{Result, ensure};
use trapline::launch::Options;

/// `sshd` with its own keys and settings. The user that it drops its rights to is made by a script
/// of its package, which images don't run.
const SERVER: &str = "
set -e
mkdir -p /run/ssh /run/sshd
grep -q ^sshd: /etc/passwd || echo 'sshd:x:105:65534::/run/sshd:/usr/sbin/nologin' >> /etc/passwd
ssh-keygen -q -t ed25519 -N '' -f /run/ssh/host
ssh-keygen -q -t ed25519 -N '' -f /run/ssh/user
/usr/sbin/sshd -f /dev/null -p 2222 -h /run/ssh/host -E /run/ssh/log -o UsePAM=no -o StrictModes=no \\
    -o PermitRootLogin=yes -o AuthorizedKeysFile=/run/ssh/user.pub -o PidFile=none \\
    -o 'Subsystem=sftp internal-sftp'
";

/// Options of `ssh` and `scp`.
pub const OPTIONS: &str = "-q -i /tmp/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
                       -o BatchMode=yes -o ConnectTimeout=60";

/// Starts the server in the service VM, and gives the compute VM its key.
pub fn serve(rig: &Rig) -> Result<()> {
    succeeded("sshd", &rig.service(SERVER)?)?;
    let key = succeeded("the key", &rig.service("cat /run/ssh/user")?)?;
    rig.succeed(&format!("umask 077; cat > /tmp/key <<'END'\n{key}END\n"))?;
    Ok(())
}

/// The scenario.
pub fn run() -> Result<()> {
    let rig = Rig::boot_with(Options {
        trust: ["/usr/bin/scp", "/usr/bin/ssh"].map(str::to_owned).to_vec(),
        packages: PACKAGES.iter().map(|name| (*name).to_owned()).collect(),
        ..Options::default()
    })?;
    serve(&rig)?;
    let service = |script: &str| succeeded(script, &rig.service(script)?);
    let sum = |text: String| text.split(' ').next().unwrap_or_default().to_owned();
    let bytes = 64 << 20;
    let up = rig.succeed(&format!(
        "head -c {bytes} /dev/urandom > /tmp/up && sha256sum /tmp/up && \
         scp {OPTIONS} -P 2222 /tmp/up root@10.0.2.15:/tmp/up"
    ))?;
    let arrived = service("sha256sum /tmp/up")?;
    ensure!(sum(up.clone()) == sum(arrived.clone()), "sent '{up}', arrived '{arrived}'");
    let down =
        service(&format!("head -c {bytes} /dev/urandom > /tmp/down && sha256sum /tmp/down"))?;
    let arrived = rig.succeed(&format!(
        "scp {OPTIONS} -P 2222 root@10.0.2.15:/tmp/down /tmp/down && sha256sum /tmp/down"
    ))?;
    ensure!(sum(down.clone()) == sum(arrived.clone()), "sent '{down}', arrived '{arrived}'");
    let said =
        rig.succeed(&format!("ssh {OPTIONS} -p 2222 root@10.0.2.15 'echo from; uname -s'"))?;
    ensure!(said == "from\nLinux\n", "ssh: '{said}'");
    Ok(())
}
