//! The mailbox: one header page and a data area in the worker's memory, shared with the relay.
//!
//! Each side writes its own words only. Order of a request: data, header, `REQUEST_SEQUENCE`;
//! of a response: data, header, `RESPONSE_SEQUENCE`. Who wants to sleep sets its flag, puts a full
//! fence and looks once more; who has stored a sequence number puts a full fence and then reads
//! the other side's flag. So no wake-up is lost.
use crate::{Malformed, Request, Response};
use memory::{Memory, OutOfBounds};

/// Where everything lies, in bytes from the mailbox's start.
pub mod layout {
    /// `MAGIC` (worker, before `REGISTER`).
    pub const MAGIC_AT: u64 = 0;
    /// Version of this layout.
    pub const VERSION_AT: u64 = 4;
    /// [`Kind`](crate::Kind) as a number.
    pub const KIND_AT: u64 = 8;
    /// Own port of the worker's doorbell connection (`getsockname`).
    pub const PORT_AT: u64 = 12;
    /// Number of the delegate.
    pub const DELEGATE_AT: u64 = 16;
    /// Slot of the worker.
    pub const SLOT_AT: u64 = 20;
    /// Token out of the `Fork` request (8 bytes).
    pub const TOKEN_AT: u64 = 24;
    /// Relay: what became of the registration: 0 while nothing has, 1, or a negative errno.
    pub const ADMITTED: u64 = 60;
    /// Relay: number of the request that is posted; the worker serves it when it differs from
    /// `RESPONSE_SEQUENCE`.
    pub const REQUEST_SEQUENCE: u64 = 64;
    /// Relay: the request with this number is cancelled.
    pub const CANCEL: u64 = 68;
    /// Relay: non-zero asks for a `DOORBELL` hypercall after the response.
    pub const WAITING: u64 = 72;
    /// Worker: number of the last request that was answered.
    pub const RESPONSE_SEQUENCE: u64 = 128;
    /// Worker: non-zero while it sleeps, or is about to: it needs a doorbell byte then.
    pub const SLEEPING: u64 = 132;
    /// Request header.
    pub const REQUEST: u64 = 256;
    /// Response header.
    pub const RESPONSE: u64 = 512;
    /// Data area.
    pub const DATA: u64 = 4096;
    /// Socket address.
    pub const ADDRESS: u64 = DATA;
    /// Most bytes of a socket address (`struct sockaddr_storage`).
    pub const ADDRESS_MAX: u32 = 128;
    /// Ancillary data.
    pub const CONTROL: u64 = DATA + ADDRESS_MAX as u64;
    /// Most bytes of ancillary data.
    pub const CONTROL_MAX: u32 = 4096 - ADDRESS_MAX;
    /// Everything else.
    pub const PAYLOAD: u64 = DATA + 4096;
    /// Most bytes there: the rest of the data area.
    pub const PAYLOAD_MAX: u32 = DATA_LENGTH - 4096;
    /// Bytes of the data area.
    pub const DATA_LENGTH: u32 = 256 << 10;
    /// Bytes of the whole mailbox.
    pub const LENGTH: u64 = DATA + DATA_LENGTH as u64;
    /// "TLMB" in ASCII, little endian.
    pub const MAGIC: u32 = u32::from_le_bytes(*b"TLMB");
    /// Changes whenever something here does.
    pub const VERSION: u32 = 2;
}
use layout as at;

/// A request as the worker finds it: its number, and the header if that could be decoded.
pub type Posted = (u32, Result<Request, Malformed>);

/// Who owns a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// The dispatcher; `delegate`, `slot` and `token` are zero.
    Dispatcher = 1,
    /// A worker of a delegate.
    Worker = 2,
}

/// What a worker says about itself before `REGISTER`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registration {
    /// Who registers.
    pub kind: Kind,
    /// Own port of its doorbell connection.
    pub port: u32,
    /// Its delegate.
    pub delegate: u32,
    /// Its slot; 0 is for control requests and calls that never wait.
    pub slot: u32,
    /// Proof that the relay asked for it.
    pub token: u64,
}

/// A view of a mailbox for either side.
#[derive(Clone, Debug)]
pub struct Mailbox<M> {
    memory: M,
}

impl<M: Memory> Mailbox<M> {
    /// Over the memory of one mailbox.
    pub const fn new(memory: M) -> Self {
        Self { memory }
    }

