use super::*;
use crate::command::{output, tool};
use std::fs;
use std::os::unix::fs::symlink;

/// An ELF file with one executable segment of `pages` pages behind a page of headers, and an
/// interpreter if that is given.
fn program(pages: usize, interpreter: &str) -> Vec<u8> {
    let mut bytes = vec![0; PAGE as usize * (pages + 1)];
    bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
    bytes[6] = 1;
    bytes[16] = 3;
    bytes[18] = 62;
    bytes[20] = 1;
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = 2;
    let mut segment = |n: usize, kind: u8, flags: u8, offset: u64, length: u64| {
        let at = 64 + n * 56;
        bytes[at] = kind;
        bytes[at + 4] = flags;
        bytes[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        bytes[at + 32..at + 40].copy_from_slice(&length.to_le_bytes());
    };
    segment(0, 1, 5, PAGE, pages as u64 * PAGE - 100);
    if !interpreter.is_empty() {
        segment(1, 3, 4, 0x200, interpreter.len() as u64 + 1);
        bytes[0x200..0x200 + interpreter.len()].copy_from_slice(interpreter.as_bytes());
    }
    for (n, byte) in bytes[PAGE as usize..].iter_mut().enumerate() {
        *byte = (n / 7) as u8;
    }
    bytes
}

fn sample() -> (tempfile::TempDir, Code) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let tree = folder.path().join("tree");
    for name in ["usr/bin", "usr/lib/deep", "srv"] {
        fs::create_dir_all(tree.join(name)).expect("folder");
    }
    symlink("usr/lib", tree.join("lib")).expect("link");
    symlink("tool", tree.join("usr/bin/alias")).expect("link");
    let write = |name: &str, bytes: &[u8]| fs::write(tree.join(name), bytes).expect("file");
    write("usr/bin/tool", &program(3, "/lib/loader"));
    write("usr/bin/script", b"#! /usr/bin/alias -x\nmore\n");
    write("usr/bin/text", b"hello");
    write("usr/lib/loader", &program(2, ""));
    write("usr/lib/deep/one.so", &program(5, ""));
    write("usr/lib/deep/data", &vec![1; 5000]);
    write("srv/other.so", &program(1, ""));
    let image = folder.path().join("image");
    output(tool("mkfs.erofs").args(["-T0", "-Enoinline_data"]).arg(&image).arg(&tree))
        .expect("mkfs.erofs");
    let code = Code::of(&image).expect("image");
    (folder, code)
}

/// What the extents hold is the code of that file.
fn holds(code: &Code, extents: &[Extent], pages: usize) -> bool {
    let [extent] = extents else { return false };
    let mut bytes = vec![0; extent.pages as usize * PAGE as usize];
    let whole = program(pages, "");
    code.bytes.read(u64::from(extent.first) * PAGE, &mut bytes) && bytes == whole[PAGE as usize..]
}

#[test]
fn code_is_found_in_the_image_that_the_tool_makes() {
    let (_folder, code) = sample();
    let tool = code.program("/usr/bin/tool").expect("tool");
    assert!(holds(&code, &tool.own, 3) && holds(&code, &tool.loader, 2), "{tool:?}");
    assert_eq!(code.program("/usr/bin/script").expect("script"), tool);
    let error = code.program("/usr/bin/text").expect_err("no program").to_string();
    assert!(error.contains("neither a program"), "{error}");
    let error = code.program("/usr/bin/none").expect_err("nothing").to_string();
    assert!(error.contains("no such file"), "{error}");
    let library = code.library("/usr/lib/deep/one.so").expect("library");
    assert!(holds(&code, &library, 5));
    assert_eq!(code.library("/usr/lib/deep").expect("folder"), library);
    let all = code.libraries().expect("libraries");
    assert!(all.iter().map(|e| e.pages).sum::<u32>() == 7, "{all:?}");
    assert!(!extents::contain(&all, u64::from(tool.own[0].first)));
    assert!(code.library("/usr/bin/text").is_err());
}

#[test]
fn sums_are_those_of_the_files() {
    let (_folder, code) = sample();
    let expected: [u8; 32] = Sha256::digest(program(3, "/lib/loader")).into();
    assert_eq!(code.sha256("/usr/bin/alias").expect("sum"), expected);
}
