use super::*;
use memory::{Fake, Memory};
use proptest::prelude::*;

const RAM: usize = 64 << 20;

/// A minimal image that passes all checks.
fn image() -> Vec<u8> {
    let mut bytes = vec![0; 0x400 + 0x1000];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0x1f1, &[1]);
    put(0x1f4, &0x100u32.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x10_0000u32.to_le_bytes());
    put(0x400, b"kernel");
    bytes
}

fn memory(bytes: &[u8]) -> Fake {
    let fake = Fake::new(bytes.len());
    fake.write(0, bytes).unwrap();
    fake
}

fn boot(image: &[u8], line: &[u8], ram: &Fake) -> Result<Loaded, Error> {
    let (kernel, initrd) = (memory(image), memory(b"ramdisk"));
    load(ram, &Boot { kernel: &kernel, initrd: Some(&initrd), command_line: line })
}

#[test]
fn everything_is_where_the_protocol_says() {
    let ram = Fake::new(RAM);
    let loaded = boot(&image(), b"quiet", &ram).unwrap();
    assert_eq!(loaded, Loaded { entry: 0x100_0200, params: layout::PARAMS });
    let mut bytes = [0; 8];
    ram.read(0x100_0000, &mut bytes).unwrap();
    assert_eq!(&bytes[..6], b"kernel");
    ram.read(layout::COMMAND_LINE, &mut bytes).unwrap();
    assert_eq!(&bytes[..6], b"quiet\0");
    let initrd = u64::from(ram.load32(layout::PARAMS + 0x218).unwrap());
    assert_eq!(initrd, RAM as u64 - 4096);
    assert_eq!(ram.load32(layout::PARAMS + 0x21c).unwrap(), 7);
    ram.read(initrd, &mut bytes).unwrap();
    assert_eq!(&bytes[..7], b"ramdisk");
}

#[test]
fn memory_map_covers_ram_without_gaps() {
    let ram = Fake::new(RAM);
    boot(&image(), b"", &ram).unwrap();
    let mut count = [0];
    ram.read(layout::PARAMS + 0x1e8, &mut count).unwrap();
    let mut end = 0;
    for n in 0..u64::from(count[0]) {
        let at = layout::PARAMS + 0x2d0 + n * 20;
        assert_eq!(ram.read64(at).unwrap(), end);
        end += ram.read64(at + 8).unwrap();
    }
    assert_eq!(end, RAM as u64);
}

#[test]
fn tables_have_checksums_and_are_linked() {
    let ram = Fake::new(RAM);
    boot(&image(), b"", &ram).unwrap();
    let rsdp = ram.read64(layout::PARAMS + 0x70).unwrap();
    let mut root = [0; 36];
    ram.read(rsdp, &mut root).unwrap();
    assert_eq!(&root[..8], b"RSD PTR ");
    assert_eq!(root.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    let xsdt = ram.read64(rsdp + 24).unwrap();
    let names = [table(&ram, xsdt), table(&ram, ram.read64(xsdt + 36).unwrap())];
    assert_eq!(names, [*b"XSDT", *b"FACP"]);
    assert_eq!(table(&ram, ram.read64(xsdt + 44).unwrap()), *b"APIC");
    let fadt = ram.read64(xsdt + 36).unwrap();
    assert_eq!(table(&ram, ram.read64(fadt + 140).unwrap()), *b"DSDT");
}

fn table(ram: &Fake, at: u64) -> [u8; 4] {
    let mut bytes = vec![0; ram.load32(at + 4).unwrap() as usize];
    ram.read(at, &mut bytes).unwrap();
    assert_eq!(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

#[test]
fn page_tables_are_an_identity() {
    let ram = Fake::new(RAM);
    boot(&image(), b"", &ram).unwrap();
    for address in [0, 0x100_0200, 0xdead_b000_u64] {
        let mut entry = layout::PAGE_TABLES;
        for shift in [39, 30, 21] {
            entry = ram.read64((entry & !0xfff) + (address >> shift & 511) * 8).unwrap();
            assert_eq!(entry & 3, 3);
        }
        assert_eq!((entry & !0x1f_ffff) | address & 0x1f_ffff, address);
    }
}

#[test]
fn damage_is_named() {
    let ram = Fake::new(RAM);
    let with = |at: usize, value: &[u8]| {
        let mut bytes = image();
        bytes[at..at + value.len()].copy_from_slice(value);
        boot(&bytes, b"", &ram)
    };
    assert_eq!(with(0x202, b"XXXX"), Err(Error::NotBzImage));
    assert_eq!(with(0x206, &[0x0a, 2]), Err(Error::OldProtocol(0x20a)));
    assert_eq!(with(0x236, &[0]), Err(Error::No64Bit));
    assert!(matches!(with(0x1f4, &[0xff; 4]), Err(Error::Truncated { .. })));
    assert!(matches!(with(0x258, &[0xff; 8]), Err(Error::BadHeader(_))));
    assert!(matches!(with(0x260, &[0; 4]), Err(Error::BadHeader(_))));
    assert!(matches!(with(0x24c, &[0xff; 4]), Err(Error::BadHeader(_))));
    assert!(matches!(with(0x263, &[0x40]), Err(Error::TooLittleMemory { .. })));
    assert!(matches!(boot(&image(), &[b'x'; 4000], &ram), Err(Error::CommandLine { .. })));
    assert!(matches!(boot(&image(), b"a\0b", &ram), Err(Error::CommandLine { .. })));
    assert_eq!(boot(&[], b"", &ram), Err(Error::NotBzImage));
    assert!(boot(&image(), b"", &Fake::new(4 << 20)).is_err());
}

#[test]
fn first_state_is_long_mode() {
    let mut state = abi::vcpu::VcpuState::ZERO;
    Loaded { entry: 0x100_0200, params: 0x2000 }.start(&mut state);
    assert_eq!(state.regs.r[abi::vcpu::reg::RSI], 0x2000);
    assert_eq!(state.segments[1].selector, 0x10);
    assert_eq!(state.segments[2].attributes >> 5 & 3, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A header with any bytes is loaded or refused, never a panic.
    #[test]
    fn any_header_is_survived(at in 0x1f1usize..0x270, bytes in prop::collection::vec(any::<u8>(), 1..16)) {
        let mut image = image();
        image[at..at + bytes.len()].copy_from_slice(&bytes);
        let ram = Fake::new(32 << 20);
        let _ = boot(&image, b"x", &ram);
    }
}
