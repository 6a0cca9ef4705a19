//! `git clone` over http in the compute VM, from a bare repository behind a web server in the
//! service VM.
use crate::rig::{Rig, succeeded};
use anyhow::{Result, ensure};
use trapline::launch::Options;

const SERVER: &str = "
set -e
export HOME=/run/git GIT_CONFIG_NOSYSTEM=1
mkdir -p /run/git/work /run/git/www && cd /run/git/work
git init -q -b main .
git config user.name Test && git config user.email test@example.org
for n in $(seq 60); do seq $n 2000 > file-$n; done
git add . && git commit -q -m 'Sixty files'
echo more >> file-1 && git commit -q -a -m 'One changed'
git clone -q --bare . /run/git/www/repository.git
cd /run/git/www/repository.git && git update-server-info
python3 -m http.server 8081 --directory /run/git/www > /run/git/log 2>&1 < /dev/null &
";

/// The scenario.
pub fn run() -> Result<()> {
    // `git` starts its helper by way of itself.
    let trust = ["/usr/bin/git", "/usr/lib/git-core/git", "/usr/lib/git-core/git-remote-http"];
    let rig = Rig::boot_with(Options {
        trust: trust.map(str::to_owned).to_vec(),
        packages: vec!["git".into()],
        ..Options::default()
    })?;
    let service = |script: &str| succeeded(script, &rig.service(script)?);
    service(SERVER)?;
    let head = service("git -C /run/git/work rev-parse HEAD && cat /run/git/work/* | sha256sum")?;
    let cloned = rig.succeed(
        "cd /tmp && n=0; until git clone -q http://10.0.2.15:8081/repository.git 2> git.log; do \
         n=$((n+1)); test $n -lt 10 || { cat git.log >&2; exit 1; }; sleep 1; done; \
         cd repository && git fsck --strict >&2 && git rev-parse HEAD && cat * | sha256sum",
    )?;
    ensure!(head == cloned, "there '{head}', cloned '{cloned}'");
    Ok(())
}
