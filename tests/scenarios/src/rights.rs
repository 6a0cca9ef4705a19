//! Processes and their rights: ids, sandboxes, descriptors that go from one process to another,
//! threads and daemons, sudden ends. Python programs, trusted, against a server on this machine.
use crate::rig::Rig;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use trapline::web::HOST;

/// What all programs begin with.
const COMMON: &str = r#"
import array, ctypes, os, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
HOST, PORT = sys.argv[1], int(sys.argv[2])
REQUEST = b'GET /small HTTP/1.0\r\n\r\n'
def connect():
    return socket.create_connection((HOST, PORT), 60)
def answer(s):
    data = b''
    while True:
        part = s.recv(4096)
        if not part: return data[-3:]
        data += part
def get(s):
    s.sendall(REQUEST)
    return answer(s)
def bind(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind(('0.0.0.0', port))
        return 0
    except OSError as error:
        return error.errno
    finally:
        s.close()
def child(work):
    pid = os.fork()
    if pid == 0:
        try: work()
        except OSError as error: say(error)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def say(*words):
    os.write(1, (' '.join(str(w) for w in words) + '\n').encode())
"#;

/// Programs: name, text, what they must print.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("ids", IDS, "0\n13\n0\n13\n13\n0\nb'ok\\n'\n"),
    ("namespace", NAMESPACE, "13\nb'ok\\n'\n"),
    ("io_uring", IO_URING, "38 38 38\n"),
    ("sandbox", SANDBOX, "19 True\n13\n-9\n"),
    ("before fork", BEFORE_FORK, "b'ok\\n'\nb'ok\\n'\n"),
    ("passed", PASSED, "b'ok\\n'\nb'ok\\n'\n"),
    ("splice", SPLICE, "23\n23\nb'ok\\n'\n22 29 29 22\n"),
    ("trees", TREES, "b'ok\\n'\nb'ok\\n'\nb'ok\\n'\n"),
    ("closed in mid-call", CLOSED, "b'ok\\n' 9\n"),
];

const IDS: &str = r"
say(bind(81))
def user():
    os.setgroups([5]); os.setresgid(33, 33, 33); os.setresuid(33, 33, 33)
    say(bind(81))
child(user)
say(bind(81))
def there_and_back():
    os.seteuid(33)
    say(bind(81))
    libc.setfsuid(0)
    say(bind(81))
    os.seteuid(0)
    say(bind(81))
    say(get(connect()))
child(there_and_back)
";

const NAMESPACE: &str = r"
def inside():
    libc.unshare(0x10000000)
    say(bind(81))
    say(get(connect()))
child(inside)
";

const IO_URING: &str = r"
def number(*call):
    libc.syscall(*call)
    return ctypes.get_errno()
say(number(425, 8, 0), number(426, 5, 1, 0, 0, 0), number(427, 5, 0, 0, 0))
";

/// All but a few calls kill, `sendto` fails; memory that is not there is read into.
const SANDBOX: &str = r"
import mmap
def confined(then):
    s = connect()
    memory = mmap.mmap(-1, 1 << 20)
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    def ins(code, yes, no, k): return struct.pack('<HBBI', code, yes, no, k)
    filter = ins(0x20, 0, 0, 0)
    for n in [0, 1, 3, 11, 12, 13, 15, 39, 60, 202, 231, 271]:
        filter += ins(0x15, 0, 1, n) + ins(0x06, 0, 0, 0x7fff0000)
    filter += ins(0x15, 0, 1, 44) + ins(0x06, 0, 0, 0x50000 | 13)
    filter += ins(0x06, 0, 0, 0x80000000)
    code = ctypes.create_string_buffer(filter)
    program = ctypes.create_string_buffer(
        struct.pack('<HxxxxxxQ', len(filter) // 8, ctypes.addressof(code)))
    libc.prctl(38, 1, 0, 0, 0)
    assert libc.prctl(22, 2, program, 0, 0) == 0
    then(s, at)
    os._exit(0)
def works(s, at):
    sent = libc.write(s.fileno(), b'GET /x HTTP/1.0\r\n\r\n', 19)
    got = libc.read(s.fileno(), ctypes.c_void_p(at + 4096 * 3 + 7), 60000)
    say(sent, got > 0)
    libc.sendto(s.fileno(), b'x', 1, 0, None, 0)
    say(ctypes.get_errno())
def killed(s, at):
    libc.shutdown(s.fileno(), 1)
    say('not reached')
child(lambda: confined(works))
say(-9 if child(lambda: confined(killed)) == -signal.SIGSYS else 'alive')
";

const BEFORE_FORK: &str = r"
for child_connects in (True, False):
    s = socket.socket()
    if child_connects:
        child(lambda: s.connect((HOST, PORT)))
        say(get(s))
    else:
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(w)
            os.read(r, 1)
            say(get(s))
            os._exit(0)
        s.connect((HOST, PORT))
        os.close(w)
        os.waitpid(pid, 0)
";

const PASSED: &str = r"
here, there = socket.socketpair()
def sender():
    s = connect()
    s.sendall(REQUEST)
    there.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))])
