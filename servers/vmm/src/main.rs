//! The virtual machine monitor: one instance a VM. Boots the VM's kernel, answers the exits of
//! its processor, and lends it an interrupt controller, a clock and virtio devices.
//!
//! One thread, one loop: exits, accesses to device memory, notifications of the channels, and
//! the deadline of the guest's timer. Everything that the guest does is taken for hostile.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod boot;
mod devices;
mod end;
mod exits;
mod io;
mod lost;
mod monitor;
mod msr;
mod restart;

use abi::{Error, Event, FaultMessage, FaultReply, MESSAGE_WORDS, Message};
use monitor::Monitor;
use rt::sys;

rt::entry!(main);

type Next = Result<(Event, Message), Error>;

fn main(_thread: u64) -> ! {
    let mut monitor = Monitor::from_config();
    let mut next = sys::wait(monitor.deadline());
    loop {
        next = match next {
            Ok((event, words)) => serve(&mut monitor, event, &words),
            // Waiting itself does not fail; anything else would be a bug of this program.
            Err(error) => panic!("waiting for exits: {}", error.text()),
        };
    }
}

/// Handles an event, replies where somebody waits for it, and waits for the next one.
fn serve(monitor: &mut Monitor, event: Event, words: &Message) -> Next {
    let empty = [0; MESSAGE_WORDS];
    match event {
        Event::Exit(_) => {
            monitor.exit(words);
            sys::reply_wait(0, empty, monitor.deadline())
        }
        Event::Fault(_) => {
            monitor.device_access(&FaultMessage::decode(words));
            sys::reply_wait(0, FaultReply::Resume.encode(), monitor.deadline())
        }
        Event::Call(_) => sys::reply_wait(Error::Refused as u64, empty, monitor.deadline()),
        Event::Notification => {
            monitor.notified(words[0]);
            sys::wait(monitor.deadline())
        }
        Event::Timeout => {
            monitor.wake_guest();
            sys::wait(monitor.deadline())
        }
        Event::ThreadEnd(_) => sys::wait(monitor.deadline()),
    }
}
