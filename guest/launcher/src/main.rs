//! Asks the hypervisor to trust what this process executes next, then becomes the program that was
//! meant: under the name `trusted` the one named by the first argument, under any other name the
//! trusted program of that name. Only programs on the list of `guest/init` are started; the list
//! saves a useless request, the decision is the hypervisor's.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One absolute path a line, written by init.
const LIST: &str = "/run/trapline/trusted";
/// Name under which the launcher takes a program as its first argument.
const GENERIC: &str = "trusted";

/// What a shell answers for a program that cannot be executed, or is not found.
const CANNOT_EXECUTE: i32 = 126;
const NOT_FOUND: i32 = 127;

fn fail(status: i32, text: impl Display) -> ! {
    eprintln!("trapline: {text}");
    std::process::exit(status)
}

/// The trusted program that a word means: its path, or its last component.
fn find<'a>(list: &'a [PathBuf], word: &OsStr) -> Option<&'a Path> {
    let by_path = list.iter().find(|path| path.as_os_str() == word);
    let has_directory = word.as_bytes().contains(&b'/');
    let by_name = || list.iter().find(|path| path.file_name() == Some(word));
    by_path.or_else(|| if has_directory { None } else { by_name() }).map(PathBuf::as_path)
}

fn parse(list: &[u8]) -> Vec<PathBuf> {
    let lines = list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| PathBuf::from(OsStr::from_bytes(line))).collect()
}

/// The word that names the program, and the arguments behind it (the program's own `argv[0]` is
/// the word).
fn wanted(mut arguments: impl Iterator<Item = OsString>) -> Option<(OsString, Vec<OsString>)> {
    let own = arguments.next()?;
    let name = Path::new(&own).file_name()?;
    let word = if name == GENERIC { arguments.next()? } else { own };
    Some((word, arguments.collect()))
}

fn main() {
    let Some((word, arguments)) = wanted(std::env::args_os()) else {
        fail(CANNOT_EXECUTE, "usage: trusted PROGRAM ARGUMENTS...");
    };
    let list = std::fs::read(LIST).unwrap_or_default();
    let list = parse(&list);
    // Started through a link: only the link's own name counts, wherever the link was found.
    let linked = std::env::args_os().next().is_some_and(|own| own == word);
    let key = if linked { Path::new(&word).file_name().unwrap_or(&word) } else { &word };
    let Some(program) = find(&list, key) else {
        fail(NOT_FOUND, format_args!("{}: not a trusted program", key.display()));
    };
    let answer = guest_sys::hypercall::call(wire::hypercall::TRUST, [0; 3]);
    if answer < 0 {
        // The program then runs as any other does: without the network.
        let error = std::io::Error::from_raw_os_error(i32::try_from(-answer).unwrap_or(0));
        eprintln!("trapline: {} runs untrusted: {error}", program.display());
    }
    let error = Command::new(program).arg0(&word).args(arguments).exec();
    fail(CANNOT_EXECUTE, format_args!("{}: {error}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<(OsString, Vec<OsString>)> {
        wanted(words.iter().map(OsString::from))
    }

    #[test]
    fn both_ways_to_name_the_program_work() {
        let rest = vec![OsString::from("-v")];
        assert_eq!(
            words(&["/run/trapline/bin/curl", "-v"]),
            Some(("/run/trapline/bin/curl".into(), rest.clone()))
        );
        assert_eq!(words(&["trusted", "curl", "-v"]), Some(("curl".into(), rest)));
        assert_eq!(words(&["trusted"]), None);
        assert_eq!(words(&[]), None);
    }

    #[test]
    fn programs_are_found_by_path_or_by_name_alone() {
        let list = parse(b"/usr/bin/curl\n\n/opt/x/curl\n/bin/nc\n");
        let found = |word: &str| find(&list, OsStr::new(word)).and_then(Path::to_str);
        assert_eq!(found("curl"), Some("/usr/bin/curl"));
        assert_eq!(found("/opt/x/curl"), Some("/opt/x/curl"));
        assert_eq!(found("/tmp/curl"), None);
        assert_eq!(found("./nc"), None);
        assert_eq!(found("wget"), None);
    }
}
