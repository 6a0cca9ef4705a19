//! Messages of the relay stream: one frame (and one record of the `relay` channel) is one message.
use crate::BadMessage;
use alloc::{boxed::Box, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Form of interception in the compute VM.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Form {
    /// Nothing is intercepted; no process is trusted.
    Off,
    /// Every process's calls and returns trap.
    Paper,
    /// Only calls made under a watched page-table root trap.
    Watched,
    /// Local calls of trusted processes don't trap either.
    Stub,
}

impl Form {
    /// All forms.
    pub const ALL: [Form; 4] = [Form::Off, Form::Paper, Form::Watched, Form::Stub];

    /// Its name on command lines (`form=watched`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Form::Off => "off",
            Form::Paper => "paper",
            Form::Watched => "watched",
            Form::Stub => "stub",
        }
    }

    /// The form with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }
}

/// What the relay counts. Totals are since boot, unless the text says "now".
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Calls of trusted processes that their own kernel carried out.
    pub calls_local: u64,
    /// Calls carried out by a delegate.
    pub calls_remote: u64,
    /// Calls that ran on both sides.
    pub calls_both: u64,
    /// Calls refused because they are not covered yet, or by policy.
    pub calls_refused: u64,
    /// Calls that a helper made for a trusted process (re-executions).
    pub helper_calls: u64,
    /// Bytes that trusted processes received from remote descriptors.
    pub bytes_in: u64,
    /// Bytes that trusted processes sent to remote descriptors.
    pub bytes_out: u64,
    /// Trusted processes now.
    pub processes: u64,
    /// Trusted processes ever.
    pub processes_total: u64,
    /// Threads of trusted processes now.
    pub threads: u64,
    /// Delegates now.
    pub delegates: u64,
    /// Delegates ever.
    pub delegates_total: u64,
    /// Workers (mailboxes) registered now.
    pub workers: u64,
    /// Remote descriptors open now.
    pub descriptors: u64,
    /// Remote descriptors ever.
    pub descriptors_total: u64,
    /// Remote calls in service now.
    pub in_service: u64,
    /// Cancellations sent.
    pub cancellations: u64,
    /// Exits of the compute vCPU that came to the relay: `(abi::vcpu::ExitClass, count)`.
    pub exits: Vec<(u8, u64)>,
    /// Exits of the compute vCPU of any kind.
    pub exits_total: u64,
    /// Calls by number: `(Linux call number, calls carried out remotely)`.
    pub by_call: Vec<(u16, u64)>,
    /// Bytes of the relay's heap in use now.
    pub heap: u64,
    /// Current form, by [`Form::name`].
    pub form: String,
}

/// From the relay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToHost {
    /// A line that is always shown (refusals, failures).
    Log {
        /// The line, without newline.
        text: String,
    },
    /// A remotely serviced call, for `-v`.
    Call {
        /// The line: process, call, arguments, result, time.
        text: String,
    },
    /// Answer to [`ToRelay::GetStats`].
    Stats(Box<Stats>),
    /// Answer to [`ToRelay::SetForm`] and [`ToRelay::AllowBench`].
    Done {
        /// Empty when it was done, else why not.
        error: String,
    },
    /// A dispatcher registered: remote calls can be serviced (true), or it is lost (false).
    Service {
        /// Whether calls can be serviced.
        ready: bool,
    },
}

/// To the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToRelay {
    /// Asks for [`ToHost::Stats`].
    GetStats,
    /// Switches [`ToHost::Call`] lines on or off.
    Verbose(bool),
    /// Chooses the form of interception.
    SetForm(Form),
    /// Lets programs of the compute VM choose the form (hypercall `BENCH`).
    AllowBench(bool),
}

impl ToHost {
    /// The message as the payload of one frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        crate::to_bytes(self)
    }

    /// Reads the payload of one frame.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn decode(payload: &[u8]) -> Result<Self, BadMessage> {
        crate::from_bytes(payload)
    }
}

impl ToRelay {
    /// The message as the payload of one frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        crate::to_bytes(self)
    }

    /// Reads the payload of one frame.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn decode(payload: &[u8]) -> Result<Self, BadMessage> {
        crate::from_bytes(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_survive() {
        let stats = Stats {
            calls_remote: u64::MAX,
            exits: vec![(1, 2), (3, u64::MAX)],
            form: "watched".into(),
            ..Stats::default()
        };
        for message in [ToHost::Stats(Box::new(stats)), ToHost::Log { text: "é".into() }] {
            assert_eq!(ToHost::decode(&message.encode()), Ok(message));
        }
        for form in Form::ALL {
            let message = ToRelay::SetForm(form);
            assert_eq!(ToRelay::decode(&message.encode()), Ok(message));
            assert_eq!(Form::from_name(form.name()), Some(form));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ToHost::decode(&bytes);
            let _ = ToRelay::decode(&bytes);
        }
    }
}
