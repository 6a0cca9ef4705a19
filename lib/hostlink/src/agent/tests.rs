use super::*;
use proptest::prelude::*;

fn sample(number: u32, data: Vec<u8>) -> ToGuest {
    match number % 4 {
        0 => ToGuest::Stdin { session: number, data },
        1 => ToGuest::Exec {
            session: number,
            command: Command { argv: vec![data], cwd: b"/".to_vec(), ..Command::default() },
        },
        2 => {
            ToGuest::WriteFile { file: number, path: b"/x".to_vec(), mode: 0o644, offset: 9, data }
        }
        _ => ToGuest::PowerOff,
    }
}

proptest! {
    /// Garbage before, between and behind packets loses no packet (unless it is cut short by
    /// garbage that is a packet's start, which the magic byte excludes here).
    #[test]
    fn packets_are_found_between_garbage(
        parts in proptest::collection::vec(
            (any::<u32>(), proptest::collection::vec(any::<u8>(), 0..200),
             proptest::collection::vec(0u8..0xfe, 0..30)), 0..12),
        cut in 1usize..40,
    ) {
        let mut bytes = Vec::new();
        let mut sent = Vec::new();
        let mut garbage_bytes = 0;
        for (number, data, garbage) in parts {
            bytes.extend_from_slice(&garbage);
            garbage_bytes += garbage.len() as u64;
            let message = sample(number, data);
            encode(&message, &mut bytes).expect("short");
            sent.push(message);
        }
        let mut decoder = Decoder::new();
        let mut seen = Vec::new();
        for part in bytes.chunks(cut) {
            decoder.push(part);
            while let Some(message) = decoder.next_message::<ToGuest>() {
                seen.push(message);
            }
        }
        prop_assert_eq!(seen, sent);
        prop_assert_eq!(decoder.skipped(), garbage_bytes);
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
                              at in 0usize..600) {
        if at + 6 < bytes.len() {
            bytes.splice(at..at + 6, MAGIC.into_iter().chain([3, 0]));
        }
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        while decoder.next_message::<ToHost>().is_some() {}
    }
}

#[test]
fn a_damaged_packet_is_skipped_and_the_next_one_found() {
    let mut bytes = Vec::new();
    encode(&ToGuest::Ping { token: 1 }, &mut bytes).expect("short");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    encode(&ToGuest::Ping { token: 2 }, &mut bytes).expect("short");
    let mut decoder = Decoder::new();
    decoder.push(&bytes);
    assert_eq!(decoder.next_message(), Some(ToGuest::Ping { token: 2 }));
    assert_eq!(decoder.next_message::<ToGuest>(), None);
}

#[test]
fn too_long_messages_are_refused() {
    let message = ToGuest::Stdin { session: 1, data: vec![0; MAX_BODY] };
    assert_eq!(encode(&message, &mut Vec::new()), Err(BadMessage));
}

#[test]
fn windows_never_go_below_zero_nor_above_their_start() {
    let mut window = Window::default();
    assert_eq!(window.available(), MAX_DATA);
    assert!(window.take(WINDOW as usize).is_ok());
    assert_eq!(window.available(), 0);
    assert!(window.take(1).is_err());
    window.grant(u32::MAX);
    assert!(window.take(WINDOW as usize + 1).is_err());
}
