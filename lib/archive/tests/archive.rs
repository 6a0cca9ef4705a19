//! Round trips, and that no damage makes the reader panic or accept nonsense.
use archive::{Archive, Error, Input, write};
use proptest::prelude::*;
use std::io::Cursor;

fn pack(files: &[(String, Vec<u8>, bool)]) -> Vec<u8> {
    let inputs = files
        .iter()
        .map(|(name, data, large)| Input {
            name: name.clone(),
            length: data.len() as u64,
            large: *large,
            from: Box::new(Cursor::new(data.clone())),
        })
        .collect();
    let mut out = Cursor::new(Vec::new());
    write(inputs, &mut out).expect("packs");
    out.into_inner()
}

#[test]
fn files_come_back_aligned_and_whole() {
    let files = [("root".to_owned(), vec![1; 5000], false), ("big".to_owned(), vec![2; 9], true)];
    let bytes = pack(&files);
    let archive = Archive::parse(&bytes, bytes.len() as u64).expect("parses");
    let (number, big) = archive.find("big").expect("is there");
    assert_eq!((number, big.offset % (2 << 20), big.length), (1, 0, 9));
    let (_, root) = archive.find("root").expect("is there");
    assert_eq!(&bytes[root.offset as usize..][..5000], &files[0].1[..]);
}

#[test]
fn a_cut_archive_is_refused() {
    let bytes = pack(&[("root".to_owned(), vec![1; 5000], false)]);
    assert_eq!(Archive::parse(&bytes[..20], 20).unwrap_err(), Error::Truncated);
    assert_eq!(Archive::parse(&bytes, 4096).unwrap_err(), Error::Entry(0));
}

#[test]
fn names_must_be_unique_and_short() {
    for names in [["a".to_owned(), "a".to_owned()], ["b".to_owned(), "x".repeat(100)]] {
        let inputs = names.into_iter().map(|name| Input {
            name,
            length: 0,
            large: false,
            from: Box::new(std::io::empty()),
        });
        assert!(write(inputs.collect(), &mut Cursor::new(Vec::new())).is_err());
    }
}

proptest! {
    #[test]
    fn any_flipped_bit_of_the_index_is_noticed(bit in 0usize..(32 + 96) * 8) {
        let mut bytes = pack(&[("root".to_owned(), vec![7; 100], false)]);
        let total = bytes.len() as u64;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let parsed = Archive::parse(&bytes, total);
        // The last eight bytes of the header are reserved and not covered.
        prop_assert!(parsed.is_err() || (24 * 8..32 * 8).contains(&bit));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = bytes;
        if bytes.len() > 8 { bytes[..8].copy_from_slice(b"TRAPARC1"); }
        let _ = Archive::parse(&bytes, bytes.len() as u64);
    }
}
