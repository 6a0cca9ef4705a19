"""What users of similar systems suffer from, one function each. They run trusted in the compute VM;
the peer of guest/probe is in the service VM.

    clauses.py CLAUSE PEER'S-PORT [long]
"""
import ctypes
import errno
import fcntl
import os
import random
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time

HOST = "10.0.2.15"
PEER = (HOST, int(sys.argv[2]))
LONG = sys.argv[3:] == ["long"]
# What the host shows of a long run: a line for each process.
PROGRESS = "/tmp/progress"
# Processes of `epoll_rounds`.
EPOLLERS = 32 if LONG else 4
# Nothing below waits by the clock; what hangs ends here.
PATIENCE = 110


def rounds(full, least, seconds):
    """As many rounds as there are to be; in the short form, as many as fit into that time."""
    end = time.monotonic() + seconds
    for n in range(full):
        if not LONG and n >= least and time.monotonic() > end:
            break
        if n % 250 == 0:
            with open(f"{PROGRESS}.{os.getpid()}", "w") as f:
                print(n, "of", full, file=f)
        yield n


def stream(words):
    """A connection on which the peer does what the words say."""
    s = socket.create_connection(PEER)
    s.sendall(words.encode() + b"\n")
    return s


def listener(family=socket.AF_INET, backlog=16):
    s = socket.socket(family)
    s.bind(("", 0))
    s.listen(backlog)
    return s


def pair():
    """Both ends of a connection over the service VM's network."""
    with listener() as l:
        a = socket.create_connection((HOST, l.getsockname()[1]))
        b, _ = l.accept()
    for s in a, b:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return a, b


def failure(call):
    """The error that a call ends with, by name."""
    try:
        return call() or "no error"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))


def expect(what, found, wanted):
    if found != wanted:
        raise SystemExit(f"{what}: {found}, not {wanted}")


def all_of(s):
    data = b""
    while part := s.recv(65536):
        data += part
    return data


def port_zero():
    """After bind to port 0 and listen, a peer really connects to the port that getsockname tells."""
    unbound = socket.socket()
    unbound.listen(4)
    six = socket.socket(socket.AF_INET6)
    six.bind(("::", 0))
    six.listen(4)
    for s in listener(), unbound, six:
        port = s.getsockname()[1]
        control = stream(f"connect {port} say hello")
        client, _ = s.accept()
        expect("port of the connection", client.getsockname()[1], port)
        expect("what came", all_of(client), b"hello")
        client.close()
        expect("the peer", control.recv(10), b"done\n")


def accept_blocked():
    """With accept blocked in one thread, other calls on that descriptor return."""
    l = listener()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(l.accept()))
    thread.start()
    while open(f"/proc/self/task/{thread.native_id}/stat").read().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.01)
    fd = l.fileno()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    calls = [
        lambda: l.getsockname()[0],
        lambda: failure(l.getpeername),
        lambda: l.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
        lambda: l.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        lambda: fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK,
        lambda: os.close(os.dup(fd)),
        lambda: poller.poll(0),
        lambda: select.select([fd], [], [], 0),
        lambda: failure(lambda: l.recv(1)),
        lambda: failure(lambda: fcntl.ioctl(fd, termios.FIONREAD, bytes(4))),
        lambda: os.fstat(fd).st_mode & 0o170000,
        lambda: l.listen(8),
    ]
    wanted = ["0.0.0.0", "ENOTCONN", 1, None, 0, None, [], ([], [], []), "ENOTCONN", "EINVAL", 0o140000, None]
    for round in range(3):
        expect(f"round {round}", [call() for call in calls], wanted)
    expect("accept meanwhile", taken, [])
    control = stream(f"connect {l.getsockname()[1]} say late")
    thread.join()
    expect("what came", all_of(taken[0][0]), b"late")


def accept_until_eagain():
    """accept until EAGAIN, 10 000 times."""
    l = listener(backlog=64)
    l.setblocking(False)
    taken = 0
    due = 0
    for n in rounds(10_000, 200, 10):
        if n % 200 == 100:
            due += 3
            controls = [stream(f"connect {l.getsockname()[1]} say x") for _ in range(3)]
            # The peer says so when all has been sent.
            [expect("the peer", c.recv(10), b"done\n") for c in controls]
        try:
            while True:
                client, _ = l.accept()
                client.setblocking(True)
                expect("what came", all_of(client), b"x")
                client.close()
                taken += 1
        except BlockingIOError:
            pass
    expect("connections", taken, due)
    print(n + 1, "rounds")


def connecting(address, prepare=lambda s: None):
    """A non-blocking connect: what it says, what poll finds, SO_ERROR twice."""
    s = socket.socket()
    prepare(s)
    s.setblocking(False)
    said = errno.errorcode.get(s.connect_ex(address), 0)
    poller = select.poll()
    poller.register(s, select.POLLOUT)
    found = poller.poll()[0][1]
    error = [s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for _ in range(2)]
    return s, (said, found, [errno.errorcode.get(e, e) for e in error])


