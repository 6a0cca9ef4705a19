//! Whatever else decodes bytes of somebody else's.
use abi::vcpu::Registers;
use archive::Archive;
use decode::{MAX_LENGTH, Mode};
use hostlink::{agent, control, frame, relay};
use linuxboot::Boot;
use memory::{Fake, Memory};

/// An instruction of a guest, and the registers that it would change.
pub fn decode(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let mode = [Mode::Bits16, Mode::Bits32, Mode::Bits64][usize::from(mode % 3)];
    let fits = |length: u64| assert!((1..=MAX_LENGTH.min(bytes.len()) as u64).contains(&length));
    if let Ok((_, length)) = decode::plain(bytes, mode) {
        fits(length);
    }
    let mut registers = Registers::default();
    if let Ok((place, length)) = decode::write_of_cr0(bytes, mode) {
        fits(length);
        let _ = place.get(&registers);
    }
    if let Ok(access) = decode::memory_access(bytes, mode) {
        fits(access.length);
        assert!([1, 2, 4, 8].contains(&access.width));
        let limit = if access.width == 8 { u64::MAX } else { (1 << (access.width * 8)) - 1 };
        registers.r = [0x8182_8384_8586_8788; 16];
        if let Some(stored) = access.stored(&registers) {
            assert!(stored <= limit, "{stored:#x} in {} bytes", access.width);
        }
        access.loaded(&mut registers, u64::MAX);
        let changed = registers.r.iter().filter(|r| **r != 0x8182_8384_8586_8788).count();
        assert!(changed <= 1);
    }
}

/// The index of a boot archive. The checksum is put right, or a fuzzer would see nothing behind it.
pub fn archive(bytes: &[u8]) {
    let mut fixed = bytes.to_vec();
    if let Some(count) = fixed.get(8).copied()
        && let Some(index) = fixed.get(archive::HEADER..)
    {
        let end = (usize::from(count) * archive::ENTRY).min(index.len());
        let sum = u64::from(archive::CRC.checksum(index.get(..end).unwrap_or(index)));
        if let Some(place) = fixed.get_mut(16..24) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }
    let total = bytes.len() as u64 * 64;
    for bytes in [bytes, &fixed] {
        let Ok(archive) = Archive::parse(bytes, total) else { continue };
        for entry in archive.entries() {
            assert!(entry.offset + entry.length <= total && entry.offset % 4096 == 0);
            let (_, found) = archive.find(entry.name).expect("what is listed is found");
            assert_eq!(found.name, entry.name);
        }
    }
}

/// What the machine sends to the host, what goes the other way, and agents' packets, cut anywhere.
pub fn hostlink(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let pieces = || bytes.chunks(usize::from(*cut) + 1);
    let (mut frames, mut to_guest, mut to_host) =
        (frame::Decoder::new(), agent::Decoder::new(), agent::Decoder::new());
    for piece in pieces() {
        frames.push(piece);
        while let Ok(Some(frame)) = frames.next_frame() {
            assert!(frame.payload.len() <= frame::MAX_PAYLOAD);
        }
        to_guest.push(piece);
        while let Some(message) = to_guest.next_message::<agent::ToGuest>() {
            again(&message);
        }
        to_host.push(piece);
        while let Some(message) = to_host.next_message::<agent::ToHost>() {
            again(&message);
        }
    }
    assert!(to_guest.skipped() <= bytes.len() as u64);
    if let Ok(message) = control::ToHost::decode(bytes) {
        assert_eq!(control::ToHost::decode(&message.encode()).ok(), Some(message));
    }
    if let Ok(message) = control::ToMachine::decode(bytes) {
        assert_eq!(control::ToMachine::decode(&message.encode()).ok(), Some(message));
    }
    if let Ok(message) = relay::ToHost::decode(bytes) {
        assert_eq!(relay::ToHost::decode(&message.encode()).ok(), Some(message));
    }
    if let Ok(message) = relay::ToRelay::decode(bytes) {
        assert_eq!(relay::ToRelay::decode(&message.encode()).ok(), Some(message));
    }
}

/// What was decoded from a packet makes a packet with the same message in it.
fn again<M: agent::Message + PartialEq + std::fmt::Debug>(message: &M) {
    let mut packet = Vec::new();
    assert!(agent::encode(message, &mut packet).is_ok());
    let mut decoder = agent::Decoder::new();
    decoder.push(&packet);
    assert_eq!(decoder.next_message::<M>().as_ref(), Some(message));
}

/// A kernel image. What is loaded has its entry inside the guest's memory.
pub fn linuxboot(bytes: &[u8]) {
    const RAM: usize = 64 << 20;
    let Some((cut, header)) = bytes.split_first() else { return };
    // So that sizes in the header can be right.
    let kernel = Fake::new((usize::from(*cut) << 12) + header.len());
    let _ = kernel.write(0, header);
    let (ram, initrd) = (Fake::new(RAM), Fake::new(usize::from(*cut) * 100));
    let command_line: Vec<u8> = header.iter().copied().filter(|b| *b != 0).take(64).collect();
    let boot = Boot { kernel: &kernel, initrd: Some(&initrd), command_line: &command_line };
    if let Ok(loaded) = linuxboot::load(&ram, &boot) {
        assert!(loaded.entry < RAM as u64 && loaded.params < RAM as u64);
    }
}