child(sender)
fds = array.array('i')
_, control, _, _ = here.recvmsg(1, 100)
fds.frombytes(control[0][2])
say(answer(socket.socket(fileno=fds[0])))
# Taken out of a process that lives.
s = connect()
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    t = connect()
    os.write(w, b'%d' % t.fileno())
    time.sleep(1000)
number = int(os.read(r, 10))
taken = libc.syscall(438, os.pidfd_open(pid), number, 0)
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
say(get(socket.socket(fileno=taken)))
";

const SPLICE: &str = r"
s = connect()
r, w = os.pipe()
os.write(w, REQUEST)
say(os.splice(r, s.fileno(), 1000))
t = connect()
os.write(w, REQUEST)
say(os.splice(r, t.fileno(), 1000))
data = b''
while True:
    n = os.splice(s.fileno(), w, 1 << 20)
    if n == 0: break
    while n > 0:
        part = os.read(r, n)
        data, n = data + part, n - len(part)
say(data[-3:])
def error(work):
    try: return work()
    except OSError as e: return e.errno
def raw(f, *a): return ctypes.get_errno() if f(*a) < 0 else 0
file = os.open('/tmp/file', os.O_CREAT | os.O_WRONLY)
say(error(lambda: os.sendfile(file, s.fileno(), None, 10)), error(lambda: os.pread(s.fileno(), 5, 0)),
    error(lambda: os.preadv(s.fileno(), [bytearray(4)], 0)),
    raw(libc.tee, s.fileno(), w, 10, 0))
";

/// Forks from threads, `posix_spawn` (a `vfork`), and a daemon that forks twice.
const TREES: &str = r"
s = connect()
results = []
def from_thread():
    results.append(child(lambda: say(get(s))))
thread = threading.Thread(target=from_thread)
thread.start()
thread.join()
u = connect()
os.set_inheritable(u.fileno(), True)
text = 'import socket; s = socket.socket(fileno=%d); s.sendall(%r)\n' % (u.fileno(), REQUEST)
text += 'd = b\'\'\nfor p in iter(lambda: s.recv(4096), b\'\'): d += p\nprint(d[-3:], flush=True)'
pid = os.posix_spawn('/usr/bin/python3', ['python3', '-c', text], os.environ)
os.waitpid(pid, 0)
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(w, repr(get(connect())).encode())
    os._exit(0)
say(os.read(r, 100).decode())
";

const CLOSED: &str = r"
s = connect()
s.setblocking(True)
fd = s.fileno()
got = []
def receive():
    data = b''
    buffer = ctypes.create_string_buffer(65536)
    n = libc.recv(fd, buffer, 65536, socket.MSG_WAITALL)
    got.append(buffer.raw[n - 3:n])
thread = threading.Thread(target=receive)
thread.start()
time.sleep(0.5)
copy = os.dup(fd)
os.close(fd)
os.write(copy, REQUEST)
os.close(copy)
thread.join()
try: os.write(fd, b'x')
except OSError as e: say(got[0], e.errno)
";

/// The scenario.
pub fn run() -> Result<()> {
    let port = serve()?;
    let rig = Rig::boot(&["python3"])?;
    for (name, text, expected) in PROGRAMS {
        let script = format!(
            "cat > /tmp/program.py <<'END'\n{COMMON}\n{text}\nEND\n\
             timeout 120 python3 /tmp/program.py {HOST} {port}"
        );
        let answer = rig.succeed(&script).with_context(|| (*name).to_owned())?;
        ensure!(answer == *expected, "{name}: {answer:?} instead of {expected:?}");
    }
    sudden_ends(&rig, port)
}

/// Starts a server that reads a request to its end, answers, and closes.
fn serve() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            n => request.extend_from_slice(&part[..n]),
        }
    }
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok\n")
}

/// Processes that are killed with a call in service leave no delegate behind.
fn sudden_ends(rig: &Rig, port: u16) -> Result<()> {
    let text = r"
pids = []
for n in range(6):
    pid = os.fork()
    if pid == 0:
        s = connect()
        if n % 2: threading.Thread(target=lambda: connect().recv(1)).start()
        s.recv(1)
        os._exit(0)
    pids.append(pid)
time.sleep(2)
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
say('over')
";
    let script = format!(
        "cat > /tmp/program.py <<'END'\n{COMMON}\n{text}\nEND\n\
         timeout 120 python3 /tmp/program.py {HOST} {port}"
    );
    ensure!(rig.succeed(&script)? == "over\n", "sudden ends");
    rig.wait_for_stats("no delegates", |stats| stats.delegates == 0)?;
    Ok(())
}
