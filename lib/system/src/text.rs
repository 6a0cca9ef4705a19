//! The text form of a description (TOML), as people write it.
use crate::Description;

/// Why a text is not a description, with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TextError {
    /// Line, from 1; 0 when the whole is meant.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl core::fmt::Display for TextError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.line == 0 {
            return write!(f, "system description: {}", self.message);
        }
        write!(
            f,
            "system description, line {}, column {}: {}",
            self.line, self.column, self.message
        )
    }
}

impl std::error::Error for TextError {}

/// Reads and checks a description.
///
/// # Errors
/// The first thing that is wrong, with its line and column where it has one.
pub fn from_text(text: &str) -> Result<Description, TextError> {
    let description: Description = toml::from_str(text).map_err(|e| {
        let start = e.span().map_or(0, |s| s.start).min(text.len());
        let before = text.get(..start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |n| n + 1) + 1;
        TextError { line, column, message: e.message().to_owned() }
    })?;
    description.check().map_err(|message| TextError { line: 0, column: 0, message })?;
    Ok(description)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, decode, encode};
    use proptest::prelude::*;

    const SMALL: &str = r#"
[[programs]]
name = "anon"
file = "anon"
cpus = [0, 1]
heap = 65536
quota = 1048576
priority = 110
pinned = true

[[programs]]
name = "image"
file = "image"
cpus = [0]
heap = 65536
quota = 1048576
priority = 110
"#;

    #[test]
    fn a_description_survives_encoding() {
        let description = from_text(SMALL).expect("is right");
        assert_eq!(decode::<Description>(&encode(&description)), Ok(description));
    }

    #[test]
    fn errors_have_a_place() {
        let error = from_text(&SMALL.replace("priority = 110", "priority = 1100")).unwrap_err();
        assert_eq!((error.line, error.column), (8, 12));
        let error =
            from_text(&format!("{SMALL}\n[[devices]]\nprogram = 'x'\nvendor=1\ndevice=1\ndma=1"))
                .unwrap_err();
        assert!(error.to_string().contains("'x'"), "{error}");
    }

    proptest! {
        #[test]
        fn decoding_garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<Config>(&bytes);
            let _ = decode::<Description>(&bytes);
        }
    }
}
