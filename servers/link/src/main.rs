//! The host link: driver of the machine's modern `virtio-serial-pci` with one port, and the place
//! where the streams of `hostlink` are put together and taken apart. It looks into no stream but
//! the control stream.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod console;
mod memory;
mod stream;

use abi::NO_DEADLINE;
use alloc::vec::Vec;
use console::Console;
use hostlink::control::{ToHost, ToMachine, VERSION};
use hostlink::{Decoder, Frame, Stream, frame};
use ring::MAX_RECORD;
use rt::{log, sys};
use stream::{Joined, STREAMS};

rt::entry!(main);

/// Pieces of input and records of output that a turn moves before it looks at the other side.
const BATCH: usize = 64;

/// The server's state.
struct Link {
    console: Console,
    streams: Vec<Joined>,
    decoder: Decoder,
    /// The host's frames stopped making sense.
    deaf: bool,
    /// Output that found no room in the console's buffers.
    left: Vec<u8>,
    record: Vec<u8>,
    /// Stream whose turn it is.
    next: usize,
}

fn main(_thread: u64) -> ! {
    let console = match Console::open() {
        Ok(console) => console,
        Err(error) => panic!("the host link can't be driven: {error}"),
    };
    let mut link = Link {
        console,
        streams: STREAMS.iter().filter_map(|(stream, name)| Joined::open(*stream, name)).collect(),
        decoder: Decoder::new(),
        deaf: false,
        left: Vec::new(),
        record: alloc::vec![0; MAX_RECORD],
        next: 0,
    };
    link.say(&ToHost::Up { version: VERSION });
    loop {
        let more = link.input() | link.output();
        link.streams.iter_mut().for_each(Joined::flush);
        if !more && !link.console.listen(true, !link.left.is_empty()) {
            // Which bits came does not matter: all there is to do is done each time.
            let _ = sys::wait(NO_DEADLINE);
        }
    }
}

impl Link {
    /// Takes the host's bytes apart. True when there may be more.
    fn input(&mut self) -> bool {
        let mut piece = [0; Console::PIECE];
        let mut turns = 0;
        while turns < BATCH
            && let Some(length) = self.console.get(&mut piece)
        {
            self.decoder.push(piece.get(..length).unwrap_or(&[]));
            self.frames();
            turns += 1;
        }
        self.console.flush_input();
        turns == BATCH
    }

    fn frames(&mut self) {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => self.frame(frame),
                Ok(None) => return,
                Err(error) => {
                    if !core::mem::replace(&mut self.deaf, true) {
                        log!("the host's frames make no sense any more: {error}");
                        self.say(&ToHost::Failed { text: alloc::format!("host link: {error}") });
                    }
                    return;
                }
            }
        }
    }

    fn frame(&mut self, frame: Frame) {
        if frame.stream == Stream::Control {
            match ToMachine::decode(&frame.payload) {
                Ok(ToMachine::Hello) => self.say(&ToHost::Up { version: VERSION }),
                Ok(ToMachine::GetMemory) => {
                    self.say(&ToHost::Memory(memory::sample()));
                }
                Err(error) => log!("control message of the host: {error}"),
            }
            return;
        }
        let joined = self.streams.iter_mut().find(|joined| joined.stream == frame.stream);
        if let Some(bytes) = joined.and_then(|joined| joined.give(frame.payload)) {
            self.say(&ToHost::Dropped { stream: frame.stream as u8, bytes });
        }
    }

    /// Puts a control message into the output.
    fn say(&mut self, message: &ToHost) {
        frame::encode(Stream::Control, &message.encode(), &mut self.left);
    }

    /// Puts the streams' records together, stream by stream in turn. True when there may be more;
    /// false also when the console's buffers are full.
    fn output(&mut self) -> bool {
        let mut records = 0;
        let mut idle = 0;
        while self.drained() && records < BATCH && idle < self.streams.len() {
            let count = self.streams.len();
            let Some(joined) = self.streams.get_mut(self.next % count) else { break };
            self.next = (self.next + 1) % count;
            match joined.take(&mut self.record) {
                Some(length) => {
                    let record = self.record.get(..length).unwrap_or(&[]);
                    frame::encode(joined.stream, record, &mut self.left);
                    (records, idle) = (records + 1, 0);
                }
                None => idle += 1,
            }
        }
        let drained = self.drained();
        self.console.flush_output();
        drained && self.streams.iter().any(Joined::has_output)
    }

    /// Moves `left` into the console's buffers; true when all of it went.
    fn drained(&mut self) -> bool {
        let done = self.console.put(&self.left);
        self.left.drain(..done);
        self.left.is_empty()
    }
}
