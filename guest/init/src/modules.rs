//! Loads the kernel modules that the initramfs brings along.

use crate::parameters::Role;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::ffi::CString;
use std::path::Path;

/// Where the image builder puts them.
const DIRECTORY: &str = "/modules";

/// One line of `/modules/order`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Module {
    file: String,
    /// Parameters, separated by blanks, as `finit_module(2)` takes them.
    parameters: String,
}

/// The modules of `text` that this machine needs.
fn parse(text: &str, role: Role) -> Vec<Module> {
    text.lines().filter_map(|line| parse_line(line, role)).collect()
}

fn parse_line(line: &str, role: Role) -> Option<Module> {
    let mut words = line.split_ascii_whitespace().peekable();
    let file = words.next().filter(|word| !word.starts_with('#'))?;
    if let Some(only) = words.next_if(|word| matches!(*word, "compute" | "service"))
        && only != role.to_string()
    {
        return None;
    }
    let parameters = words.collect::<Vec<_>>().join(" ");
    Some(Module { file: file.to_owned(), parameters })
}

fn load(module: &Module) -> Result<(), Errno> {
    let path = Path::new(DIRECTORY).join(&module.file);
    let file = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let parameters = CString::new(module.parameters.as_str()).map_err(|_| Errno::INVAL)?;
    match rustix::system::finit_module(&file, &parameters, 0) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Loads all of them. A module that fails is tried again as long as another one could be loaded
/// since: so a wrong order does no harm.
///
/// Answers what went wrong, a line each.
#[must_use]
pub fn load_all(role: Role) -> Vec<String> {
    let order = Path::new(DIRECTORY).join("order");
    let text = match std::fs::read_to_string(&order) {
        Ok(text) => text,
        Err(error) => return vec![format!("{}: {error}", order.display())],
    };
    let mut waiting = parse(&text, role);
    loop {
        let mut failures = Vec::new();
        let before = waiting.len();
        waiting.retain(|module| match load(module) {
            Ok(()) => false,
            Err(error) => {
                failures.push(format!("module {}: {error}", module.file));
                true
            }
        });
        if waiting.is_empty() || waiting.len() == before {
            return failures;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_parameters_and_comments_are_understood() {
        let text = "# comment\n\nvirtio.ko\nvirtio_net.ko service\n\
                    loop.ko compute max_loop=8 x=1\nlibnvdimm.ko a=b\n";
        let module = |file: &str, parameters: &str| Module {
            file: file.into(),
            parameters: parameters.into(),
        };
        assert_eq!(
            parse(text, Role::Compute),
            [
                module("virtio.ko", ""),
                module("loop.ko", "max_loop=8 x=1"),
                module("libnvdimm.ko", "a=b")
            ]
        );
        assert_eq!(
            parse(text, Role::Service),
            [module("virtio.ko", ""), module("virtio_net.ko", ""), module("libnvdimm.ko", "a=b")]
        );
    }
}
