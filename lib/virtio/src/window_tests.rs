//! Functions whose registers are all in one memory BAR, and what is written down of them.
use super::model::{Entropy, Pmem};
use super::tests::{Driver, MODERN, published, start};
use super::*;
use memory::{Fake, Memory};
use proptest::prelude::*;

const RAM: usize = 1 << 16;
const AT: u32 = 0xe800_4000;

fn window<D: Model>(model: D) -> Function<D> {
    Function::new(model, Bars::Window { at: AT })
}

fn entropy() -> Function<Entropy> {
    window(Entropy::default())
}

/// Answers the guest's requests with sevens; the data of the interrupts.
fn serve(function: &mut Function<Entropy>, memory: &Fake) -> Vec<u32> {
    let Function { model, queues, .. } = function;
    model.serve(queues, memory, |bytes| bytes.fill(7));
    published(function, memory)
}

#[test]
fn there_is_one_bar_of_memory_with_everything() {
    let mut function = entropy();
    assert_eq!(
        (function.space().port_base(), function.space().memory_base()),
        (None, Some(AT.into()))
    );
    function.write_space(0x10, 4, u32::MAX);
    assert_eq!(function.space().read(0x10, 4), !(WINDOW_SIZE as u32 - 1));
    function.write_space(0x14, 4, u32::MAX);
    assert_eq!(function.space().read(0x14, 4), 0);
    function.write_space(0x10, 4, AT);
    // No ports to be switched on.
    function.write_space(4, 2, 0xffff);
    assert_eq!(function.space().read(4, 2), 0x406);
    function.write_space(4, 2, 1);
    assert_eq!(function.space().memory_base(), None);

    let mut at = function.space().read(0x34, 1);
    let mut kinds = Vec::new();
    while at != 0 {
        let id = function.space().read(at as u8, 1);
        if id == 9 {
            assert_eq!(function.space().read(at as u8 + 4, 1), 0, "BAR 0");
            let kind = function.space().read(at as u8 + 3, 1);
            kinds.push((kind, function.space().read(at as u8 + 8, 4)));
        } else {
            assert_eq!(function.space().read(at as u8 + 4, 4), TABLE_OFFSET as u32);
            assert_eq!(function.space().read(at as u8 + 8, 4), TABLE_OFFSET as u32 + 0x800);
        }
        at = function.space().read(at as u8 + 1, 1);
    }
    assert_eq!(kinds, [(1, 0), (2, 0x40), (3, 0x48), (4, 0x80)]);
}

#[test]
fn a_driver_finds_registers_and_table_in_the_window() {
    let mut function = window(Pmem::new(1 << 32..5 << 30));
    function.write_space(0x42, 2, 0x8000);
    assert_eq!(function.memory_read(18, 2), 1);
    assert_eq!((function.memory_read(0x84, 4), function.memory_read(0x88, 4)), (1, 1 << 30));
    assert_eq!(function.memory_write(20, 1, 1), Asked::Nothing);
    assert_eq!(function.memory_read(20, 1), 1);
    assert_eq!(function.memory_write(0x40, 2, 3), Asked::Kick(3));
    function.memory_write(TABLE_OFFSET + 16, 8, 0xfee0_1000);
    function.memory_write(TABLE_OFFSET + 24, 4, 0x31);
    assert_eq!(function.memory_read(TABLE_OFFSET + 12, 4), 1, "masked");
    function.memory_write(TABLE_OFFSET + 28, 4, 0);
    assert_eq!(function.msix().raise(1), Some(Msi { address: 0xfee0_1000, data: 0x31 }));
    // Eight bytes of registers at once, and what lies beyond everything.
    function.memory_write(0x20, 8, 5);
    assert_eq!((function.memory_read(0x20, 8), function.memory_read(0x20, 4)), (0, 0));
    assert_eq!(function.memory_write(WINDOW_SIZE + 20, 1, 0), Asked::Nothing);
    assert_eq!((function.memory_read(u64::MAX, 4), function.memory_read(20, 1)), (0, 1));
    assert_eq!(function.memory_write(20, 1, 0), Asked::Reset);
}

#[test]
fn the_successor_goes_on_where_a_device_was() {
    let memory = Fake::new(RAM);
    let mut first = entropy();
    start(&mut first, MODERN);
    let mut driver = Driver::new(&memory, 0);
    driver.buffer(0, 0x8000, 16, true);
    assert_eq!(serve(&mut first, &memory), [0x31]);
    assert_eq!(driver.reap(), Some((0, 16)));
    driver.want_interrupt_at(1);

    let mut second = entropy();
    assert!(second.recall(&first.notes()));
    assert_eq!(second.notes(), first.notes());
    assert!(second.is_running());
    driver.buffer(1, 0x8100, 16, true);
    assert_eq!(serve(&mut second, &memory), [0x31]);
    assert_eq!((driver.reap(), driver.reap()), (Some((1, 16)), None));
    assert_eq!(driver.bytes(0x8100, 16), [7; 16]);

    // The one that ended between its work and its notes is followed by one that does it once more.
    let mut third = entropy();
    assert!(third.recall(&first.notes()));
    assert_eq!(serve(&mut third, &memory), [0x31]);
    assert_eq!(driver.reap(), None);
    assert_eq!(third.notes(), second.notes());
}

