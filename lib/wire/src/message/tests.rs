use super::*;
use crate::{PollEntry, SocketEvent};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_header_decodes_to_itself_or_not_at_all(op in 0u64..60, rest in proptest::array::uniform7(any::<u64>()), small: bool) {
        let mut words = [op, 0, 0, 0, 0, 0, 0, 0];
        for (to, from) in words[1..].iter_mut().zip(rest) {
            *to = if small { from & 1 } else { from };
        }
        if let Ok(request) = Request::decode(&pack(words)) {
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        if let Ok(response) = Response::decode(&pack(words)) {
            prop_assert_eq!(Response::decode(&response.encode()), Ok(response));
        }
    }

    #[test]
    fn signed_values_survive(fd: i32, level: i32, name: i32, length: u32) {
        let request = Request::GetOption { fd, level, name, length };
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn poll_entries_round_trip(bytes: [u8; 8]) {
        prop_assert_eq!(PollEntry::decode(bytes).encode(), bytes);
        prop_assert_eq!(SocketEvent::decode(bytes).encode(), bytes);
    }
}
