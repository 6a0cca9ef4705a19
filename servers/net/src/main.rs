//! Driver of the machine's network card, a modern `virtio-net-pci`: frames between the card and
//! the service VM's monitor (channel `packets`). It looks into no frame.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod card;

use abi::NO_DEADLINE;
use card::Card;
use rt::{Channel, log, sys};

rt::entry!(main);

fn main(_thread: u64) -> ! {
    let Some(mut channel) = Channel::open("packets") else {
        panic!("no channel 'packets' in the configuration");
    };
    let mut card = match Card::open() {
        Ok(card) => card,
        Err(error) => panic!("the network card can't be driven: {error}"),
    };
    log!("network card {} drives", card.address());
    let mut frame = [0; card::BUFFER as usize];
    loop {
        let sent = to_card(&mut card, &mut channel, &mut frame);
        let received = from_card(&mut card, &mut channel, &mut frame);
        if channel.rx.writer_waits() || received {
            channel.notify();
        }
        // Interrupts are asked for only now: during a burst there are none.
        if !card.listen(sent) {
            // Which bits came does not matter: all there is to do is done each time.
            let _ = sys::wait(NO_DEADLINE);
        }
    }
}

/// Moves frames from the channel to the card. True when all are gone; else the card has no free
/// buffer.
fn to_card(card: &mut Card, channel: &mut Channel, frame: &mut [u8]) -> bool {
    let done = loop {
        if channel.rx.is_empty() {
            break true;
        }
        let Some(buffer) = card.free_buffer() else { break false };
        match channel.rx.pop(frame) {
            Ok(Some(length)) => card.send(buffer, frame.get(..length).unwrap_or(&[])),
            Ok(None) => break true,
            Err(ring::Corrupt) => log!("nonsense in the channel: skipped"),
        }
    };
    card.flush_sent();
    done
}

/// Moves frames from the card to the channel, until there is none or the channel is full: then
/// they stay in the card's buffers, and the network is held up, as it should be. True when any
/// were moved.
fn from_card(card: &mut Card, channel: &mut Channel, frame: &mut [u8]) -> bool {
    let mut any = false;
    while let Some(length) = card.received(frame) {
        if channel.tx.push(frame.get(..length).unwrap_or(&[])).is_err() {
            break;
        }
        card.done_with_received();
        any = true;
    }
    card.flush_received();
    any
}
