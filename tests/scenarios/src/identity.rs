//! A program is what its code is: copies, injected libraries, code made at run time and code
//! that another process altered have no network; the programs themselves have it.
use crate::policy::{boot, fails};
use crate::rig::{Rig, text};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use trapline::machine::tail;
use trapline::web::{HOST, Server};

/// `python3.11` makes code; `wget` is denied most libraries that it needs.
const POLICY: &str = r#"
[[program]]
path = "/usr/bin/curl"
verify = true
connect = [{}]

[[program]]
path = "/usr/bin/python3"
verify = true
connect = [{}]

[[program]]
path = "/usr/bin/python3.11"
jit = true
connect = [{}]

[[program]]
path = "/usr/bin/cat"

[[program]]
path = "/usr/bin/wget"
libraries = "/usr/lib/x86_64-linux-gnu/libc.so.6"
connect = [{}]
"#;

/// Connects, and says what came of it; `kept` is the first connection.
const GO: &str = "import ctypes, errno, mmap, os, socket, sys\n\
    kept = None\n\
    def say(call):\n    \
        try: call(); print('ok', flush=True)\n    \
        except OSError as e: print(errno.errorcode[e.errno], flush=True)\n\
    def go():\n    \
        global kept\n    \
        s = socket.create_connection((HOST, PORT), timeout=60)\n    \
        kept = kept or s\n";

/// Writes a word of code of another process, as it was, by `ptrace` or through its memory file. It is
/// code that the process does not execute: Linux 6.1 zeroes the rest of a page of a DAX mapping that
/// another process writes to.
const ALTER: &str = "import ctypes, os, sys\n\
    pid, how = int(sys.argv[1]), sys.argv[2]\n\
    code = [l for l in open(f'/proc/{pid}/maps') if 'libffi.so' in l and ' r-xp ' in l]\n\
    at = int(code[0].split('-')[0], 16) + 64\n\
    if how == 'memory':\n    \
        memory = open(f'/proc/{pid}/mem', 'r+b', 0)\n    \
        memory.seek(at); word = memory.read(8)\n    \
        memory.seek(at); memory.write(word)\n\
    else:\n    \
        trace = ctypes.CDLL(None, use_errno=True).ptrace\n    \
        trace.restype, trace.argtypes = ctypes.c_long, [ctypes.c_long] * 2 + [ctypes.c_void_p] * 2\n    \
        assert trace(16, pid, None, None) == 0; os.waitpid(pid, 0)\n    \
        word = ctypes.c_long(); raw = trace(3, pid, 0, ctypes.addressof(word))\n    \
        word = trace(1, pid, at, None)\n    \
        assert trace(4, pid, at, word & (1 << 64) - 1) == 0\n    \
        assert trace(17, pid, None, None) == 0\n";

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(20_000)?;
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    silent.set_nonblocking(true)?;
    let rig = boot(POLICY)?;
    let case = Case { rig: &rig, server: &server, silent: &silent };
    case.copies()?;
    case.found_by_name()?;
    case.libraries()?;
    case.made_code()?;
    case.altered("memory")?;
    case.altered("ptrace")?;
    case.copied_up()
}

struct Case<'c> {
    rig: &'c Rig,
    server: &'c Server,
    /// Nobody ever reaches it.
    silent: &'c TcpListener,
}

