//! Files of the service VM in place of the compute VM's: what real programs do with them, seen from
//! both VMs.
use crate::policy::boot_with;
use crate::rig::{Rig, succeeded, text};
use anyhow::{Result, ensure};
use std::fmt::Write as _;

/// Programs that have the files. The shell is none of them.
const PROGRAMS: &[&str] = &[
    "cat", "cp", "ls", "mv", "rm", "sed", "tar", "dd", "find", "diff", "flock", "mkdir", "stat",
    "ln", "readlink", "touch", "chmod", "truncate", "sort", "python3", "git", "sync", "rmdir",
    "tail", "id", "getent", "bash", "sqlite3",
];

fn policy() -> Result<String> {
    let mut text = String::new();
    for program in PROGRAMS {
        writeln!(
            text,
            "[[program]]\npath = \"/usr/bin/{program}\"\nconnect = [{{ }}]\n\
             files = [\n  {{ path = \"/etc/hosts\" }},\n  {{ path = \"/etc/resolv.conf\" }},\n  \
             {{ path = \"/srv/data\", write = true }},\n  {{ path = \"/srv/fixed\" }},\n]"
        )?;
    }
    Ok(text)
}

/// What is in the service VM before.
const BEFORE: &str = "\
    mkdir -p /srv/data /srv/fixed/sub /srv/secret && echo secret > /srv/secret/file && \
    echo '10.0.2.2 from-the-service-vm' >> /etc/hosts && \
    echo one > /srv/fixed/one && echo two > /srv/fixed/sub/two && chmod 600 /srv/fixed/one && \
    ln -s ../../secret/file /srv/fixed/sub/out && ln -s /srv/secret/file /srv/fixed/out && \
    ln -s sub/two /srv/fixed/in";

/// Scripts for the compute VM, with what they must print.
const STEPS: &[(&str, &str)] = &[
    ("cat /etc/hosts | tail -n 1", "10.0.2.2 from-the-service-vm\n"),
    ("ls -1 /srv/fixed", "in\none\nout\nsub\n"),
    ("cat /srv/fixed/one /srv/fixed/in /srv/fixed/./sub/../one", "one\ntwo\none\n"),
    ("cat /srv/fixed/out /srv/fixed/sub/out 2>&1 | grep -c 'Permission denied'", "2\n"),
    (
        "cat /srv/fixed/../secret/file 2>&1",
        "cat: /srv/fixed/../secret/file: No such file or directory\n",
    ),
    ("cp /srv/fixed/one /srv/data/a && cat /srv/data/a", "one\n"),
    (
        "cp /srv/data/a /srv/fixed/b 2>&1",
        "cp: cannot create regular file '/srv/fixed/b': Read-only file system\n",
    ),
    ("rm -f /srv/fixed/one 2>&1", "rm: cannot remove '/srv/fixed/one': Read-only file system\n"),
    ("rm -r /srv/data 2>&1 | grep -c busy; ls /srv/data", "1\n"),
    (
        "stat -c '%s %a %F' /srv/fixed/one /srv/fixed/in",
        "4 600 regular file\n7 777 symbolic link\n",
    ),
];

/// The scenario.
pub fn run() -> Result<()> {
    let rig = boot_with(&policy()?, &["diffutils", "git", "sqlite3"])?;
    succeeded(BEFORE, &rig.service(BEFORE)?)?;
    for (script, expected) in STEPS {
        step(&rig, script, expected)?;
    }
    Ok(())
}

fn step(rig: &Rig, script: &str, expected: &str) -> Result<()> {
    let outcome = rig.compute(script)?;
    let printed = String::from_utf8_lossy(&outcome.stdout);
    ensure!(
        printed == *expected,
        "'{script}' printed '{printed}', not '{expected}': {}",
        text(&outcome)
    );
    Ok(())
}
