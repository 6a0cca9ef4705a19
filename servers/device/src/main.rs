//! The manager of registers: models of the virtual machines' devices that need nothing but their memory, persistent memory
//! and random numbers (`lib/device`). Each device's window is a region of the guest-physical space that is bound to this program, so an access
//! comes straight here, with the processor's state beside it, and the machine's monitor does not run. See `doc/decisions/managers.md`.
//!
//! One thread a processor, each for the machines that run there; threads share nothing. The badge of a portal is the number
//! of the machine, a region's tag the slot. Monitors pass configuration space on by calls ([`Request`]) and get interrupts through
//! their machine's channel `interrupts-NAME`. This program calls nobody.
//!
//! Configuration: parameter `machines`, a list `name:thread:start of its root image:length:slot+slot…,…`; of each machine the regions
//! `ram-NAME` and `vcpu-NAME`; region `notes`, where it writes down what its successor has to know; region `ledger`.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod vm;

use abi::{Error, Event, FaultMessage, FaultReply, MESSAGE_WORDS, Message, NO_DEADLINE};
use device_models::Request;
use rt::sys;
use vm::Vm;

rt::entry!(main);

fn main(thread: u64) -> ! {
    let mut machines = Vm::all(thread);
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let answer = match &next {
            Ok((Event::Fault(badge), words)) => fault(&mut machines, *badge, words),
            Ok((Event::Call(badge), words)) => call(&mut machines, *badge, words),
            Ok((Event::Exit(_), _)) => Err(Error::Refused),
            _ => {
                next = sys::wait(NO_DEADLINE);
                continue;
            }
        };
        next = match answer {
            Ok(words) => sys::reply_wait(0, words, NO_DEADLINE),
            Err(error) => sys::reply_wait(error as u64, [0; MESSAGE_WORDS], NO_DEADLINE),
        };
    }
}

fn machine(machines: &mut [Vm], badge: u64) -> Result<&mut Vm, Error> {
    machines.iter_mut().find(|vm| vm.number == badge).ok_or(Error::Refused)
}

fn fault(machines: &mut [Vm], badge: u64, words: &Message) -> Result<Message, Error> {
    machine(machines, badge)?.access(&FaultMessage::decode(words));
    Ok(FaultReply::Resume.encode())
}

fn call(machines: &mut [Vm], badge: u64, words: &Message) -> Result<Message, Error> {
    let vm = machine(machines, badge)?;
    let request = Request::decode(words).ok_or(Error::BadArgument)?;
    Ok([vm.request(request).into(), 0, 0, 0, 0, 0, 0, 0])
}
