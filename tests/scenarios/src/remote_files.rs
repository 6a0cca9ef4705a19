//! Files of the service VM in place of the compute VM's: what real programs do with them, seen from
//! both VMs.
use crate::policy::boot_with;
use crate::rig::{succeeded, text};
use anyhow::{Result, ensure};
use std::fmt::Write as _;
use trapline::launch::Options;

/// Programs that have the files. `sh` and `grep` are none of them.
const PROGRAMS: &[&str] = &[
    "bin/bash",
    "bin/cat",
    "bin/chmod",
    "bin/cp",
    "bin/dd",
    "bin/diff",
    "bin/find",
    "bin/flock",
    "bin/getent",
    "bin/git",
    "bin/ln",
    "bin/ls",
    "bin/mkdir",
    "bin/mv",
    "bin/python3",
    "bin/readlink",
    "bin/rm",
    "bin/rmdir",
    "bin/sed",
    "bin/sort",
    "bin/sqlite3",
    "bin/stat",
    "bin/tail",
    "bin/tar",
    "bin/touch",
    "bin/truncate",
    "lib/git-core/git",
];

fn policy() -> Result<String> {
    let mut text = String::new();
    for program in PROGRAMS {
        writeln!(
            text,
            "[[program]]\npath = \"/usr/{program}\"\nconnect = [{{ }}]\n\
             files = [\n  {{ path = \"/etc/hosts\" }},\n  {{ path = \"/etc/resolv.conf\" }},\n  \
             {{ path = \"/srv/data\", write = true }},\n  {{ path = \"/srv/fixed\" }},\n]"
        )?;
    }
    Ok(text)
}

/// What is in the service VM before: files, links that lead out, and a resolver that knows a name.
const BEFORE: &str = "\
    set -e; mkdir -p /srv/data /srv/fixed/sub /srv/secret && echo secret > /srv/secret/file
    echo '10.0.2.2 from-the-service-vm' >> /etc/hosts
    echo 'nameserver 10.0.2.15' > /etc/resolv.conf
    echo one > /srv/fixed/one && echo two > /srv/fixed/sub/two && chmod 600 /srv/fixed/one
    ln -s ../../secret/file /srv/fixed/sub/out && ln -s /srv/secret/file /srv/fixed/out
    ln -s sub/two /srv/fixed/in
    cat > /run/resolver.py <<'END'
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.0.2.15', 53))
while True:
    query, peer = s.recvfrom(512)
    end = query.index(0, 12) + 5
    known = query[end-4:end-2] == bytes([0, 1]) and b'known' in query
    head = query[:2] + bytes([0x81, 0x80, 0, 1, 0, int(known), 0, 0, 0, 0])
    answer = bytes([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 9, 8, 7])
    s.sendto(head + query[12:end] + (answer if known else b''), peer)
END
    python3 /run/resolver.py > /run/resolver.log 2>&1 < /dev/null &
    for n in $(seq 100); do grep -q ':0035 ' /proc/net/udp && exit 0; sleep 0.1; done; exit 1";

/// Scripts for the compute VM, with what they must print.
const STEPS: &[(&str, &str)] = &[
    // Whose files they are.
    ("cat /etc/hosts | tail -n 1", "10.0.2.2 from-the-service-vm\n"),
    ("grep -c from-the-service-vm /etc/hosts", "0\n"),
    ("grep -c . /srv/fixed/one 2>&1", "grep: /srv/fixed/one: No such file or directory\n"),
    ("getent hosts from-the-service-vm", "10.0.2.2        from-the-service-vm\n"),
    ("getent ahostsv4 known.test | sort -u | grep STREAM", "10.9.8.7        STREAM known.test\n"),
    // Where a path leads.
    ("ls -1 /srv/fixed", "in\none\nout\nsub\n"),
    ("cat /srv/fixed/one /srv/fixed/in /srv/fixed/./sub/../one", "one\ntwo\none\n"),
    ("cat /srv/fixed/out /srv/fixed/sub/out 2>&1 | grep -c 'Permission denied'", "2\n"),
    (
        "cat /srv/fixed/../secret/file 2>&1",
        "cat: /srv/fixed/../secret/file: No such file or directory\n",
    ),
    ("readlink /srv/fixed/in; find /srv/fixed -type f | sort", FOUND),
    // What may not be changed.
    (
        "cp /srv/fixed/one /srv/fixed/b 2>&1",
        "cp: cannot create regular file '/srv/fixed/b': Read-only file system\n",
    ),
    ("rm -f /srv/fixed/one 2>&1", "rm: cannot remove '/srv/fixed/one': Read-only file system\n"),
    ("rmdir /srv/data 2>&1", "rmdir: failed to remove '/srv/data': Device or resource busy\n"),
    (
        "stat -c '%s %a %F' /srv/fixed/one /srv/fixed/in",
        "4 600 regular file\n7 777 symbolic link\n",
    ),
    (
        "python3 -c 'import os; os.setuid(33); open(\"/srv/fixed/one\")' 2>&1 | grep -c Permission",
        "1\n",
    ),
    // What may.
    ("cp /srv/fixed/one /srv/data/a && cat /srv/data/a", "one\n"),
    ("mv /srv/data/a /tmp/a && mv /tmp/a /srv/data/b && cat /srv/data/b", "one\n"),
    (
        "mkdir -p /srv/data/x/y && ln -s x/y /srv/data/l && touch /srv/data/l/z && ls /srv/data/x/y",
        "z\n",
    ),
    ("sed -i s/one/uno/ /srv/data/b && cat /srv/data/b", "uno\n"),
    (
        "chmod 640 /srv/data/b && truncate -s 2 /srv/data/b && stat -c '%a %s' /srv/data/b",
        "640 2\n",
    ),
    ("rm -r /srv/data/l /srv/data/x && ls /srv/data", "b\n"),
    (TAR, ""),
    (
        "dd if=/dev/urandom of=/srv/data/big bs=64k count=40 status=none && cp /srv/data/big /tmp/ && diff /tmp/big /srv/data/big && echo same",
        "same\n",
    ),
    (MMAP, "2621440 True True ENODEV\n"),
    (SHELL, "/srv/data\nhello\nagain\n2 lines\nb\n"),
    ("bash -c 'grep one < /srv/fixed/one' 2>&1", "grep: (standard input): Bad file descriptor\n"),
    (FLOCK, "first\nsecond\n"),
    (SQLITE, "3|6\nok\n"),
    (GIT, "Two\nOne\n"),
];

