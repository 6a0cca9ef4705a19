//! The console that joins the machine to the host command: bytes in, bytes out.
use alloc::format;
use alloc::string::{String, ToString};
use rt::Shared;
use virtio_driver::{Device, Direction, F_EVENT_IDX, Interrupt, Queue, footprint};

/// Buffers for input: how many, and their bytes. The host's emulator passes on 4 KiB at a time.
const INPUT: (u16, u32) = (128, 4096);
/// Buffers for output.
const OUTPUT: (u16, u32) = (64, 32 * 1024);
/// Queues of port 0 (virtio 1.2, 5.3.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// The running console.
pub struct Console {
    device: Device<Shared>,
    input: Queue<Shared>,
    output: Queue<Shared>,
    doorbells: [u64; 2],
    /// The output buffer being filled, and the bytes in it.
    open: Option<(u16, u32)>,
}

impl Console {
    /// Starts the device that the configuration names.
    pub fn open() -> Result<Self, String> {
        let region = |name: &str| Shared::region(name).ok_or(format!("no region '{name}'"));
        let device = Device::find(region("config")?, |n| Shared::region(&format!("bar{n}")))
            .map_err(|e| e.to_string())?;
        // Without multi-port there are no control messages: port 0 simply works.
        let features = device.negotiate(F_EVENT_IDX).map_err(|e| e.to_string())?;
        let event_idx = features & F_EVENT_IDX != 0;
        let queue = |start, shape, direction| {
            let memory = region("dma")?;
            let base = rt::config().region("dma").and_then(|r| r.physical);
            let base = base.ok_or("DMA memory without physical address")?;
            Queue::new(memory, base, start, shape, direction, event_idx)
                .map_err(|_| "too little DMA memory".to_string())
        };
        let mut console = Self {
            input: queue(0, INPUT, Direction::FromDevice)?,
            output: queue(footprint(INPUT.0, INPUT.1), OUTPUT, Direction::ToDevice)?,
            device,
            doorbells: [0; 2],
            open: None,
        };
        console.start()?;
        Ok(console)
    }

    fn start(&mut self) -> Result<(), String> {
        let show = |e: virtio_driver::Error| e.to_string();
        let (address, data) = rt::bind_interrupt()?;
        self.device.set_interrupt(Interrupt { address, data }).map_err(show)?;
        self.device.set_queue(RECEIVE, INPUT.0, self.input.addresses()).map_err(show)?;
        self.device.set_queue(TRANSMIT, OUTPUT.0, self.output.addresses()).map_err(show)?;
        self.doorbells[0] = self.device.doorbell(RECEIVE).map_err(show)?;
        self.doorbells[1] = self.device.doorbell(TRANSMIT).map_err(show)?;
        self.device.start().map_err(show)?;
        self.output.quiet();
        self.flush_input();
        Ok(())
    }

    /// Appends bytes to the output; answers how many found room.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..)
            && !rest.is_empty()
        {
            let open = self.open.or_else(|| self.output.own_buffer().map(|buffer| (buffer, 0)));
            let Some((buffer, filled)) = open else { break };
            let length = rest.len().min((OUTPUT.1 - filled) as usize);
            if self.output.write(buffer, filled, rest.get(..length).unwrap_or(&[])).is_err() {
                break;
            }
            done += length;
            let filled = filled + length as u32;
            self.open = Some((buffer, filled));
            if filled == OUTPUT.1 {
                self.close();
            }
        }
        done
    }

    fn close(&mut self) {
        if let Some((buffer, filled)) = self.open.take() {
            self.output.submit(buffer, filled);
        }
    }

    /// Lets the device see all output so far.
    pub fn flush_output(&mut self) {
        self.close();
        if self.output.publish() {
            self.device.kick(TRANSMIT, self.doorbells[1]);
        }
    }

    /// The next piece of input, into a buffer of at least [`Console::PIECE`] bytes.
    pub fn get(&mut self, into: &mut [u8]) -> Option<usize> {
        let (buffer, length) = self.input.next_used()?;
        let part = into.get_mut(..length as usize)?;
        let read = self.input.read(buffer, 0, part);
        self.input.submit(buffer, INPUT.1);
        Some(if read.is_ok() { length as usize } else { 0 })
    }

    /// Most bytes that one [`Console::get`] gives.
    pub const PIECE: usize = INPUT.1 as usize;

    /// Lets the device see which buffers may be filled again.
    pub fn flush_input(&mut self) {
        if self.input.publish() {
            self.device.kick(RECEIVE, self.doorbells[0]);
        }
    }

    /// Asks for interrupts: for input where `want_input`, for free buffers where `want_room`. True
    /// when there is something to do at once.
    pub fn listen(&mut self, want_input: bool, want_room: bool) -> bool {
        let input = wish(&mut self.input, want_input);
        let room = wish(&mut self.output, want_room);
        input || room
    }
}

fn wish(queue: &mut Queue<Shared>, wanted: bool) -> bool {
    if wanted {
        return queue.listen();
    }
    queue.quiet();
    false
}
