use super::*;
use alloc::vec;
use proptest::prelude::*;

/// Where programs may be.
const ALLOWED: Range<u64> = 0x10_0000..0x1000_0000;

/// A segment as the file states it.
#[derive(Clone, Copy, Debug)]
struct Raw {
    flags: u32,
    offset: u64,
    address: u64,
    file: u64,
    memory: u64,
}

const CODE: Raw = Raw { flags: 5, offset: 0x1000, address: 0x40_0000, file: 0x800, memory: 0x800 };
const DATA: Raw = Raw { flags: 6, offset: 0x2000, address: 0x40_1000, file: 0x10, memory: 0x3001 };
const ENTRY: u64 = 0x40_0010;
const LENGTH: u64 = 0x2010;

fn file(entry: u64, segments: &[Raw]) -> Vec<u8> {
    let mut head = vec![0u8; HEAD];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(24, &entry.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &(segments.len() as u16).to_le_bytes());
    for (n, raw) in segments.iter().enumerate() {
        let at = 64 + n * 56;
        put(at, &1u32.to_le_bytes());
        put(at + 4, &raw.flags.to_le_bytes());
        let words = [raw.offset, raw.address, raw.address, raw.file, raw.memory, 4096];
        for (w, word) in words.iter().enumerate() {
            put(at + 8 + w * 8, &word.to_le_bytes());
        }
    }
    head
}

fn read(entry: u64, segments: &[Raw]) -> Result<Executable, Defect> {
    Executable::read(&file(entry, segments), LENGTH, &ALLOWED)
}

#[test]
fn a_program_is_read() {
    let found = read(ENTRY, &[DATA, CODE]).expect("is right");
    assert_eq!(found.entry, ENTRY);
    assert_eq!(found.segments.len(), 2);
    assert_eq!(found.segments[0].rights, MemRights::READ | MemRights::EXEC);
    assert_eq!((found.segments[1].address, found.segments[1].in_memory), (0x40_1000, 0x4000));
    assert_eq!(found.data_bytes(), 0x4000);
}

#[test]
fn each_defect_is_named() {
    let at = CODE.address;
    let cases = [
        (Raw { flags: 7, ..CODE }, Defect::WritableCode(at)),
        (Raw { offset: 0x1001, ..CODE }, Defect::Unaligned(at)),
        (Raw { address: at + 1, ..CODE }, Defect::Unaligned(at + 1)),
        (Raw { address: 0, ..CODE }, Defect::Address(0)),
        (Raw { address: 0xffff_ffff_8000_0000, ..CODE }, Defect::Address(0xffff_ffff_8000_0000)),
        (Raw { address: USER_END - 4096, ..CODE }, Defect::Address(USER_END - 4096)),
        (Raw { address: ALLOWED.end, ..CODE }, Defect::Address(ALLOWED.end)),
        (Raw { address: u64::MAX - 4095, ..CODE }, Defect::Address(u64::MAX - 4095)),
        (Raw { memory: u64::MAX, ..CODE }, Defect::Size(at)),
        (Raw { memory: MOST_BYTES + 1, ..CODE }, Defect::Size(at)),
        (Raw { memory: 0x7ff, ..CODE }, Defect::Size(at)),
        (Raw { file: 0x1011, memory: 0x2000, ..CODE }, Defect::Truncated(at)),
        (Raw { offset: u64::MAX - 4095, ..CODE }, Defect::Truncated(at)),
        (Raw { memory: 0x1800, ..CODE }, Defect::EmptyConstants(at)),
        (Raw { flags: 4, ..CODE }, Defect::Entry(ENTRY)),
        (Raw { file: 0x10, memory: 0x10, ..CODE }, Defect::Entry(ENTRY)),
    ];
    for (raw, defect) in cases {
        assert_eq!(read(ENTRY, &[raw]), Err(defect), "{raw:x?}");
        assert!(alloc::format!("{defect}").len() > 10);
    }
    let over = Raw { address: at, ..DATA };
    assert_eq!(read(ENTRY, &[CODE, over]), Err(Defect::Overlap(at)));
    assert_eq!(read(ENTRY, &[]), Err(Defect::SegmentCount));
    assert_eq!(read(0xffff_ffff_8010_0000, &[CODE]), Err(Defect::Entry(0xffff_ffff_8010_0000)));
    let many: Vec<Raw> = (0..20)
        .map(|n| Raw { address: 0x40_0000 + n * 4096, offset: 0, file: 1, memory: 1, flags: 4 })
        .collect();
    assert_eq!(read(ENTRY, &many), Err(Defect::SegmentCount));
}

#[test]
fn headers_that_are_cut_short_or_of_another_kind() {
    let whole = file(ENTRY, &[CODE, DATA]);
    for length in 0..64 + 2 * 56 {
        let found = Executable::read(&whole[..length], LENGTH, &ALLOWED);
        assert_eq!(found, Err(Defect::NotElf), "{length} bytes");
    }
    for (at, value, defect) in [
        (0, 0, Defect::NotElf),
        (4, 1, Defect::OtherKind),
        (5, 2, Defect::NotElf),
        (16, 3, Defect::OtherKind),
        (18, 3, Defect::OtherKind),
        (39, 0x80, Defect::NotElf),
        (54, 55, Defect::NotElf),
        (57, 0xff, Defect::NotElf),
    ] {
        let mut bytes = whole.clone();
        bytes[at] = value;
        assert_eq!(Executable::read(&bytes, LENGTH, &ALLOWED), Err(defect), "byte {at}");
    }
}

proptest! {
    /// What is accepted can be carried out, whatever the file says.
    #[test]
    fn whatever_is_accepted_is_sound(
        entry in any::<u64>(),
        raw in proptest::collection::vec(
            (0u32..8, 0u64..4, 0x3ffu64..0x405, 0u64..0x3000, 0u64..0x5000), 1..5),
    ) {
        let raw: Vec<Raw> = raw
            .into_iter()
            .map(|(flags, offset, page, file, memory)| Raw {
                flags, offset: offset * 4096, address: page * 4096, file, memory,
            })
            .collect();
        let entry = if entry % 2 == 0 { entry } else { raw[0].address + entry % 64 };
        if let Ok(found) = read(entry, &raw) {
            let mut last = ALLOWED.start;
            for s in &found.segments {
                prop_assert!(s.address >= last && s.end() <= ALLOWED.end);
                prop_assert!(s.offset + s.in_file <= LENGTH && s.in_file <= s.in_memory);
                prop_assert!(!s.rights.contains(MemRights::WRITE | MemRights::EXEC));
                last = s.end();
            }
            let code = |s: &&Segment| s.rights.contains(MemRights::EXEC);
            let within = |s: &Segment| s.address <= entry && entry < s.end();
            prop_assert!(found.segments.iter().filter(code).any(within));
        }
    }

    #[test]
    fn garbage_never_panics(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        length in any::<u64>(),
        dressed in any::<bool>(),
    ) {
        if dressed && bytes.len() > 64 {
            let start = file(ENTRY, &[]);
            bytes[..24].copy_from_slice(&start[..24]);
            bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
            bytes[54..58].copy_from_slice(&[56, 0, 4, 0]);
        }
        let _ = Executable::read(&bytes, length, &(0..u64::MAX));
    }
}
