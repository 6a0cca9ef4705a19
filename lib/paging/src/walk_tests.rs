use super::*;
use core::ops::ControlFlow;
use memory::Fake;
use proptest::prelude::*;

const ROOT_AT: u64 = 0x1000;
const RX: u64 = PRESENT | USER;

fn put(memory: &Fake, at: u64, value: u64) {
    memory.write(at, &value.to_le_bytes()).unwrap();
}

fn pages(memory: &Fake, cr3: u64) -> Result<Vec<Executable>, Unwalked<()>> {
    let mut found = Vec::new();
    let walked = Space::running(memory, cr3).executable(|page| {
        found.push(page);
        if found.len() < 10_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    walked.map(|()| found)
}

/// Tables at 0x1000..0x5000; the last one maps pages from 256 GiB on.
fn guest(entries: &[u64]) -> Fake {
    let memory = Fake::new(0x40000);
    put(&memory, ROOT_AT, 0x2000 | RX | WRITABLE);
    put(&memory, 0x2000 + 256 * 8, 0x3000 | RX | WRITABLE);
    put(&memory, 0x3000, 0x4000 | RX | WRITABLE);
    for (n, entry) in entries.iter().enumerate() {
        put(&memory, 0x4000 + n as u64 * 8, *entry);
    }
    memory
}

#[test]
fn what_can_be_executed_is_shown_and_nothing_else() {
    let memory = guest(&[
        0x10000 | RX,
        0x11000 | RX | NO_EXECUTE,
        0x12000 | PRESENT,
        0x13000 | USER,
        0x14000 | RX | WRITABLE,
    ]);
    // A large page further up, and one of the kernel's half.
    put(&memory, 0x3000 + 8, 0x20_1000 | RX | LARGE);
    put(&memory, ROOT_AT + 256 * 8, 0x2000 | RX);
    let base = 256 << 30;
    let page =
        |address, physical, writable| Executable { address, physical, length: PAGE, writable };
    let large = Executable {
        address: base + (2 << 20),
        physical: 0x20_0000,
        length: 2 << 20,
        writable: false,
    };
    let expected = vec![page(base, 0x10000, false), page(base + 0x4000, 0x14000, true), large];
    assert_eq!(pages(&memory, ROOT_AT), Ok(expected));
    // Rights are those of all levels.
    put(&memory, 0x3000, 0x4000 | RX);
    assert!(!pages(&memory, ROOT_AT).unwrap()[1].writable);
    put(&memory, 0x3000, 0x4000 | RX | NO_EXECUTE);
    assert_eq!(pages(&memory, ROOT_AT).unwrap().len(), 1);
}

#[test]
fn tables_that_make_no_sense_end_the_walk() {
    let memory = guest(&[0x10000 | RX]);
    put(&memory, 0x3000 + 16, 0x7000_0000 | RX);
    assert_eq!(pages(&memory, ROOT_AT), Err(Unwalked::Bad((256 << 30) + (4 << 20))));
    put(&memory, 0x3000 + 16, 0);
    put(&memory, ROOT_AT + 8, 0x2000 | RX | LARGE);
    assert_eq!(pages(&memory, ROOT_AT), Err(Unwalked::Bad(512 << 30)));
    // A table that is its own entry, in all places.
    let memory = Fake::new(0x10000);
    (0..512).for_each(|n| put(&memory, 0x1000 + n * 8, 0x1000 | RX));
    (0..512).for_each(|n| put(&memory, 0x2000 + n * 8, 0));
    assert_eq!(pages(&memory, 0x1000), Err(Unwalked::Broken(())));
    (0..512).for_each(|n| put(&memory, 0x1000 + n * 8, (0x2000 + (n & 3) * 0x1000) | RX));
    (0..1536).for_each(|n| put(&memory, 0x3000 + n * 8, 0x2000 | RX));
    (0..512).for_each(|n| put(&memory, 0x2000 + n * 8, 0x7000 | RX));
    (0..512).for_each(|n| put(&memory, 0x7000 + n * 8, 0));
    assert_eq!(pages(&memory, 0x1000), Err(Unwalked::Endless));
}

proptest! {
    /// Whatever the tables hold, the walk ends, and shows all that a processor would execute.
    #[test]
    fn nothing_that_can_be_executed_is_missed(
        seed in prop::collection::vec(any::<u64>(), 16),
        places in prop::collection::vec((0u64..0x1000, 0usize..16), 1..60),
        probes in prop::collection::vec(any::<u64>(), 20),
    ) {
        let memory = Fake::new(0x8000);
        let value = |n: usize| seed[n] & (NO_EXECUTE | 0xfff) | seed[n] >> 20 & 0xf000 | RX;
        for (place, n) in &places {
            put(&memory, place * 8, value(*n));
        }
        for root in [0, 0x1000, 0x7000] {
            let Ok(found) = pages(&memory, root) else { continue };
            let space = Space::running(&memory, root);
            let near = found.iter().map(|p| p.address + p.length / 2);
            let spread = places.iter().map(|(place, _)| (place & 511) << 12 | (place & 255) << 39);
            for address in probes.iter().map(|a| a & 0x7fff_ffff_ffff).chain(near).chain(spread) {
                let inside = |p: &&Executable| address.wrapping_sub(p.address) < p.length;
                let page = found.iter().find(inside);
                match space.find(address, Access::Execute) {
                    Ok(place) => {
                        let page = page.expect("a page that can be executed");
                        prop_assert_eq!(page.physical + (address - page.address), place.physical);
                        let writable = space.find(address, Access::Write).is_ok();
                        prop_assert_eq!(page.writable, writable);
                    }
                    Err(_) => prop_assert!(page.is_none()),
                }
            }
        }
    }
}
