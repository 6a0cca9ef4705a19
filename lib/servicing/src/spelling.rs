//! Proof of an `execve`: the path is spelled with a nonce in redundant `./` and `/./`, which the
//! kernel hands to the new image as `AT_EXECFN`.
use alloc::vec::Vec;
use linux_abi::PATH_MAX;
use memory::Memory;
use paging::{PAGE, Space};

/// Bits of a nonce.
const BITS: u32 = 64;
/// Most pages of a new image's stack, from its stack pointer up, that are searched (arguments
/// and environment have 6 MiB at most by the default stack limit; few programs come near).
const SEARCH_PAGES: u64 = 2048;
/// Most pages in a row that may be absent: Linux moves the stack pointer of a new image down by up
/// to 8 KiB at random (`arch_align_stack`) and touches nothing in between.
const HOLE_PAGES: u64 = 3;
/// The kernel leaves a null word above the path at the very top of the stack.
const TOP_NULL: u64 = 8;

/// An equivalent spelling of `path` that encodes `nonce`; `None` when it becomes too long.
///
/// Every bit is a `./` (zero) or `.//` (one) in front of the path's first name.
#[must_use]
pub fn spell(path: &[u8], nonce: u64) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len() + 3 * BITS as usize + 1);
    if path.first() == Some(&b'/') {
        out.push(b'/');
    }
    for bit in 0..BITS {
        out.extend_from_slice(if nonce >> bit & 1 == 0 { b"./" } else { b".//" });
    }
    // What follows is relative to where the prefix leads, which is where it started.
    let rest = path.iter().position(|b| *b != b'/').and_then(|n| path.get(n..))?;
    out.extend_from_slice(rest);
    (out.len() < PATH_MAX).then_some(out)
}

/// Looks for `spelled` as the path at the top of the stack that holds `stack_pointer`. Answers
/// its address.
#[must_use]
pub fn find(space: &Space<'_, dyn Memory + '_>, stack_pointer: u64, spelled: &[u8]) -> Option<u64> {
    let length = spelled.len() as u64 + 1;
    let first = (stack_pointer & !(PAGE - 1)).checked_add(PAGE)?;
    let mut found = alloc::vec![0; spelled.len() + 1];
    let mut hole = 0;
    for n in 0..SEARCH_PAGES {
        let top = first.checked_add(n * PAGE)?;
        if space.find(top - 1, paging::Access::Read).is_err() {
            hole += 1;
            if hole > HOLE_PAGES {
                // The stack has ended.
                return None;
            }
            continue;
        }
        hole = 0;
        let at = top - TOP_NULL - length;
        if space.read(at, &mut found).is_ok()
            && found.last() == Some(&0)
            && found.get(..spelled.len()) == Some(spelled)
        {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::normalise;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn spellings_differ_by_nonce_and_mean_the_same(a: u64, b: u64) {
            let path = b"/usr/bin/curl";
            let (one, two) = (spell(path, a).unwrap(), spell(path, b).unwrap());
            prop_assert_eq!(one == two, a == b);
            prop_assert_eq!(normalise(&one), normalise(path));
            let relative = spell(b"x/y", a).unwrap();
            prop_assert!(relative.starts_with(b"./") && relative.ends_with(b"/x/y"));
        }
    }

    /// A stack below 1 GiB whose page `n` from the top is present if `present` says so, with
    /// `path` at its top.
    fn is_found(present: impl Fn(u64) -> bool) -> bool {
        const TOP: u64 = 0x4000_0000;
        let path = b"/./x";
        let memory = memory::Fake::new(0x20_000);
        let put = |at: u64, value: u64| memory.write(at, &value.to_le_bytes()).unwrap();
        // Tables at 0x1000, 0x2000, 0x3000, 0x4000; pages behind them.
        put(0x1000, 0x2007);
        put(0x2000, 0x3007);
        put(0x3000 + 511 * 8, 0x4007);
        for n in (0..10).filter(|n| present(*n)) {
            put(0x4000 + (511 - n) * 8, 0x5000 + n * PAGE + 7);
        }
        memory.write(0x5000 + PAGE - TOP_NULL - 5, path).unwrap();
        let space = Space::running(&memory as &dyn Memory, 0x1000);
        find(&space, TOP - 3 * PAGE - 100, path) == Some(TOP - TOP_NULL - 5)
    }

    #[test]
    fn the_path_is_found_behind_a_hole_as_linux_leaves_it() {
        assert!(is_found(|_| true));
        assert!(is_found(|n| n == 0 || n == 3));
        assert!(is_found(|n| n != 1 && n != 2));
        assert!(!is_found(|n| n == 3));
    }

    #[test]
    fn paths_that_would_get_too_long_are_refused() {
        assert_eq!(spell(&[b'a'; PATH_MAX - 100], 0), None);
        assert_eq!(spell(b"///", 0), None);
        assert_eq!(spell(b"", 0), None);
    }
}
