//! What descriptors stand for, while calls are in service.
use super::guest::DATA;
use super::{FS, RSP, blocked, connected, done, remote_fd};
use linux_abi::nr;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[test]
fn a_descriptor_closed_in_mid_call_is_closed_when_the_call_is_over() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let b = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    // Another thread closes it, and has its number given out again.
    assert_eq!(done(g.begin(p, FS + 1, RSP - 0x4000, nr::close, &[fd])), 0);
    assert_eq!(done(g.begin(p, FS + 1, RSP - 0x4000, nr::write, &[fd, DATA, 1])), -38);
    assert_eq!(done(g.begin(p, FS + 1, RSP - 0x4000, nr::socket, &[2, 1, 0])), fd as i64);
    assert!(!g.world.net.sockets.borrow()[&key].closed);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"late");
    assert_eq!(done(g.again(&b)), 4);
    // With the next exit, whatever it is about.
    assert_eq!(g.call(p, nr::getppid, &[]), 1);
    g.events();
    assert!(g.world.net.sockets.borrow()[&key].closed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// A remote socket is open exactly as long as some descriptor stands for it.
    #[test]
    fn a_socket_lives_as_long_as_its_descriptors(
        steps in proptest::collection::vec((0u8..6, 0usize..8, 20u64..28), 1..20),
    ) {
        let (mut g, p, fd) = connected();
        let key = remote_fd(&g);
        // Numbers that stand for the socket, and whether an `execve` would close them.
        let mut model = BTreeMap::from([(fd, false)]);
        for (what, which, number) in steps {
            let Some(from) = model.keys().nth(which % model.len().max(1)).copied() else { break };
            match what {
                0 => {
                    let new = g.call(p, nr::dup, &[from]);
                    model.insert(new as u64, false);
                }
                1 => {
                    prop_assert_eq!(g.call(p, nr::dup2, &[from, number]), number as i64);
                    if from != number {
                        model.insert(number, false);
                    }
                }
                2 => {
                    let new = g.call(p, nr::fcntl, &[from, 1030, number]);
                    prop_assert!(new as u64 >= number);
                    model.insert(new as u64, true);
                }
                3 => {
                    prop_assert_eq!(g.call(p, nr::close, &[from]), 0);
                    model.remove(&from);
                }
                4 => {
                    prop_assert_eq!(g.call(p, nr::close_range, &[number, number + 2, 0]), 0);
                    model.retain(|fd, _| !(number..=number + 2).contains(fd));
                }
                _ => {
                    prop_assert_eq!(g.call(p, nr::fcntl, &[from, 2, 1]), 0);
                    model.insert(from, true);
                }
            }
            g.events();
            prop_assert_eq!(g.engine.census().descriptors, model.len() as u64);
            prop_assert_eq!(g.world.net.sockets.borrow()[&key].closed, model.is_empty());
        }
        for fd in model.keys() {
            prop_assert_eq!(g.call(p, nr::write, &[*fd, DATA, 1]), 1);
        }
    }
}
