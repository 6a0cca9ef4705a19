//! `git clone` over http in the compute VM, from a bare repository behind a web server in the
//! service VM.
use crate::rig::{Rig, succeeded};
use crate::served::PACKAGES;
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

/// What has to be trusted: `git` starts its helper by way of itself.
pub const TRUST: &[&str] =
    &["/usr/bin/git", "/usr/lib/git-core/git", "/usr/lib/git-core/git-remote-http"];

/// Starts the server in the service VM; what a clone must show.
pub fn serve(rig: &Rig) -> Result<String> {
    succeeded("the repository", &rig.service(SERVER)?)?;
    let show = "git -C /run/git/work rev-parse HEAD && cat /run/git/work/* | sha256sum";
    succeeded(show, &rig.service(show)?)
}

/// Clones into a new folder below `/tmp`; what the clone shows. The server may just be starting.
pub fn clone(rig: &Rig, folder: &str) -> Result<String> {
    rig.succeed(&format!(
        "cd /tmp && rm -rf {folder} && n=0; \
         until git clone -q http://10.0.2.15:8081/repository.git {folder} 2> {folder}.log; do \
         n=$((n+1)); test $n -lt 10 || {{ cat {folder}.log >&2; exit 1; }}; sleep 1; done; \
         cd {folder} && git fsck --strict >&2 && git rev-parse HEAD && cat * | sha256sum"
    ))
}

/// The scenario.
pub fn run() -> Result<()> {
    let rig = Rig::boot_with(Options {
        trust: TRUST.iter().map(|name| (*name).to_owned()).collect(),
        packages: PACKAGES.iter().map(|name| (*name).to_owned()).collect(),
        ..Options::default()
    })?;
    let head = serve(&rig)?;
    let cloned = clone(&rig, "repository")?;
    ensure!(head == cloned, "there '{head}', cloned '{cloned}'");
    Ok(())
}
