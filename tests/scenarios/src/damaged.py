# What becomes of programs whose memory, a file of random bytes, is lost in parts. Words: the URL of a web server.
import errno, mmap, os, socket, sys, urllib.parse

SIZE, PAGE = 24 << 20, 4096


def in_child(work):
    """What a child's work comes to: its exit status, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read_all(memory):
    for at in range(0, SIZE, PAGE):
        memory[at]


def write_all(memory):
    for at in range(0, SIZE, PAGE):
        memory[at] = 1


def result(call, *arguments):
    try:
        call(*arguments)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]


file = open("/tmp/file", "r+b")
shared, private = (
    mmap.mmap(file.fileno(), SIZE, flags) for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE)
)
view = memoryview(shared)

print("reading", in_child(lambda: read_all(shared)))
print("copy on write", in_child(lambda: write_all(private)))

# Which pages the kernel can't read for this program.
out = open("/tmp/out", "wb", buffering=0)
pages = [view[at : at + PAGE] for at in range(0, SIZE, PAGE)]
results = [result(out.write, page) for page in pages]
lost = [page for page, what in zip(pages, results) if what == "EFAULT"]
good = [page for page, what in zip(pages, results) if what == "done"]
os.remove("/tmp/out")
print("lost", len(lost) > 100, "others", len(good) + len(lost) == len(pages) and len(good) > 0)

# Nor can the relay.
url = urllib.parse.urlparse(sys.argv[1])
with socket.create_connection((url.hostname, url.port)) as connection:
    print("sent", {result(connection.send, page) for page in lost[:20]})
    request = f"GET {url.path} HTTP/1.0\r\n\r\n".encode()
    good[0][: len(request)] = request
    connection.send(good[0][: len(request)])
    print("answer", connection.recv(12).split()[1].decode())
    print("received", result(connection.recv_into, lost[0][:1]))

# What is filled anew is there again.
text = os.urandom(PAGE)
with open("/tmp/text", "wb") as file:
    file.write(text)
with open("/tmp/text", "rb", buffering=0) as file:
    file.readinto(lost[1])
print("filled anew", bytes(lost[1]) == text, "its neighbour", result(os.write, 1, lost[2]))