def nonblocking_connect():
    """EINPROGRESS, writability, SO_ERROR: for success, refusal and time-out."""
    out, err, hup = select.POLLOUT, select.POLLERR, select.POLLHUP
    s, found = connecting(PEER)
    expect("success", found, ("EINPROGRESS", out, [0, 0]))
    s.setblocking(True)
    s.sendall(b"say ok\n")
    expect("data", all_of(s), b"ok")
    _, found = connecting((HOST, 1))
    expect("refusal", found, ("EINPROGRESS", out | err | hup, ["ECONNREFUSED", 0]))
    # A queue that is full: further connections get no answer.
    full = listener(backlog=0)
    address = full.getsockname()
    address = (HOST, address[1])
    fill = [socket.socket() for _ in range(3)]
    for one in fill:
        one.setblocking(False)
        one.connect_ex(address)
    once = lambda s: s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
    _, found = connecting(address, once)
    expect("time-out", found, ("EINPROGRESS", out | err | hup, ["ETIMEDOUT", 0]))


def reuse_port():
    """SO_REUSEPORT only when asked; a second listener gets EADDRINUSE."""
    first = listener()
    address = ("", first.getsockname()[1])
    expect("unasked", first.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT), 0)
    expect("second", failure(lambda: socket.socket().bind(address)), "EADDRINUSE")
    for option in socket.SO_REUSEPORT, socket.SO_REUSEADDR:
        other = socket.socket()
        other.setsockopt(socket.SOL_SOCKET, option, 1)
        expect("asked by one only", failure(lambda: other.bind(address)), "EADDRINUSE")
    first.close()
    both = [socket.socket(), socket.socket()]
    for s in both:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(address)
        s.listen(64)
    controls = [stream(f"connect {address[1]} say x") for _ in range(40)]
    [expect("the peer", c.recv(10), b"done\n") for c in controls]
    taken = [0, 0]
    for n, s in enumerate(both):
        s.setblocking(False)
        while failure(lambda: s.accept()[0].close()) == "no error":
            taken[n] += 1
    expect("connections", sum(taken), 40)
    if 0 in taken:
        raise SystemExit(f"not shared: {taken}")


def in_child(body):
    pid = os.fork()
    if pid == 0:
        try:
            body()
            os._exit(0)
        except BaseException as e:
            print("child:", e, file=sys.stderr)
            os._exit(1)
    return pid


def end_after_fork():
    """EOF and RST arrive, also after fork and the parent's close; an exit is a close."""
    for words, wanted in ("bye", b""), ("reset-later", "ECONNRESET"):
        s = stream(words)
        pid = in_child(lambda: expect(words, failure(lambda: s.recv(10)) if wanted else s.recv(10), wanted))
        s.close()
        expect("child", os.waitpid(pid, 0)[1], 0)
    # The peer holds its end until both processes' are closed, one of them by its end.
    l = listener()
    control = stream(f"connect {l.getsockname()[1]} hold x")
    client, _ = l.accept()
    ready, go = os.pipe()
    pid = in_child(lambda: os.read(ready, 1))
    client.close()
    poller = select.poll()
    poller.register(control, select.POLLIN)
    expect("the peer, while the child has it", poller.poll(300), [])
    os.write(go, b"x")
    expect("child", os.waitpid(pid, 0)[1], 0)
    expect("the peer", control.recv(10), b"done\n")
    # A linger time of zero: the peer is reset.
    a, b = pair()
    a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    a.close()
    expect("reset", failure(lambda: b.recv(1)), "ECONNRESET")


def timeouts():
    """Receive and send time-outs act, and read back."""
    a, b = pair()
    for option, call in (
        (socket.SO_RCVTIMEO, lambda: a.recv(1)),
        (socket.SO_SNDTIMEO, lambda: [a.send(bytes(1 << 20)) for _ in range(1000)]),
    ):
        a.setsockopt(socket.SOL_SOCKET, option, struct.pack("qq", 0, 400_000))
        expect("read back", struct.unpack("qq", a.getsockopt(socket.SOL_SOCKET, option, 16)), (0, 400_000))
        start = time.monotonic()
        expect("over", failure(call), "EAGAIN")
        if time.monotonic() - start < 0.4:
            raise SystemExit(f"too early: {time.monotonic() - start}")
        a.setsockopt(socket.SOL_SOCKET, option, struct.pack("qq", 0, 0))
    l = listener()
    l.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 0, 200_000))
    expect("accept", failure(l.accept), "EAGAIN")


def stalled_peer():
    """A peer that reads nothing harms no other connection."""
    a, b = pair()
    size = 16 << 20
    sender = threading.Thread(target=lambda: (a.sendall(bytes(size)), a.close()))
    sender.start()
    while not fcntl.ioctl(b, termios.FIONREAD, bytes(4)) > bytes(4):
        pass
    echo = stream("echo")
    for n in rounds(500, 20, 10):
        text = b"%d\n" % n
        echo.sendall(text)
        expect("echo", echo.recv(100), text)
        if n % 10 == 0:
            expect("short", all_of(stream("say short")), b"short")
    if not sender.is_alive():
        raise SystemExit("the peer did not stall")
    expect("bytes in the end", len(all_of(b)), size)
    sender.join()


