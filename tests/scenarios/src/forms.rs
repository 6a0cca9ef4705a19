//! Every form of interception services the same programs; what differs is what exits.
use crate::rig::Rig;
use anyhow::{Context, Result, ensure};
use hostlink::relay::Form;
use trapline::web::{HOST, Server};

/// Local calls of the trusted loop.
const CALLS: u64 = 20_000;

/// The scenario.
pub fn run() -> Result<()> {
    let server = Server::start(200_000)?;
    let rig = Rig::boot(&["curl", "python3"])?;
    for form in [Form::Paper, Form::Watched, Form::Stub, Form::Watched, Form::Stub] {
        rig.machine.set_form(form)?;
        let what = || format!("form {}", form.name());
        download(&rig, &server).with_context(what)?;
        both_sides(&rig, &server).with_context(what)?;
        let exits = local_calls(&rig).with_context(what)?;
        // A local call costs two exits, or none.
        let right = if form == Form::Stub { exits < CALLS } else { exits >= 2 * CALLS };
        ensure!(right, "{}: {exits} exits for {CALLS} local calls", what());
    }
    Ok(())
}

fn download(rig: &Rig, server: &Server) -> Result<()> {
    let sum = rig.succeed(&format!("curl -sS {} | sha256sum", server.url()))?;
    ensure!(sum.starts_with(&server.sha256()), "curl: {sum}");
    let untrusted = rig.compute(&format!("env wget -q -T 5 -t 1 -O - {}", server.url()))?;
    ensure!(untrusted.status != 0, "an untrusted program got through");
    Ok(())
}

/// `select` over a pipe and a connection: the local side is ready many times, then the remote one,
/// then both.
fn both_sides(rig: &Rig, server: &Server) -> Result<()> {
    let script = format!(
        "python3 - <<'END'\n\
         import os, select, socket\n\
         s = socket.create_connection(('{HOST}', {}), 60)\n\
         r, w = os.pipe()\n\
         ready = lambda: select.select([r, s], [], [], 60)[0]\n\
         os.write(w, b'x')\n\
         assert all(ready() == [r] for _ in range(300))\n\
         os.read(r, 1)\n\
         s.sendall(b'GET /small HTTP/1.0\\r\\n\\r\\n')\n\
         assert ready() == [s]\n\
         os.write(w, b'x')\n\
         assert ready() == [r, s]\n\
         data = b''\n\
         while not data.endswith(b'ok\\n'):\n    \
             data += s.recv(1000)\n\
         s.close()\n\
         print('good')\n\
         END",
        server.port()
    );
    let answer = rig.succeed(&script)?;
    ensure!(answer.trim() == "good", "python3: {answer}");
    Ok(())
}

/// Exits that a trusted program's local calls cost, with those of its start and end.
fn local_calls(rig: &Rig) -> Result<u64> {
    let before = rig.machine.stats()?.exits_total;
    let script = format!(
        "python3 -c 'import os, socket\ns = socket.socket()\nfor _ in range({CALLS}): os.getppid()'"
    );
    rig.succeed(&script)?;
    Ok(rig.machine.stats()?.exits_total.saturating_sub(before))
}
