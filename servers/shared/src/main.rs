//! The manager of memory that several programs and virtual machines see, each with rights of its own
//! that the owner can lower or take away at any time. Who may do what is `lib/backing`'s (`shares`); what a
//! client sees, it sees through the kernel's windows onto a *view* in this program's space, which nobody else shares: taking rights
//! away is changing that view, and reaches every processor and every guest before the call returns, whatever the client
//! has done with its regions meanwhile. See `doc/decisions/managers.md`.
//!
//! What it knows, it writes down, for the one that is started in its place: that one makes the views anew, at the same
//! addresses, and gives each region that had a window the same one again when somebody faults there.
//!
//! One thread a processor. The badge of a portal is the number of the client, below 64. Faults come only where a client may
//! not do what it tries.
//!
//! Configuration: region and capability `pool`, the memory; parameter `quotas`, a list `client:bytes,…`; `spaces`, a list
//! `client:selector,…`; of what is there from the start `objects`, a list `owner:bytes,…`, `grants`, a list
//! `object:client:rights,…`, and `regions`, a list `object:client:base:bytes,…`; region `ends`, a byte for each client that is 1 when it has
//! ended, of which a notification tells; region `notes`; region `ledger`.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod told;
mod views;

use abi::{
    Error, Event, FaultMessage, FaultReply, MESSAGE_WORDS, MemRights, Message, NO_DEADLINE,
    Selector, SpaceAddr,
};
use alloc::vec::Vec;
use backing::accounts::Accounts;
use backing::shares::{CLIENT_LIMIT, Change, Created, Ended, MOST_OBJECTS, Notes, Request, Shares};
use backing::{Tag, tuples};
use memory::Memory;
use rt::{Shared, log, sys};
use spin::{Mutex, Once};
use told::Told;
use views::Views;

rt::entry!(main);

/// How often a client's faults are answered "try again" since its rights have changed last: one for each that was under way
/// then is enough.
const MOST_AGAIN: u32 = 64;

/// What the threads share. They run on different processors, so a spin lock is enough.
struct State {
    shares: Shares<Shared>,
    views: Views,
    told: Told,
    ends: Option<Shared>,
    /// Clients whose end was noticed, as bits.
    ended: u64,
    again: [u32; CLIENT_LIMIT as usize],
}

static STATE: Once<Mutex<State>> = Once::new();

/// A parameter that is a list, read whole.
fn list<const N: usize>(name: &str) -> Vec<[u64; N]> {
    let tuples = tuples(rt::config().parameter(name).unwrap_or("")).map(|tuple| match tuple {
        Ok(tuple) => tuple,
        Err(part) => panic!("parameter '{name}' is malformed at '{part}'"),
    });
    tuples.collect()
}

impl State {
    fn from_config() -> Self {
        let (Some(pool), Some(memory)) = (Shared::region("pool"), rt::config().capability("pool"))
        else {
            panic!("no region or capability 'pool' in the configuration");
        };
        let accounts = match Accounts::list(rt::config().parameter("quotas").unwrap_or("")) {
            Ok(accounts) => accounts,
            Err(part) => panic!("parameter 'quotas' is malformed at '{part}'"),
        };
        let shares = Shares::new(pool.len(), accounts, Notes::new(Shared::region("notes")));
        let views = Views::new(pool, Selector(memory), &list("spaces"));
        let again = [0; CLIENT_LIMIT as usize];
        let ends = Shared::region("ends");
        let mut state = Self { shares, views, told: Told::new(), ends, ended: 0, again };
        if state.shares.begun() {
            state.take_over();
        } else if let Err(error) = state.prepare() {
            panic!("what is shared from the start: {}", error.text());
        }
        state.tell_all();
        state
    }

