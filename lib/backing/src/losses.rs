//! What a monitor tells the manager of its guest's memory about pages that are lost: words of a call.
use abi::{MESSAGE_WORDS, Message};

const WHOLE: u64 = 1;
const LOSE: u64 = 2;

/// A request. Pages are numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// A lost page is a page of zeros from now on, which the monitor fills before its guest goes on: all of it has been written anew.
    Whole {
        /// The page.
        page: u32,
    },
    /// A page is to be lost: it was to become a copy of one that is.
    Lose {
        /// The page.
        page: u32,
    },
}

impl Request {
    /// The words.
    #[must_use]
    pub const fn encode(self) -> Message {
        let mut words = [0; MESSAGE_WORDS];
        let (what, page) = match self {
            Self::Whole { page } => (WHOLE, page),
            Self::Lose { page } => (LOSE, page),
        };
        words[0] = what;
        words[1] = page as u64;
        words
    }

    /// Reads the words; `None` when they make no sense.
    #[must_use]
    pub fn decode(words: &Message) -> Option<Self> {
        let page = u32::try_from(words[1]).ok()?;
        match words[0] {
            WHOLE => Some(Self::Whole { page }),
            LOSE => Some(Self::Lose { page }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_requests() {
        for request in [Request::Whole { page: 7 }, Request::Lose { page: u32::MAX }] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        assert_eq!(Request::decode(&[0; MESSAGE_WORDS]), None);
        let mut words = Request::Lose { page: 1 }.encode();
        words[1] = 1 << 32;
        assert_eq!(Request::decode(&words), None);
    }
}
