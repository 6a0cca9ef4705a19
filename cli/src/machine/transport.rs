//! The sockets between the host command and QEMU's consoles.
use super::board::Board;
use super::{Vm, qemu};
use anyhow::{Context, Result, anyhow, bail};
use hostlink::{Decoder, Stream, agent, frame};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// A socket on which QEMU is expected, and the stream that it carries (`None`: frames of all).
pub struct Listener {
    socket: UnixListener,
    stream: Option<Stream>,
}

/// Makes the sockets.
///
/// # Errors
/// When they can't be made.
pub fn listen(folder: &Path, streams: Vec<Option<Stream>>) -> Result<Vec<Listener>> {
    let make = |(number, stream)| {
        let path = qemu::transport_path(folder, number);
        let socket = UnixListener::bind(&path)
            .with_context(|| format!("can't make the socket {}", path.display()))?;
        socket.set_nonblocking(true)?;
        Ok(Listener { socket, stream })
    };
    streams.into_iter().enumerate().map(make).collect()
}

/// Waits for QEMU on all sockets and starts the threads that read and write.
///
/// # Errors
/// QEMU ends or does not come.
pub fn connect(
    listeners: Vec<Listener>,
    child: &mut Child,
    board: &Arc<Board>,
    logs: &Path,
) -> Result<Outbox> {
    let mut lanes = Vec::new();
    for listener in listeners {
        let socket = accept(&listener.socket, child)?;
        socket.set_nonblocking(false)?;
        let (sender, receiver) = mpsc::channel();
        let writer = socket.try_clone()?;
        spawn("link-writer", move || write(writer, &receiver))?;
        let sorter = Sorter::new(board.clone(), logs)?;
        let stream = listener.stream;
        spawn("link-reader", move || read(socket, stream, sorter))?;
        lanes.push(Lane { stream: listener.stream, sender });
    }
    Ok(Outbox { lanes: lanes.into() })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(body).context("can't start a thread")?;
    Ok(())
}

fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((socket, _)) => return Ok(socket),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("can't accept QEMU's connection"),
        }
        crate::supervise::check()?;
        if let Some(status) = child.try_wait()? {
            bail!("QEMU ended at once ({status})");
        }
        if start.elapsed() > Duration::from_secs(30) {
            bail!("QEMU did not start within 30 s");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Clone)]
struct Lane {
    stream: Option<Stream>,
    sender: mpsc::Sender<Vec<u8>>,
}

/// Where messages to the machine go. They are written by threads of their own, so that sending
/// never blocks; windows of the protocols bound what waits.
#[derive(Clone)]
pub struct Outbox {
    lanes: Arc<[Lane]>,
}

impl Outbox {
    /// Sends bytes on a stream. A machine that has ended takes nothing any more, which its reader
    /// notices and reports.
    pub fn send(&self, stream: Stream, bytes: Vec<u8>) {
        for lane in self.lanes.iter() {
            if lane.stream.is_none() {
                let mut framed = Vec::with_capacity(bytes.len() + frame::HEADER);
                frame::encode(stream, &bytes, &mut framed);
                let _ = lane.sender.send(framed);
                return;
            }
            if lane.stream == Some(stream) {
                let _ = lane.sender.send(bytes);
                return;
            }
        }
    }

    /// Sends a message to the agent of a VM.
    ///
    /// # Errors
    /// It is too long.
    pub fn agent(&self, vm: Vm, message: &agent::ToGuest) -> Result<()> {
        let mut bytes = Vec::new();
        agent::encode(message, &mut bytes).map_err(|_| anyhow!("message too long"))?;
        self.send(vm.agent(), bytes);
        Ok(())
    }
}

fn write(mut socket: UnixStream, messages: &mpsc::Receiver<Vec<u8>>) {
    while let Ok(bytes) = messages.recv() {
        if socket.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn read(mut socket: UnixStream, stream: Option<Stream>, mut sorter: Sorter) {
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; 64 << 10];
    let why = loop {
        let bytes = match socket.read(&mut buffer) {
            Ok(0) => break "its console was closed".to_owned(),
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => break format!("its console failed: {error}"),
        };
        if let Some(stream) = stream {
            sorter.take(stream, bytes);
            continue;
        }
        decoder.push(bytes);
        let result = loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => sorter.take(frame.stream, &frame.payload),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = result {
            break format!("it sent a malformed frame ({error})");
        }
    };
    sorter.board.machine_ended(why);
}

/// Brings what arrives to where it belongs.
struct Sorter {
    board: Arc<Board>,
    consoles: [File; 2],
    native: File,
    agents: [agent::Decoder; 2],
}

impl Sorter {
    fn new(board: Arc<Board>, logs: &Path) -> Result<Self> {
        let log = |name: &str| {
            let path = logs.join(name);
            let mut options = File::options();
            let file = options.create(true).append(true).open(&path);
            file.with_context(|| format!("can't write {}", path.display()))
        };
        let consoles =
            [log(&super::console_log(Vm::Compute))?, log(&super::console_log(Vm::Service))?];
        Ok(Self { board, consoles, native: log("native.log")?, agents: Default::default() })
    }

    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::ConsoleCompute => self.console(Vm::Compute, bytes),
            Stream::ConsoleService => self.console(Vm::Service, bytes),
            Stream::AgentCompute => self.agent(Vm::Compute, bytes),
            Stream::AgentService => self.agent(Vm::Service, bytes),
            Stream::Relay => self.board.relay(bytes),
            Stream::Control => self.board.control(bytes),
            // A full disk only costs the log.
            Stream::Log => drop(self.native.write_all(bytes)),
        }
    }

    fn console(&mut self, vm: Vm, bytes: &[u8]) {
        let [compute, service] = &mut self.consoles;
        let file = if vm == Vm::Compute { compute } else { service };
        drop(file.write_all(bytes));
        self.board.console(vm, bytes);
    }

    fn agent(&mut self, vm: Vm, bytes: &[u8]) {
        let [compute, service] = &mut self.agents;
        let decoder = if vm == Vm::Compute { compute } else { service };
        decoder.push(bytes);
        while let Some(message) = decoder.next_message() {
            self.board.agent(vm, message);
        }
    }
}
