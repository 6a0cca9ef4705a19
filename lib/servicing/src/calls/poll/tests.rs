use super::super::readiness::dead_events;
use super::super::split::Side;
use super::*;
use linux_abi::POLLNVAL;
use proptest::prelude::*;

fn entry() -> impl Strategy<Value = PollFd> {
    (-1i32..12, any::<u16>()).prop_map(|(fd, events)| PollFd { fd, events, revents: 0xffff })
}

fn model_side(fd: i32) -> Side {
    match fd {
        n if n < 0 => Side::Ignored,
        n if n % 5 == 4 => Side::Both(n + 100),
        n if n % 4 == 1 => Side::Remote(n + 100),
        n if n % 4 == 2 => Side::Lost,
        n if n % 4 == 3 => Side::NotOpen,
        _ => Side::Local,
    }
}

proptest! {
    /// Every entry gets the answer of its own side, in its own place.
    #[test]
    fn split_and_merge_keep_places(entries in proptest::collection::vec(entry(), 0..30)) {
        let mut all = entries.clone();
        let mut split = Split::new(&mut all, model_side);
        for (n, e) in split.local.iter_mut().enumerate() {
            e.revents = 0x1000 + n as u16;
        }
        for (n, e) in split.remote.iter_mut().enumerate() {
            e.revents = 0x2000 + n as u16;
        }
        let ready = split.merge(&mut all);
        let (mut local, mut remote, mut expected) = (0, 0, 0);
        for (before, after) in entries.iter().zip(&all) {
            prop_assert_eq!((before.fd, before.events), (after.fd, after.events));
            let revents = match model_side(before.fd) {
                Side::Ignored => 0,
                Side::Local => { local += 1; 0x1000 + local - 1 }
                Side::Remote(_) => { remote += 1; 0x2000 + remote - 1 }
                Side::Both(_) => {
                    (local, remote) = (local + 1, remote + 1);
                    (0x1000 + local - 1) | (0x2000 + remote - 1)
                }
                Side::Lost => dead_events(before.events),
                Side::NotOpen => POLLNVAL,
            };
            expected += usize::from(revents != 0);
            prop_assert_eq!(after.revents, revents);
        }
        prop_assert_eq!(ready, expected);
    }
}