impl Case<'_> {
    fn curl_works(&self, before: &str) -> Result<()> {
        let sum =
            self.rig.succeed(&format!("{before} curl -sS {} | sha256sum", self.server.url()))?;
        ensure!(sum.starts_with(&self.server.sha256()), "{before} curl: {sum}");
        Ok(())
    }

    fn forbidden(&self) -> Result<String> {
        Ok(format!("http://{HOST}:{}/", self.silent.local_addr()?.port()))
    }

    /// It fails, reaches nothing, and the log says why.
    fn refused(&self, script: &str, log: &str) -> Result<()> {
        let lines = self.lines(log);
        let outcome = self.rig.compute(script)?;
        ensure!(outcome.status != 0, "'{script}' succeeded: {}", text(&outcome));
        ensure!(self.silent.accept().is_err(), "'{script}' reached the server");
        ensure!(self.lines(log) > lines, "'{script}': no line says '{log}'");
        Ok(())
    }

    fn lines(&self, words: &str) -> usize {
        tail(&self.rig.machine.logs().join("kernel.log"), usize::MAX).matches(words).count()
    }

    fn python(&self, program: &str, script: &str) -> Result<String> {
        let port = self.server.port();
        let go = GO.replace("HOST", &format!("'{HOST}'")).replace("PORT", &port.to_string());
        self.rig.succeed(&format!("{program} - <<'END'\n{go}{script}END"))
    }

    /// A copy has another name, or, where it takes the name, other code.
    fn copies(&self) -> Result<()> {
        self.curl_works("")?;
        let url = self.forbidden()?;
        let copy = format!("cp /usr/bin/curl /tmp/curl && /tmp/curl -sS -m 20 {url}");
        let outcome = self.rig.compute(&copy)?;
        ensure!(outcome.status == 7, "a renamed copy: {}", text(&outcome));
        ensure!(self.silent.accept().is_err(), "a renamed copy reached the server");
        let bound = format!(
            "echo tries=1 > /tmp/wgetrc; WGETRC=/tmp/wgetrc /usr/bin/python3 -c \"import ctypes; l = ctypes.CDLL(None); \
             exit(l.unshare(0x20000) or l.mount(None, b'/', None, 0x44000, None) \
             or l.mount(b'FILE', b'/usr/bin/curl', None, 4096, None) \
             or l.execvp(b'curl', (ctypes.c_char_p * 4)(b'curl', b'-q', b'{url}', None)))\""
        );
        self.refused(&bound.replace("FILE", "/tmp/curl"), "not from the root image, but from mem")?;
        self.refused(&bound.replace("FILE", "/usr/bin/wget"), "a file that is not the program's")?;
        self.curl_works("")
    }

    /// A trusted program starts another one by its name: it is found behind a link to the launcher, and has
    /// the connection that it inherits.
    fn found_by_name(&self) -> Result<()> {
        let request = "GET /file HTTP/1.0\\r\\n\\r\\n";
        for start in ["os.execvp('cat', ['cat'])", "subprocess.run(['cat'], check=True)"] {
            let script = format!(
                "import subprocess\ngo()\nkept.sendall(b'{request}')\n\
                 kept.shutdown(socket.SHUT_WR)\n\
                 os.dup2(kept.fileno(), 0)\nassert '/run/trapline/bin' in os.environ['PATH']\n{start}\n"
            );
            let answer = self.python("python3", &script)?;
            let whole = answer.starts_with("HTTP/1.") && answer.len() > 20_000;
            ensure!(whole, "{start} with an inherited connection: {} bytes", answer.len());
        }
        Ok(())
    }

    fn libraries(&self) -> Result<()> {
        let library = "/usr/lib/x86_64-linux-gnu/libz.so.1";
        self.curl_works(&format!("LD_PRELOAD={library}"))?;
        self.rig.succeed(&format!("cp {library} /tmp/libz.so.1"))?;
        let url = self.forbidden()?;
        for how in ["LD_PRELOAD=/tmp/libz.so.1", "LD_LIBRARY_PATH=/tmp"] {
            self.refused(&format!("{how} curl -sS -m 20 {url}"), "refused at connect: code at")?;
        }
        // One that comes later takes away what there was.
        let script = "say(go)\nctypes.CDLL('/tmp/libz.so.1')\nsay(go)\n\
                      say(lambda: kept.send(b'x'))\nsay(go)\n";
        let said = self.python("python3", script)?;
        ensure!(said == "ok\nEACCES\nECONNRESET\nEACCES\n", "a library from /tmp: {said}");
        let said = self.python("python3", &script.replace("/tmp/", "/lib/x86_64-linux-gnu/"))?;
        ensure!(said == "ok\nok\nok\nok\n", "a library of the image: {said}");
        self.refused(&format!("wget -q -t 1 -O - {url}"), "a file that is not the program's")
    }

    fn made_code(&self) -> Result<()> {
        let script = "say(go)\npage = mmap.mmap(-1, 4096, prot=RIGHTS)\npage[0]\nsay(go)\n";
        for (rights, python, expected) in [
            ("7", "python3", "ok\nEACCES\n"),
            ("5", "python3", "ok\nEACCES\n"),
            ("3", "python3", "ok\nok\n"),
            ("7", "python3.11", "ok\nok\n"),
        ] {
            let said = self.python(python, &script.replace("RIGHTS", rights))?;
            ensure!(said == expected, "{python} with a page of rights {rights}: {said}");
        }
        Ok(())
    }

    /// Another process writes to the code of one that runs; what it writes changes nothing.
    fn altered(&self, how: &str) -> Result<()> {
        let mut script = String::from("rm -f /tmp/go /tmp/said; mkfifo /tmp/go\n");
        write!(script, "cat > /tmp/alter.py <<'END'\n{ALTER}END\n")?;
        let port = self.server.port();
        let go = GO.replace("HOST", &format!("'{HOST}'")).replace("PORT", &port.to_string());
        write!(script, "cat > /tmp/victim.py <<'END'\n{go}for line in sys.stdin: say(go)\nEND\n")?;
        write!(
            script,
            "python3 /tmp/victim.py < /tmp/go > /tmp/said & victim=$!\n\
             exec 3> /tmp/go; echo >&3; until [ -s /tmp/said ]; do sleep 0.1; done\n\
             /usr/bin/python3 /tmp/alter.py $victim {how} || exit 9\n\
             echo >&3; exec 3>&-; wait $victim; cat /tmp/said\n"
        )?;
        let lines = self.lines("not from the root image, but from memory");
        let said = self.rig.succeed(&script).with_context(|| format!("altering by {how}"))?;
        ensure!(said == "ok\nEACCES\n", "altered by {how}: {said}");
        let now = self.lines("not from the root image, but from memory");
        ensure!(now > lines, "altered by {how}: no line says so");
        Ok(())
    }

    /// The file itself is changed: its pages are the VM's own from then on.
    fn copied_up(&self) -> Result<()> {
        self.rig.succeed("cp /tmp/curl /usr/bin/curl")?;
        let url = self.forbidden()?;
        self.refused(&format!("curl -sS -m 20 {url}"), "not from the root image, but from mem")
    }
}

/// A sum that is not the file's is a mistake of the policy.
pub fn sums() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("policy.toml");
    let name = path.to_str().context("a path of text")?;
    let sum = "00".repeat(32);
    std::fs::write(&path, format!("[[program]]\npath = \"/usr/bin/curl\"\nsha256 = \"{sum}\"\n"))?;
    let words = [":3:10: ", "the SHA-256 sum of /usr/bin/curl in the root image is "];
    fails(&["run", "--policy", name, "--", "true"], &words)?;
    std::fs::write(
        &path,
        "[[program]]\npath = \"/bin/curl\"\nlibraries = [\"/usr/lib/none.so\"]\n",
    )?;
    fails(&["run", "--policy", name, "--", "true"], &[":3:13: ", "there is no such file"])
}
