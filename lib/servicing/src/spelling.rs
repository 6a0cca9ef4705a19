//! Proof of an `execve`: the path is spelled with a nonce in redundant `./` and `/./`, which the
//! kernel hands to the new image as `AT_EXECFN`; and the list of trusted programs.
use alloc::string::String;
use alloc::vec::Vec;
use linux_abi::PATH_MAX;
use memory::Memory;
use paging::{PAGE, Space};

/// Bits of a nonce.
const BITS: u32 = 64;
/// Most pages of a new image's stack, from its stack pointer up, that are searched (arguments
/// and environment have 6 MiB at most by the default stack limit; few programs come near).
const SEARCH_PAGES: u64 = 2048;
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
    for n in 0..SEARCH_PAGES {
        let top = first.checked_add(n * PAGE)?;
        // The page below `top` must be there, else the stack has ended.
        space.find(top - 1, paging::Access::Read).ok()?;
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

/// The programs that may become trusted.
#[derive(Clone, Debug, Default)]
pub struct TrustList {
    paths: Vec<Vec<u8>>,
}

impl TrustList {
    /// From paths separated by colons.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let paths = text.split(':').filter_map(|p| normalise(p.as_bytes())).collect();
        Self { paths }
    }

    /// True when the path names a listed program.
    #[must_use]
    pub fn contains(&self, path: &[u8]) -> bool {
        normalise(path).is_some_and(|p| self.paths.contains(&p))
    }

    /// The paths, for reports.
    pub fn paths(&self) -> impl Iterator<Item = String> + '_ {
        self.paths.iter().map(|p| String::from_utf8_lossy(p).into_owned())
    }
}

/// An absolute path without redundant parts; `/bin`, `/sbin` and `/lib*` are those below `/usr`
/// (Debian's merged directories). `None` for relative paths and those with `..`: what they name
/// depends on more than the path.
fn normalise(path: &[u8]) -> Option<Vec<u8>> {
    if path.first() != Some(&b'/') {
        return None;
    }
    let mut out = Vec::with_capacity(path.len() + 4);
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            _ => {
                if out.is_empty() && matches!(part, b"bin" | b"sbin" | b"lib" | b"lib64") {
                    out.extend_from_slice(b"/usr");
                }
                out.push(b'/');
                out.extend_from_slice(part);
            }
        }
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listed_programs_are_recognised_in_every_spelling() {
        let list = TrustList::parse("/usr/bin/curl:/usr/bin/wget::relative");
        assert!(list.contains(b"/usr/bin/curl"));
        assert!(list.contains(b"/bin/curl"));
        assert!(list.contains(b"//usr/./bin//curl"));
        assert!(!list.contains(b"/usr/bin/../bin/curl"));
        assert!(!list.contains(b"curl"));
        assert!(!list.contains(b"relative"));
        assert!(!list.contains(b"/usr/bin/curl2"));
        assert!(!list.contains(b"/"));
        assert!(!list.contains(b""));
    }

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

    #[test]
    fn paths_that_would_get_too_long_are_refused() {
        assert_eq!(spell(&[b'a'; PATH_MAX - 100], 0), None);
        assert_eq!(spell(b"///", 0), None);
        assert_eq!(spell(b"", 0), None);
    }
}
