//! Paths, as rules name them.
use alloc::vec::Vec;

/// An absolute path without redundant parts; `/bin`, `/sbin` and `/lib*` are those below `/usr`
/// (Debian's merged directories). `None` for relative paths and those with `..`: what they name
/// depends on more than the path.
#[must_use]
pub fn normalise(path: &[u8]) -> Option<Vec<u8>> {
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
