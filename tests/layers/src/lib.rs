//! Rules about the source itself, checked by this crate's tests: who may depend on whom, where
//! `unsafe` may stand, how long files and functions may be.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Folder of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}

/// The workspace's own Rust files, as paths inside it, with their text.
#[must_use]
pub fn sources() -> Vec<(String, String)> {
    let root = workspace();
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with("target") && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".rs")
                && let (Ok(inside), Ok(text)) =
                    (path.strip_prefix(&root), std::fs::read_to_string(&path))
            {
                files.push((inside.display().to_string(), text));
            }
        }
    }
    files.sort();
    files
}

/// Functions of a formatted file: name, and number of lines from `fn` to its closing brace.
///
/// `rustfmt` puts the closing brace of a function below its first letter, which is enough to find
/// it without a parser.
#[must_use]
pub fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let signature_ends = lines[number..].iter().position(|l| {
            let l = l.trim_end();
            l.ends_with('{') || l.ends_with(';') || l.ends_with('}')
        });
        let Some(start) = signature_ends.map(|n| number + n) else { continue };
        if !lines[start].trim_end().ends_with('{') {
            continue;
        }
        if let Some(length) = lines[start..].iter().position(|l| **l == closing) {
            found.push((name, start - number + length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut rest = line.trim_start();
    if let Some(inside) = rest.strip_prefix("pub(") {
        rest = inside.split_once(") ")?.1;
    }
    for word in ["pub ", "const ", "async ", "unsafe ", "extern \"C\" ", "extern \"sysv64\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name: String = rest
        .strip_prefix("fn ")?
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_their_lengths_are_found() {
        let text = "pub const fn a() -> u8 {\n    1\n}\n\nimpl X {\n    pub(crate) unsafe fn b(\n        \
                    x: u8,\n    ) {\n        if x {\n        }\n    }\n}\nfn c();\n";
        assert_eq!(functions(text), [("a".to_owned(), 3), ("b".to_owned(), 6)]);
    }
}