const FOUND: &str = "sub/two\n/srv/fixed/one\n/srv/fixed/sub/two\n";

const TAR: &str = "\
    tar -C /usr/lib/python3 -cf /srv/data/t.tar . && mkdir /srv/data/t && \
    tar -C /srv/data/t -xf /srv/data/t.tar && diff -r /usr/lib/python3 /srv/data/t && \
    rm -r /srv/data/t /srv/data/t.tar";

const MMAP: &str = "python3 - <<'END'
import errno, mmap
f = open('/srv/data/big', 'r+b')
data = f.read()
m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
c = mmap.mmap(f.fileno(), 4096, access=mmap.ACCESS_COPY, offset=8192)
c[0:3] = b'own'
try: mmap.mmap(f.fileno(), 0)
except OSError as error: print(len(m), m[:] == data, c[3:] == data[8195:12288], errno.errorcode[error.errno])
END";

/// Redirections are descriptors that programs inherit. (Those that the launcher starts inherit none.)
const SHELL: &str = "bash -c '
PATH=/usr/bin; cd /srv/data && pwd && echo hello > said && cat < said && echo again >> said && tail -n 1 said
mapfile -t lines < said && echo ${#lines[@]} lines && rm said && rm big && ls'";

const FLOCK: &str = "\
    flock /srv/data/lock sh -c 'touch /tmp/held; sleep 1; echo first' & \
    while ! test -e /tmp/held; do sleep 0.05; done; flock /srv/data/lock echo second; wait";

const SQLITE: &str = "\
    sqlite3 /srv/data/db 'create table t(n); insert into t values(1),(2),(3)' && \
    sqlite3 /srv/data/db 'select count(*), sum(n) from t; pragma integrity_check'";

const GIT: &str = "\
    export HOME=/tmp GIT_CONFIG_NOSYSTEM=1 && cd /tmp && git init -q -b main /srv/data/r && \
    g() { git -C /srv/data/r -c user.name=Test -c user.email=test@example.org \"$@\"; } && \
    bash -c 'echo 1 > /srv/data/r/f' && g add . && g commit -q -m One && \
    bash -c 'echo 2 > /srv/data/r/f' && g commit -q -a -m Two && g gc -q && g fsck --strict && \
    g log --format=%s";

/// What must be in the service VM afterwards.
const AFTER: &str = "\
    cat /srv/data/b; sha256sum < /srv/fixed/one; ls /srv/data; git -C /srv/data/r show HEAD:f; \
    stat -c %U /srv/data/b; cat /srv/secret/file";
const LEFT: &str = "un2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806  -\nb\ndb\nlock\nr\n2\nroot\nsecret\n";

/// The scenario.
pub fn run() -> Result<()> {
    let packages = ["diffutils", "git", "sqlite3"].map(str::to_owned).to_vec();
    let rig = boot_with(&policy()?, Options { packages, ..Options::default() })?;
    succeeded(BEFORE, &rig.service(BEFORE)?)?;
    let mut wrong = Vec::new();
    for (script, expected) in STEPS {
        let outcome = rig.compute(script)?;
        if String::from_utf8_lossy(&outcome.stdout) != *expected {
            wrong.push(format!("'{script}' must print '{expected}': {}", text(&outcome)));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let left = succeeded(AFTER, &rig.service(AFTER)?)?;
    ensure!(left == LEFT, "in the service VM: '{left}', not '{LEFT}'");
    Ok(())
}
