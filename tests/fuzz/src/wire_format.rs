//! Headers of requests and responses, records, registrations: what decodes, encodes to something that
//! decodes to the same; a mailbox with anything in it is read without harm.
use memory::{Fake, Memory};
use wire::vsock::{MAX_RECORD, Record};
use wire::{Mailbox, PollEntry, Request, Response, layout};

/// `bytes`: a kind, then the message.
pub fn target(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => {
            if let Some(header) = rest.first_chunk::<{ Request::SIZE }>()
                && let Ok(request) = Request::decode(header)
            {
                assert_eq!(Request::decode(&request.encode()), Ok(request));
                assert!(!request.name().is_empty());
            }
        }
        1 => {
            if let Some(header) = rest.first_chunk::<{ Response::SIZE }>()
                && let Ok(response) = Response::decode(header)
            {
                assert_eq!(Response::decode(&response.encode()), Ok(response));
            }
            if let Some(entry) = rest.first_chunk() {
                assert_eq!(PollEntry::decode(*entry).encode(), *entry);
            }
        }
        2 => {
            if let Some(record) = Record::decode(rest) {
                let mut out = [0; MAX_RECORD];
                let length = record.encode(&mut out);
                assert_eq!(out.get(..length).and_then(Record::decode), Some(record));
            }
        }
        _ => mailbox(rest),
    }
}

/// Bytes of a mailbox's head that the other side may have written.
const HEAD: usize = 600;

fn mailbox(bytes: &[u8]) {
    let length = if bytes.len().is_multiple_of(7) { bytes.len() } else { layout::LENGTH as usize };
    let memory = Fake::new(length.max(1));
    let head = bytes.get(..bytes.len().min(HEAD)).unwrap_or_default();
    let _ = memory.write(0, head);
    let mailbox = Mailbox::new(memory.clone());
    if let Ok(Some(who)) = mailbox.registration()
        && mailbox.introduce(&who).is_ok()
    {
        assert_eq!(mailbox.registration(), Ok(Some(who)));
    }
    let sequence = bytes.last().copied().unwrap_or(0).into();
    if let Ok(Some((number, request))) = mailbox.request(sequence) {
        assert_ne!(number, sequence);
        if let Ok(request) = request {
            // What a worker took, a relay could have posted.
            if mailbox.post(number, &request).is_ok() {
                assert_eq!(mailbox.request(sequence), Ok(Some((number, Ok(request)))));
            }
        }
    }
    let _ = (mailbox.response(sequence), mailbox.cancelled(sequence));
    let _ = mailbox.respond(sequence, &Response::value(-4));
    let _ = (mailbox.cancel(sequence), mailbox.want_doorbell(), mailbox.set_sleeping(true));
}