    /// Goes on where another one has ended: everybody sees what it may see.
    fn take_over(&mut self) {
        self.look_for_ends();
        for object in 0..MOST_OBJECTS {
            let Ok(place) = self.shares.place(object) else { continue };
            let may = self.shares.users(object).filter(|(_, user)| !user.rights.is_empty());
            for (client, user) in may.collect::<Vec<_>>() {
                if let Err(error) = self.views.show(object, client, place, user.rights) {
                    log!("client {client} can't be shown object {object}: {}", error.text());
                }
            }
        }
        let (count, bytes) = self.shares.total();
        log!("goes on with {count} objects, {bytes} bytes");
    }

    /// Makes what is there from the start.
    fn prepare(&mut self) -> Result<(), Error> {
        let mut owners = Vec::new();
        for [owner, length] in list("objects") {
            self.create(owner, length, MemRights::READ | MemRights::WRITE, 0)?;
            owners.push(owner);
        }
        for [object, user, rights] in list("grants") {
            let owner = owners.get(object as usize).ok_or(Error::Refused)?;
            self.give(*owner, object as u32, user, MemRights::from_bits_truncate(rights))?;
        }
        list("regions").into_iter().try_for_each(|[object, client, base, length]| {
            self.attach(client, object as u32, (SpaceAddr(base), length), 0)
        })?;
        self.shares.begin();
        Ok(())
    }

    fn create(
        &mut self,
        owner: u64,
        length: u64,
        rights: MemRights,
        name: u64,
    ) -> Result<u32, Error> {
        let object = match self.shares.create(owner, length, rights, name)? {
            Created::Fresh(object) => object,
            Created::There(object) => return Ok(object),
        };
        let rights = self.shares.user(object, owner).rights;
        let place = self.shares.place(object)?;
        // Nobody has seen what was there before, or what is there now.
        let made = self.views.zero(place);
        if made.is_ok() {
            self.shares.made(object);
        }
        let made = made.and_then(|()| self.views.show(object, owner, place, rights));
        if let Err(error) = made {
            let ended = self.shares.end(owner, object)?;
            self.views.end(&ended);
            return Err(error);
        }
        Ok(object)
    }

    fn give(
        &mut self,
        caller: u64,
        object: u32,
        user: u64,
        rights: MemRights,
    ) -> Result<(), Error> {
        let place = self.shares.place(object)?;
        let changes = self.shares.give(caller, object, user, rights)?;
        let mut done = Ok(());
        for Change { user, rights } in changes {
            self.changed(user);
            // All of them, also where one fails: what could not be shown is not shown.
            done = done.and(self.views.show(object, user, place, rights));
        }
        done
    }

    fn changed(&mut self, client: u64) {
        if let Some(again) = self.again.get_mut(client as usize) {
            *again = 0;
        }
    }

    fn end(&mut self, ended: &Ended) {
        self.views.end(ended);
    }

    fn attach(
        &mut self,
        client: u64,
        object: u32,
        region: (SpaceAddr, u64),
        offset: u64,
    ) -> Result<(), Error> {
        self.shares.attach(client, object, offset, region.1)?;
        let done = self.views.attach(object, client, region, offset);
        if done.is_err() {
            self.shares.not_attached(client, object);
        }
        self.changed(client);
        done
    }

    /// Regions lose their windows with the view that these look at; it is then made anew, for others to come.
    fn detach(&mut self, client: u64, object: u32) -> Result<(), Error> {
        self.shares.detach(client, object)?;
        let (place, rights) = (self.shares.place(object)?, self.shares.user(object, client).rights);
        self.views.forget(object, client, place.length);
        self.views.show(object, client, place, rights)
    }

    /// Carries out what a client asks for.
    fn call(&mut self, client: u64, words: &Message) -> Result<Message, Error> {
        let request = Request::decode(words).ok_or(Error::BadArgument)?;
        let mut answer = [0; MESSAGE_WORDS];
        match request {
            Request::Create { length, rights, name } => {
                answer[0] = self.create(client, length, rights, name)?.into();
            }
            Request::Give { object, user, rights } => self.give(client, object, user, rights)?,
            Request::End { object } => {
                let ended = self.shares.end(client, object)?;
                self.end(&ended);
            }
            Request::Attach { object, base, length, offset } => {
                self.attach(client, object, (base, length), offset)?;
            }
            Request::Detach { object } => self.detach(client, object)?,
            Request::Info { object } => {
                let place = self.shares.place(object)?;
                let own = self.shares.owner(object) == Some(client);
                let rights = self.shares.user(object, client).rights;
                answer[..3].copy_from_slice(&[place.length, rights.bits(), own.into()]);
            }
        }
        let object = request.object().or_else(|| u32::try_from(answer[0]).ok());
        object.into_iter().for_each(|object| self.told.write(object, &self.shares));
        Ok(answer)
    }

