use super::*;

#[test]
fn every_number_finds_its_own_row() {
    for row in CALLS {
        assert_eq!(call(row.number), Some(row));
        assert!(row.signature.len() <= 6, "{}", row.name);
    }
    assert_eq!(CALLS.len(), 335 + 27);
    assert_eq!(call(335), None);
    assert_eq!(call(423), None);
    assert_eq!(call(451), None);
    assert_eq!(call(u64::MAX), None);
}

#[test]
fn descriptors_are_where_the_manual_says() {
    let at = |n| call(n).unwrap().descriptors().collect::<std::vec::Vec<_>>();
    assert_eq!(at(nr::read), [0]);
    assert_eq!(at(nr::mmap), [4]);
    assert_eq!(at(nr::splice), [0, 2]);
    assert_eq!(at(nr::epoll_ctl), [0, 2]);
    assert_eq!(at(nr::close_range), []);
    assert_eq!(name(nr::connect), "connect");
}

#[test]
fn paths_are_where_the_manual_says() {
    let at = |n| call(n).unwrap().paths().collect::<std::vec::Vec<_>>();
    assert_eq!(at(nr::open), [(None, 0)]);
    assert_eq!(at(nr::openat), [(Some(0), 1)]);
    assert_eq!(at(nr::linkat), [(Some(0), 1), (Some(2), 3)]);
    assert_eq!(at(nr::symlinkat), [(Some(1), 2)]);
    assert_eq!(at(nr::fanotify_mark), [(Some(3), 4)]);
    assert_eq!(at(nr::read), []);
}
