//! The loop of a memory manager.
use crate::{log, sys};
use abi::{Error, Event, FaultMessage, FaultReply, MESSAGE_WORDS, NO_DEADLINE};

/// Answers the faults of the regions that name this thread's portals, for ever; `serve` gets the
/// portal's badge too. What it refuses becomes the thread's fault report, and a line of the log;
/// calls are refused.
pub fn serve_faults(mut serve: impl FnMut(u64, &FaultMessage) -> Result<FaultReply, Error>) -> ! {
    let nothing = [0; MESSAGE_WORDS];
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        next = match next {
            Ok((Event::Fault(badge), words)) => {
                let fault = FaultMessage::decode(&words);
                match serve(badge, &fault) {
                    Ok(reply) => sys::reply_wait(0, reply.encode(), NO_DEADLINE),
                    Err(error) => {
                        log!("fault refused: {fault:?}: {}", error.text());
                        sys::reply_wait(error as u64, nothing, NO_DEADLINE)
                    }
                }
            }
            Ok((Event::Call(_), _)) => sys::reply_wait(Error::Refused as u64, nothing, NO_DEADLINE),
            _ => sys::wait(NO_DEADLINE),
        };
    }
}
