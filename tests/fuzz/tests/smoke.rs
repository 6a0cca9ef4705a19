//! Every target on the inputs that are kept, and on some thousands made from them: always the same ones.
use fuzz::{TARGETS, Target};
use std::path::{Path, PathBuf};

/// A generator of numbers (Marsaglia's xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn seeds(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target.name);
    let files = std::fs::read_dir(&folder).expect("every target has seeds");
    let mut seeds: Vec<_> = files
        .map(|file| file.expect("a file").path())
        .map(|path| (path.clone(), std::fs::read(path).expect("a seed")))
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{} is empty", folder.display());
    seeds
}

/// Replaces, removes and doubles pieces, as fuzzers do.
fn mutate(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(bytes.len());
        let end = (at + 1 + numbers.below(16)).min(bytes.len());
        match numbers.below(5) {
            0 if !bytes.is_empty() => bytes[at] = numbers.next() as u8,
            1 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes.get(at..end).unwrap_or_default().to_vec();
                let to = numbers.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => bytes.extend(numbers.next().to_le_bytes()),
        }
    }
}

fn run(name: &str) {
    let target = fuzz::target(name).expect("a target");
    let seeds = seeds(target);
    for (path, bytes) in &seeds {
        println!("{}", path.display());
        (target.run)(bytes);
    }
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..target.rounds {
        let mut bytes = seeds[numbers.below(seeds.len())].1.clone();
        mutate(&mut bytes, &mut numbers);
        // Kept where a panic's message shows it: tests' output is shown when they fail.
        println!("round {round}: {bytes:02x?}");
        (target.run)(&bytes);
    }
}

macro_rules! targets {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            run($name);
        })*

        #[test]
        fn every_target_is_here() {
            let here = [$($name),*];
            assert_eq!(TARGETS.iter().map(|t| t.name).collect::<Vec<_>>(), here);
        }
    };
}

targets! {
    wire: "wire",
    relay: "relay",
    relay_files: "relay-files",
    delegate: "delegate",
    files: "files",
    identity: "identity",
    policy: "policy",
    compiled_policy: "compiled-policy",
    virtio: "virtio",
    apic: "apic",
    decode: "decode",
    lost: "lost",
    archive: "archive",
    hostlink: "hostlink",
    linuxboot: "linuxboot",
}