def epoll_rounds():
    """Events are neither lost nor doubled: edges and levels, remote and local; in several processes, as
    most of a round with remote events is waiting for the other VM."""
    ready, done = os.pipe()

    def work(seed):
        counts = epoll_rounds_of(seed)
        with os.fdopen(done, "w") as out:
            print(*counts, file=out)

    children = [in_child(lambda: work(seed)) for seed in range(EPOLLERS)]
    expect("children", [os.waitpid(pid, 0)[1] for pid in children], [0] * EPOLLERS)
    os.close(done)
    with os.fdopen(ready) as counts:
        all_rounds, remote = [sum(n) for n in zip(*(map(int, line.split()) for line in counts))]
    print(all_rounds, "rounds in", EPOLLERS, "processes,", remote, "of them with a remote event")


def epoll_rounds_of(seed):
    """One process's part: in each round one of eight sockets gets a byte, one time in eight a remote one.
    Answers the rounds, and those with a remote event."""
    chance = random.Random(seed).random
    pairs = [pair() for _ in range(4)] + [socket.socketpair() for _ in range(4)]
    epoll = select.epoll()
    number = {}
    for n, (_, b) in enumerate(pairs):
        b.setblocking(False)
        epoll.register(b, select.EPOLLIN | (select.EPOLLET if n % 2 == 0 else 0))
        number[b.fileno()] = n
    send, receive = [a.send for a, _ in pairs], [b.recv for _, b in pairs]
    waiting = [0] * len(pairs)
    # Those that are level-triggered and readable: told each time.
    levels = set()
    remote = 0
    for done in rounds(1_000_000 // EPOLLERS, 100, 15):
        n = int(chance() * 4)
        if chance() < 7 / 8:
            n += 4
        else:
            remote += 1
        send[n](b"x")
        waiting[n] += 1
        if n % 2:
            levels.add(n)
        expected = levels | {n}
        found = set()
        while found != expected:
            events = epoll.poll(60)
            if not events:
                raise SystemExit(f"round {done}: lost {expected - found}")
            for fd, event in events:
                n = number[fd]
                if event != select.EPOLLIN:
                    raise SystemExit(f"round {done}, events of {n}: {event}")
                if n not in expected or n % 2 == 0 and n in found:
                    raise SystemExit(f"round {done}: {n} is told twice, {found}, {expected}")
                found.add(n)
        if chance() < 1 / 8:
            again = {number[fd] for fd, _ in epoll.poll(0)}
            expect(f"round {done}, asked again", again, levels)
        for n in found:
            if chance() < 0.8:
                expect(f"round {done}, bytes", len(receive[n](1000)), waiting[n])
                waiting[n] = 0
                levels.discard(n)
    return done + 1, remote


def many_short():
    """Thousands of short connections from 16 threads."""
    wrong, done = [], [0] * 16

    def work(thread):
        try:
            for n in rounds(250, 10, 15):
                done[thread] = n + 1
                text = f"{thread}.{n}"
                with stream(f"say {text}") as s:
                    expect(text, all_of(s), text.encode())
        except BaseException as e:
            wrong.append(f"{thread}: {e}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    expect("errors", wrong, [])
    print(sum(done), "connections")


def flipped_address():
    """A thread that changes an address while another connects never gets past the policy."""
    libc = ctypes.CDLL(None, use_errno=True)
    forbidden = 7701
    memory = ctypes.create_string_buffer(16)
    good = struct.pack("=H", socket.AF_INET) + struct.pack(">H", PEER[1]) + socket.inet_aton(HOST) + bytes(8)
    port = [struct.pack(">H", PEER[1]), struct.pack(">H", forbidden)]
    memory.raw = good
    running = True

    def flip():
        n = 0
        while running:
            n += 1
            ctypes.memmove(ctypes.addressof(memory) + 2, port[n & 1], 2)

    thread = threading.Thread(target=flip)
    thread.start()
    counts = {}
    for n in rounds(2000, 60, 10):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if n % 3 == 2 else socket.SOCK_STREAM)
        if n % 3 == 1:
            answer = libc.sendto(s.fileno(), b"x", 1, 0x20000000, memory, 16)
        else:
            answer = libc.connect(s.fileno(), memory, 16)
        said = "connected" if answer >= 0 else errno.errorcode[ctypes.get_errno()]
        counts[said] = counts.get(said, 0) + 1
        if said == "connected":
            expect("the peer", s.getpeername()[1], PEER[1])
        s.close()
    running = False
    thread.join()
    print(counts)
    if not {"connected", "EACCES"} <= set(counts) <= {"connected", "EACCES", "EPERM"}:
        raise SystemExit(f"{counts}")


if not LONG:
    signal.alarm(PATIENCE)
globals()[sys.argv[1]]()
print("good")