#[test]
fn notes_that_no_guest_could_have_caused_are_refused() {
    let mut function = entropy();
    start(&mut function, MODERN);
    let good = function.notes();
    assert!(!window(Pmem::new(0..4096)).recall(&good), "another kind");
    assert!(!entropy().recall(&good[..good.len() - 1]), "too short");
    let longer: Vec<u64> = good.iter().copied().chain([0]).collect();
    assert!(!entropy().recall(&longer), "too long");
    // The features are the seventh word from the end.
    let mut alien = good.clone();
    alien[good.len() - 7] |= 1;
    assert!(!entropy().recall(&alien), "features");
    assert!(!entropy().recall(&[]));
}

#[test]
fn a_ring_that_feeds_itself_comes_to_an_end() {
    let memory = Fake::new(RAM);
    let mut function = entropy();
    start(&mut function, MODERN);
    // Each answer makes the next request available: it is written to the available index.
    let mut driver = Driver::new(&memory, 0);
    driver.describe(driver.table(), 0, 0x1402, 2, 2, 0);
    driver.offer(0);
    let mut index = 1u16;
    let Function { model, queues, .. } = &mut function;
    model.serve(queues, &memory, |bytes| {
        index = index.wrapping_add(1);
        bytes.copy_from_slice(&index.to_le_bytes());
    });
    assert!(index > 100);
    let _ = published(&mut function, &memory);
    assert!(!function.is_running());
}

/// What a guest does, and how often its device is exchanged for one that reads the notes.
fn any_steps() -> impl Strategy<Value = Vec<(u8, u16, u8, u64)>> {
    prop::collection::vec((0u8..6, any::<u16>(), 0usize..4, any::<u64>()), 0..200).prop_map(|all| {
        all.into_iter()
            .map(|(kind, at, width, value)| (kind, at, [1, 2, 4, 8][width], value))
            .collect()
    })
}

fn step(
    function: &mut Function<Entropy>,
    memory: &Fake,
    step: (u8, u16, u8, u64),
) -> (u64, Vec<u32>) {
    let (kind, at, width, value) = step;
    let mut read = 0;
    match kind {
        0 => function.write_space(at as u8, width.min(4), value as u32),
        1 => {
            function.memory_write(u64::from(at % 0x50), width, value % 0x4000);
        }
        2 => {
            function.memory_write(TABLE_OFFSET + u64::from(at % 0x30), width, value);
        }
        3 => {
            let _ =
                memory.write(0x1000 + u64::from(at % 0x800) * 2, &(value as u16 & 7).to_le_bytes());
        }
        4 => start(function, MODERN),
        _ => read = function.memory_read(u64::from(at) % (WINDOW_SIZE + 16), width),
    }
    let mut raised = serve(function, memory);
    while let Some(msi) = function.msix().next_unmasked() {
        raised.push(msi.data);
    }
    (read, raised)
}

proptest! {
    /// Whether one device serves all along, or each step another one that knows only the notes, is the same to the guest.
    #[test]
    fn a_guest_does_not_notice_successors(steps in any_steps()) {
        let (one, other) = (Fake::new(RAM), Fake::new(RAM));
        let (mut lasting, mut changing) = (entropy(), entropy());
        for now in steps {
            prop_assert_eq!(step(&mut lasting, &one, now), step(&mut changing, &other, now));
            let notes = changing.notes();
            changing = entropy();
            prop_assert!(changing.recall(&notes));
            prop_assert_eq!(changing.notes(), notes);
        }
        let mut bytes = (vec![0; RAM], vec![0; RAM]);
        one.read(0, &mut bytes.0).expect("inside");
        other.read(0, &mut bytes.1).expect("inside");
        prop_assert!(bytes.0 == bytes.1);
    }

    /// Notes that were written over with anything lead to a device that any guest can go on with, or to none.
    #[test]
    fn any_notes_are_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0u8..4), 0..6),
        words in prop::collection::vec((0u64..0x800, any::<u16>()), 0..100),
        steps in any_steps(),
    ) {
        let memory = Fake::new(RAM);
        for (word, value) in words {
            memory.write(0x1000 + word * 2, &value.to_le_bytes()).expect("inside");
        }
        let mut function = entropy();
        start(&mut function, MODERN);
        let mut notes = function.notes();
        for (place, value, style) in changes {
            let place = place.index(notes.len());
            notes[place] = match style { 0 => value, 1 => value & 0xffff, 2 => value & 7, _ => value & 1 };
        }
        let mut function = entropy();
        let _ = function.recall(&notes);
        for now in steps {
            let _ = step(&mut function, &memory, now);
        }
    }
}