    /// The memory itself, for the data area.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// Worker: fills in the header before `REGISTER`.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn introduce(&self, who: &Registration) -> Result<(), OutOfBounds> {
        let m = &self.memory;
        m.store32(at::KIND_AT, who.kind as u32)?;
        m.store32(at::PORT_AT, who.port)?;
        m.store32(at::DELEGATE_AT, who.delegate)?;
        m.store32(at::SLOT_AT, who.slot)?;
        m.write(at::TOKEN_AT, &who.token.to_le_bytes())?;
        let relays = [at::ADMITTED, at::REQUEST_SEQUENCE, at::CANCEL, at::WAITING];
        for word in relays.into_iter().chain([at::RESPONSE_SEQUENCE, at::SLEEPING]) {
            m.store32(word, 0)?;
        }
        m.store32(at::VERSION_AT, at::VERSION)?;
        m.store32(at::MAGIC_AT, at::MAGIC)
    }

    /// Relay: who registers; `None` when the header is not one of this version.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn registration(&self) -> Result<Option<Registration>, OutOfBounds> {
        let m = &self.memory;
        if m.load32(at::MAGIC_AT)? != at::MAGIC || m.load32(at::VERSION_AT)? != at::VERSION {
            return Ok(None);
        }
        let kind = match m.load32(at::KIND_AT)? {
            1 => Kind::Dispatcher,
            2 => Kind::Worker,
            _ => return Ok(None),
        };
        Ok(Some(Registration {
            kind,
            port: m.load32(at::PORT_AT)?,
            delegate: m.load32(at::DELEGATE_AT)?,
            slot: m.load32(at::SLOT_AT)?,
            token: m.read64(at::TOKEN_AT)?,
        }))
    }

    /// Relay: says what has become of the registration: nothing wrong, or a negative errno.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn admit(&self, error: Option<i32>) -> Result<(), OutOfBounds> {
        self.memory.store32(at::ADMITTED, error.unwrap_or(1).cast_unsigned())
    }

    /// Worker: what has become of its registration: `None` while nothing has, else nothing wrong
    /// or a negative errno.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn admitted(&self) -> Result<Option<Result<(), i32>>, OutOfBounds> {
        Ok(match self.memory.load32(at::ADMITTED)?.cast_signed() {
            0 => None,
            error if error < 0 => Some(Err(error)),
            _ => Some(Ok(())),
        })
    }

    /// Relay: posts request `sequence` (data are in place already). Answers true when the worker
    /// needs a doorbell byte.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn post(&self, sequence: u32, request: &Request) -> Result<bool, OutOfBounds> {
        let m = &self.memory;
        m.write(at::REQUEST, &request.encode())?;
        m.store32(at::WAITING, 0)?;
        m.store32(at::REQUEST_SEQUENCE, sequence)?;
        m.fence();
        Ok(m.load32(at::SLEEPING)? != 0)
    }

    /// Relay: cancels request `sequence`. Answers true when the worker needs a doorbell byte.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn cancel(&self, sequence: u32) -> Result<bool, OutOfBounds> {
        let m = &self.memory;
        m.store32(at::CANCEL, sequence)?;
        m.fence();
        Ok(m.load32(at::SLEEPING)? != 0)
    }

    /// Relay: the response to request `sequence`, when it is there.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn response(
        &self,
        sequence: u32,
    ) -> Result<Option<Result<Response, Malformed>>, OutOfBounds> {
        let m = &self.memory;
        if m.load32(at::RESPONSE_SEQUENCE)? != sequence {
            return Ok(None);
        }
        let mut header = [0; Response::SIZE];
        m.read(at::RESPONSE, &mut header)?;
        Ok(Some(Response::decode(&header)))
    }

    /// Relay: asks for a `DOORBELL`. The caller looks for the response once more afterwards.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn want_doorbell(&self) -> Result<(), OutOfBounds> {
        self.memory.store32(at::WAITING, 1)?;
        self.memory.fence();
        Ok(())
    }

    /// Worker: the request after number `done`, with its number.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn request(&self, done: u32) -> Result<Option<Posted>, OutOfBounds> {
        let m = &self.memory;
        let sequence = m.load32(at::REQUEST_SEQUENCE)?;
        if sequence == done {
            return Ok(None);
        }
        let mut header = [0; Request::SIZE];
        m.read(at::REQUEST, &mut header)?;
        Ok(Some((sequence, Request::decode(&header))))
    }

    /// Worker: true when request `sequence` has been cancelled.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn cancelled(&self, sequence: u32) -> Result<bool, OutOfBounds> {
        Ok(self.memory.load32(at::CANCEL)? == sequence)
    }

    /// Worker: publishes the response (data are in place already). Answers true when the relay
    /// wants the `DOORBELL` hypercall.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn respond(&self, sequence: u32, response: &Response) -> Result<bool, OutOfBounds> {
        let m = &self.memory;
        m.write(at::RESPONSE, &response.encode())?;
        m.store32(at::RESPONSE_SEQUENCE, sequence)?;
        m.fence();
        Ok(m.load32(at::WAITING)? != 0)
    }

    /// Worker: says that it is about to sleep (or that it woke). After `true` the caller looks
    /// for a request and a cancellation once more before it really sleeps.
    ///
    /// # Errors
    /// The memory is shorter than a mailbox.
    pub fn set_sleeping(&self, sleeping: bool) -> Result<(), OutOfBounds> {
        self.memory.store32(at::SLEEPING, u32::from(sleeping))?;
        self.memory.fence();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::Fake;

    fn pair() -> (Mailbox<Fake>, Mailbox<Fake>) {
        let memory = Fake::new(at::LENGTH as usize);
        (Mailbox::new(memory.clone()), Mailbox::new(memory))
    }

    #[test]
    fn a_request_is_served_once_and_answered() {
        let (relay, worker) = pair();
        let who =
            Registration { kind: Kind::Worker, port: 77, delegate: 3, slot: 1, token: 0xfeed };
        assert_eq!(relay.registration(), Ok(None));
        worker.introduce(&who).unwrap();
        assert_eq!(relay.registration(), Ok(Some(who)));
        assert_eq!(worker.admitted(), Ok(None));
        relay.admit(Some(-17)).unwrap();
        assert_eq!(worker.admitted(), Ok(Some(Err(-17))));
        relay.admit(None).unwrap();
        assert_eq!(worker.admitted(), Ok(Some(Ok(()))));

        assert_eq!(worker.request(0), Ok(None));
        let request = Request::Listen { fd: 5, backlog: -1 };
        assert_eq!(relay.post(1, &request), Ok(false));
        assert_eq!(worker.request(0), Ok(Some((1, Ok(request)))));
        assert_eq!(relay.response(1), Ok(None));
        assert_eq!(worker.respond(1, &Response::value(-98)), Ok(false));
        assert_eq!(relay.response(1), Ok(Some(Ok(Response::value(-98)))));
        assert_eq!(worker.request(1), Ok(None));
    }

    #[test]
    fn sleepers_on_both_sides_are_noticed() {
        let (relay, worker) = pair();
        worker.set_sleeping(true).unwrap();
        assert_eq!(relay.post(1, &Request::Nop), Ok(true));
        worker.set_sleeping(false).unwrap();
        relay.want_doorbell().unwrap();
        assert_eq!(relay.cancel(1), Ok(false));
        assert_eq!(worker.cancelled(1), Ok(true));
        assert_eq!(worker.respond(1, &Response::value(0)), Ok(true));
        assert_eq!(relay.post(2, &Request::Nop), Ok(false));
        assert_eq!(worker.cancelled(2), Ok(false));
        assert_eq!(worker.respond(2, &Response::value(0)), Ok(false));
    }

    #[test]
    fn two_threads_exchange_a_thousand_requests() {
        let (relay, worker) = pair();
        let server = std::thread::spawn(move || {
            let mut done = 0;
            while done < 1000 {
                let Some((sequence, request)) = worker.request(done).unwrap() else {
                    std::thread::yield_now();
                    continue;
                };
                let Ok(Request::Listen { fd, .. }) = request else { panic!("{request:?}") };
                worker.respond(sequence, &Response::value(i64::from(fd))).unwrap();
                done = sequence;
            }
        });
        for n in 1..=1000 {
            relay.post(n, &Request::Listen { fd: n as i32, backlog: 0 }).unwrap();
            loop {
                if let Some(response) = relay.response(n).unwrap() {
                    assert_eq!(response, Ok(Response::value(i64::from(n))));
                    break;
                }
                std::thread::yield_now();
            }
        }
        server.join().unwrap();
    }
}
