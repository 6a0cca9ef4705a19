set -e
export LC_ALL=C
python3 -c 'import ctypes; ctypes.CDLL(None).mount(b"tmpfs", b"/tmp", b"tmpfs", 32, b"size=100%")'
cat > /tmp/lines.py <<'P'
import random, sys
T = random.Random(7).randbytes(1 << 18).hex().encode()
def line(k):
    at = k * 997 % (len(T) - 500)
    return b"%016x " % k + T[at:at + 500] + b"." * 506 + b"\n"
def write(n, path):
    with open(path, "wb") as f:
        for i in range(n):
            f.write(line(i * 7919 % n))
def check(n):
    f = sys.stdin.buffer
    for k in range(n):
        if f.readline() != line(k):
            sys.exit(f"line {k} is wrong")
    if f.read(1):
        sys.exit("too many lines")
    print(n, "lines are right")
if sys.argv[1] == "write":
    write(int(sys.argv[2]), sys.argv[3])
else:
    check(int(sys.argv[2]))
P
N=$((SIZE * 1024))
python3 /tmp/lines.py write $N /tmp/data
ls -l /tmp/data
p=0
while [ -s /tmp/data ]; do
  tail -c $((PIECE << 20)) /tmp/data > /tmp/part
  truncate -s -$((PIECE << 20)) /tmp/data
  sort -S $((PIECE * 3 / 2))M -o /tmp/sorted.$p /tmp/part
  p=$((p+1))
done
rm /tmp/part /tmp/data
sort -m /tmp/sorted.* | python3 /tmp/lines.py check $N
