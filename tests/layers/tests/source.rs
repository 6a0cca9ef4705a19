//! Size of files and functions, and where `unsafe` may stand.

/// Most lines of a file.
const FILE: usize = 500;
/// Most lines of a function.
const FUNCTION: usize = 60;
/// Folders that may contain `unsafe`.
const UNSAFE: &[&str] =
    &["kernel/src/machine", "rt/src", "guest/sys/src", "tests/native/src/illegal"];

fn report(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short() {
    let wrong: Vec<String> = layers::sources()
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    report("files above 500 lines", &wrong);
}

#[test]
fn functions_are_short() {
    let mut wrong = Vec::new();
    for (path, text) in layers::sources() {
        for (name, lines) in layers::functions(&text) {
            if lines > FUNCTION {
                wrong.push(format!("{path}: {name} has {lines} lines"));
            }
        }
    }
    report("functions above 60 lines", &wrong);
}

/// The compiler forbids it elsewhere only where a crate says so; this looks at all of them.
#[test]
fn unsafe_stands_in_the_machine_layers_only() {
    let mut wrong = Vec::new();
    for (path, text) in layers::sources() {
        if UNSAFE.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let uses = code.contains("unsafe {") || code.contains("unsafe fn ");
            if (uses || code.contains("unsafe impl ")) && !path.starts_with("tests/layers") {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report("unsafe outside the machine layers", &wrong);
}

/// Each crate's root either forbids `unsafe`, or is one of those that may contain it.
#[test]
fn every_other_crate_forbids_unsafe() {
    let wrong: Vec<String> = layers::sources()
        .into_iter()
        .filter(|(path, _)| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs"))
        .filter(|(path, _)| !UNSAFE.iter().any(|folder| path.starts_with(folder)))
        .filter(|(path, _)| !path.starts_with("kernel/"))
        // `deny` allows the exported symbol that a native program's entry needs.
        .filter(|(_, text)| {
            !["#![forbid(unsafe_code)]", "#![deny(unsafe_code)]"].iter().any(|l| text.contains(l))
        })
        .map(|(path, _)| path)
        .collect();
    report("crates that don't forbid unsafe", &wrong);
}
