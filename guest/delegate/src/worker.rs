//! The loop of a thread that owns a mailbox.

use crate::calls::Call;
use crate::door::{Door, Gone};
use crate::errno;
use crate::hypervisor::Hypervisor;
use crate::sockets::Sockets;
use wire::{Request, Response};

/// What carries out the requests that are no socket's business.
pub trait Control {
    /// A response, and whether the worker is to end after it.
    fn control(&self, request: &Request) -> (Response, bool);
}

/// For workers that no such request may come to.
#[derive(Clone, Copy, Debug)]
pub struct NoControl;

impl Control for NoControl {
    fn control(&self, _: &Request) -> (Response, bool) {
        (Response::value(-errno::EINVAL), false)
    }
}

/// Serves requests until one of them ends the worker.
///
/// # Errors
/// `Gone`: the hypervisor or the dispatcher went away.
pub fn serve<H: Hypervisor>(
    door: &mut Door<H>,
    sockets: &Sockets,
    control: &impl Control,
) -> Result<(), Gone> {
    let mut done = 0;
    loop {
        let (sequence, response, last) = serve_one(door, sockets, control, done)?;
        door.respond(sequence, &response)?;
        if last {
            return Ok(());
        }
        done = sequence;
    }
}

/// Waits for the request after number `done` and has it carried out: its number, the response, and
/// whether the worker is to end after it.
///
/// # Errors
/// `Gone`.
pub fn serve_one<H: Hypervisor>(
    door: &mut Door<H>,
    sockets: &Sockets,
    control: &impl Control,
    done: u32,
) -> Result<(u32, Response, bool), Gone> {
    let (sequence, request) = door.next(done)?;
    let Ok(request) = request else {
        return Ok((sequence, Response::value(-errno::EINVAL), false));
    };
    // Cancelled already: not even started.
    if door.cancelled(sequence)? {
        let response = Response { cancelled: true, ..Response::value(-errno::EINTR) };
        return Ok((sequence, response, false));
    }
    let call = Call { door, sockets, sequence };
    Ok(match call.run(&request)? {
        Some(response) => (sequence, response, false),
        None => {
            let (response, last) = control.control(&request);
            (sequence, response, last)
        }
    })
}
