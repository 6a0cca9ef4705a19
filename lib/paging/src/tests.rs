use super::*;
use memory::Fake;
use proptest::prelude::*;

const ROOT_AT: u64 = 0x1000;

fn put(memory: &Fake, at: u64, value: u64) {
    memory.write(at, &value.to_le_bytes()).unwrap();
}

/// Tables at 0x1000..0x5000 that map 0x40_0000_0000 + n pages to 0x10000 onwards.
fn guest(pages: &[u64]) -> Fake {
    let memory = Fake::new(0x40000);
    put(&memory, ROOT_AT, 0x2000 | PRESENT | WRITABLE | USER);
    put(&memory, 0x2000 + 256 * 8, 0x3000 | PRESENT | WRITABLE | USER);
    put(&memory, 0x3000, 0x4000 | PRESENT | WRITABLE | USER);
    for (n, entry) in pages.iter().enumerate() {
        put(&memory, 0x4000 + n as u64 * 8, *entry);
    }
    memory
}

const BASE: u64 = 256 << 30;
const RW: u64 = PRESENT | WRITABLE | USER;

#[test]
fn a_copy_crosses_pages_and_stops_at_the_absent_one() {
    let memory = guest(&[0x11000 | RW, 0x10000 | RW, 0]);
    let space = Space::stopped(&memory, ROOT_AT);
    space.write(BASE + 0xffe, &[1, 2, 3, 4]).unwrap();
    let mut b = [0; 4];
    memory.read(0x11ffe, &mut b[..2]).unwrap();
    memory.read(0x10000, &mut b[2..]).unwrap();
    assert_eq!(b, [1, 2, 3, 4]);
    space.read(BASE + 0xffe, &mut b).unwrap();
    assert_eq!(b, [1, 2, 3, 4]);
    let stopped = space.read(BASE + 0x1ffe, &mut b).unwrap_err();
    let expected = Stopped { done: 2, address: BASE + 0x2000, fault: Fault::NeedsPopulate };
    assert_eq!(stopped, expected);
}

#[test]
fn rights_are_those_of_all_levels() {
    let memory = guest(&[0x10000 | PRESENT | USER | NO_EXECUTE, 0x10000 | PRESENT | WRITABLE]);
    let space = Space::stopped(&memory, ROOT_AT);
    assert!(space.find(BASE, Access::Read).is_ok());
    assert_eq!(space.find(BASE, Access::Write), Err(Fault::NeedsPopulate));
    assert_eq!(space.find(BASE, Access::Execute), Err(Fault::NeedsPopulate));
    assert_eq!(space.find(BASE + PAGE, Access::Read), Err(Fault::NeedsPopulate));
    assert!(space.find(BASE + PAGE, Access::KernelRead).is_ok());
}

#[test]
fn accessed_and_dirty_are_set_as_the_processor_would() {
    let memory = guest(&[0x10000 | RW]);
    Space::running(&memory, ROOT_AT).find(BASE, Access::Write).unwrap();
    assert_eq!(memory.read64(0x4000).unwrap(), 0x10000 | RW);
    Space::stopped(&memory, ROOT_AT).find(BASE, Access::Read).unwrap();
    assert_eq!(memory.read64(0x4000).unwrap(), 0x10000 | RW | ACCESSED);
    Space::stopped(&memory, ROOT_AT).find(BASE, Access::Write).unwrap();
    assert_eq!(memory.read64(0x4000).unwrap(), 0x10000 | RW | ACCESSED | DIRTY);
    assert_eq!(memory.read64(0x1000).unwrap() & (ACCESSED | DIRTY), ACCESSED);
}

#[test]
fn large_pages_are_followed() {
    let memory = guest(&[]);
    put(&memory, 0x3000, 0x20_0000 | RW | LARGE);
    put(&memory, 0x2000 + 257 * 8, 0x4000_0000 | RW | LARGE);
    let space = Space::stopped(&memory, ROOT_AT);
    let found = space.find(BASE + 0x12345, Access::Read).unwrap();
    assert_eq!(found, Found { physical: 0x21_2345, left: 0x20_0000 - 0x12345 });
    let found = space.find((257 << 30) + 0x1234_5678, Access::Read).unwrap();
    assert_eq!(found.physical, 0x5234_5678);
    put(&memory, ROOT_AT, 0x2000 | RW | LARGE);
    assert_eq!(space.find(BASE, Access::Read), Err(Fault::Bad));
}

#[test]
fn strings_end_at_their_nul_even_before_an_absent_page() {
    let memory = guest(&[0x10000 | RW]);
    let space = Space::stopped(&memory, ROOT_AT);
    space.write(BASE + PAGE - 4, b"abc\0").unwrap();
    let mut b = [0; 100];
    assert_eq!(space.read_string(BASE + PAGE - 4, &mut b), Ok(Some(3)));
    space.write(BASE + PAGE - 4, b"abcd").unwrap();
    assert!(space.read_string(BASE + PAGE - 4, &mut b).is_err());
    assert_eq!(space.read_string(BASE + PAGE - 4, &mut b[..3]), Ok(None));
}

#[test]
fn addresses_outside_the_user_half_are_bad() {
    let memory = guest(&[]);
    let space = Space::stopped(&memory, ROOT_AT);
    for address in [1 << 47, u64::MAX, 0xffff_8000_0000_0000, 1 << 63] {
        assert_eq!(space.find(address, Access::Read), Err(Fault::Bad));
    }
    let mut b = [0; 32];
    assert_eq!(space.read(u64::MAX - 3, &mut b).unwrap_err().fault, Fault::Bad);
}

proptest! {
    /// Random bytes as tables, random roots: never a panic, never an access outside.
    #[test]
    fn hostile_tables_are_survived(
        seed in proptest::collection::vec(any::<u64>(), 64),
        cr3: u64,
        address: u64,
        length in 0usize..20000,
    ) {
        let memory = Fake::new(0x10000);
        for n in 0..0x2000u64 {
            let value = seed[(n % 64) as usize] & 0x8000_0000_0000_ffff | RW;
            put(&memory, n * 8, value);
        }
        for root in [cr3, cr3 & 0xf000] {
            let space = Space::stopped(&memory, root);
            let mut bytes = vec![0; length];
            for at in [address, address & 0x7fff_ffff_ffff] {
                let _ = space.read(at, &mut bytes);
                let _ = space.write(at, &bytes);
                let _ = space.read_string(at, &mut bytes);
                let _ = space.find(at, Access::KernelRead);
            }
        }
    }

    /// What is written can be read back, wherever the pages lie.
    #[test]
    fn copies_round_trip(
        order in Just((0u64..8).collect::<Vec<_>>()).prop_shuffle(),
        offset in 0u64..8192,
        bytes in proptest::collection::vec(any::<u8>(), 0..20000),
    ) {
        let entries: Vec<u64> = order.iter().map(|n| (0x10000 + n * PAGE) | RW).collect();
        let memory = guest(&entries);
        let space = Space::stopped(&memory, ROOT_AT);
        prop_assert!(space.write(BASE + offset, &bytes).is_ok());
        let mut back = vec![0; bytes.len()];
        prop_assert!(space.read(BASE + offset, &mut back).is_ok());
        prop_assert_eq!(back, bytes);
    }
}
