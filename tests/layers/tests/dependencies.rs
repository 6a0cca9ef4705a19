//! Dependencies between the workspace's crates point downwards only.
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// Layer (by folder) and the layers that its crates may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("lib", &["abi", "lib"]),
    ("kernel", &["abi", "lib"]),
    ("rt", &["abi", "lib"]),
    ("servers", &["abi", "lib", "rt"]),
    // A system crate of the guest programs is part of their own layer.
    ("guest", &["lib", "guest"]),
    ("cli", &["lib"]),
    ("xtask", &["lib"]),
    ("tests", &["abi", "lib", "rt", "guest", "cli"]),
    ("bench", &["lib", "cli"]),
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(layers::workspace())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("metadata is JSON")
}

/// Name of each crate of the workspace, and its layer: the first folder of its path.
fn layers_by_crate(packages: &[Value]) -> BTreeMap<String, String> {
    let root = layers::workspace();
    packages
        .iter()
        .map(|package| {
            let manifest = package["manifest_path"].as_str().expect("a path");
            let inside = std::path::Path::new(manifest).strip_prefix(&root).expect("inside");
            let first = inside.components().next().expect("a folder");
            let name = package["name"].as_str().expect("a name");
            (name.to_owned(), first.as_os_str().to_string_lossy().into_owned())
        })
        .collect()
}

#[test]
fn dependencies_point_downwards() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let layers = layers_by_crate(packages);
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let layer = &layers[name];
        let Some((_, allowed)) = ALLOWED.iter().find(|(l, _)| l == layer) else {
            wrong.push(format!("{name} is in the folder {layer}, which is no layer"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let other = dependency["name"].as_str().expect("a name");
            let test_only = dependency["kind"].as_str() == Some("dev");
            if let Some(target) = layers.get(other)
                && !test_only
                && !allowed.contains(&target.as_str())
            {
                wrong.push(format!("{name} ({layer}) depends on {other} ({target})"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Registry crates only, so that a build needs nothing but the lock file.
#[test]
fn no_dependency_comes_from_a_repository() {
    let lock = std::fs::read_to_string(layers::workspace().join("Cargo.lock")).expect("lock file");
    let bad: Vec<&str> = lock.lines().filter(|line| line.contains("\"git+")).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

/// The fuzz harness is a workspace of its own and shares this one's crates: its lock file has to know what
/// they depend on, or it can't be built as it is.
#[test]
fn the_fuzz_harness_is_locked_to_what_there_is() {
    let harness = layers::workspace().join("tests/fuzz/libfuzzer");
    let lock = std::fs::read_to_string(harness.join("Cargo.lock")).expect("a lock file");
    let lock: toml::Table = lock.parse().expect("TOML");
    let locked = lock["package"].as_array().expect("packages");
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let Some(known) = locked.iter().find(|known| known["name"].as_str() == Some(name)) else {
            continue;
        };
        let known = known.get("dependencies").and_then(toml::Value::as_array);
        let words: Vec<&str> =
            known.into_iter().flatten().filter_map(toml::Value::as_str).collect();
        for needed in package["dependencies"].as_array().expect("dependencies") {
            let other = needed["name"].as_str().expect("a name");
            let always = needed["kind"].is_null() && needed["optional"] == false;
            let there = words.iter().any(|word| word.split(' ').next() == Some(other));
            assert!(
                there || !always,
                "{name} needs {other}: run `cargo update --workspace` in {}",
                harness.display()
            );
        }
    }
}
