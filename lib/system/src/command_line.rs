//! Words `name=value` of a command line, and sizes.

/// The value of the last word `name=value`, or `""` for a bare `name`.
#[must_use]
pub fn word<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_ascii_whitespace().rev().find_map(|word| match word.split_once('=') {
        Some((n, value)) => (n == name).then_some(value),
        None => (word == name).then_some(""),
    })
}

/// A number of bytes: digits, then nothing, `K`, `M` or `G`. `None` for anything else, and for
/// what does not fit.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_word_wins() {
        assert_eq!(word("a=1 b a=2", "a"), Some("2"));
        assert_eq!(word("a=1 b", "b"), Some(""));
        assert_eq!(word("ab=1", "a"), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512M"), Some(512 << 20));
        assert_eq!(parse_size("12"), Some(12));
        for bad in ["", "M", "-1", "1T", "99999999999999999999", "18446744073709551615G", "+1"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = parse_size(&text);
            let _ = word(&text, "x");
        }
    }
}