    /// An access that no view allows, or that did not yet when it was made.
    fn fault(&mut self, client: u64, fault: &FaultMessage) -> Result<FaultReply, Error> {
        let needed = MemRights::from_bits_truncate(1 << fault.access as u64);
        if fault.lost != 0 {
            return self.show_again(client, fault, needed);
        }
        let object = Tag::decode(fault.tag).object;
        self.shares.place(object)?;
        self.told.asked(object, &self.shares);
        if !self.shares.user(object, client).rights.contains(needed) {
            return Err(Error::NoRight);
        }
        // Either it was allowed meanwhile, or the region was never attached, which does not change by itself.
        let again = self.again.get_mut(client as usize).ok_or(Error::NoRegion)?;
        if *again >= MOST_AGAIN {
            return Err(Error::NoRegion);
        }
        *again += 1;
        Ok(FaultReply::Resume)
    }

    /// A region had a window, with the manager before this one. Where that was tells what it shows; it may be anything that a
    /// client has thought up, so it is checked as if it was asked for now.
    fn show_again(
        &mut self,
        client: u64,
        fault: &FaultMessage,
        needed: MemRights,
    ) -> Result<FaultReply, Error> {
        let found = views::seen(fault.lost).filter(|(_, whose, _)| *whose == client);
        let (object, _, offset) = found.ok_or(Error::NoRegion)?;
        self.told.asked(object, &self.shares);
        self.shares.shows_again(client, object, (offset, fault.region_length), needed)?;
        Ok(FaultReply::Window { at: fault.lost })
    }

    /// Writes into the ledger what there is of all objects.
    fn tell_all(&self) {
        (0..MOST_OBJECTS).for_each(|object| self.told.write(object, &self.shares));
    }

    /// Looks who has ended.
    fn look_for_ends(&mut self) {
        let Some(ends) = self.ends else { return };
        for client in 0..CLIENT_LIMIT {
            let mut byte = [0];
            let known = self.ended >> client & 1 == 1;
            if known || ends.read(client, &mut byte).is_err() || byte != [1] {
                continue;
            }
            self.ended |= 1 << client;
            let (ended, left) = self.shares.client_ended(client);
            ended.iter().for_each(|ended| self.end(ended));
            for object in &left {
                let length = self.shares.place(*object).map_or(0, |place| place.length);
                self.views.forget(*object, client, length);
            }
            if !ended.is_empty() {
                let (count, bytes) = self.shares.total();
                log!(
                    "client {client} ended with {} objects; {count} with {bytes} bytes are left",
                    ended.len()
                );
            }
            self.tell_all();
        }
    }
}

fn main(_thread: u64) -> ! {
    let state = STATE.call_once(|| Mutex::new(State::from_config()));
    let nothing = [0; MESSAGE_WORDS];
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let answer = match &next {
            Ok((Event::Call(client), words)) => state.lock().call(*client, words),
            Ok((Event::Fault(client), words)) => {
                let reply = state.lock().fault(*client, &FaultMessage::decode(words));
                reply.map(FaultReply::encode)
            }
            Ok((Event::Exit(_), _)) => Err(Error::Refused),
            _ => {
                state.lock().look_for_ends();
                next = sys::wait(NO_DEADLINE);
                continue;
            }
        };
        next = match answer {
            Ok(words) => sys::reply_wait(0, words, NO_DEADLINE),
            Err(error) => sys::reply_wait(error as u64, nothing, NO_DEADLINE),
        };
    }
}
