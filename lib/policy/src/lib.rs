//! What trusted programs may reach, and what they must consist of. The host command compiles a
//! policy from its text form (`doc/policy.md`) and packs it into the boot archive; the relay asks
//! it about every address, on the arguments that it has copied.
//!
//! What no rule allows is refused.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod code;
mod net;
mod path;
mod rules;

pub use code::{Code, Extent, extents};
pub use net::{Net, NoNet, Ports, is_loopback};
pub use path::normalise;
pub use rules::{ConnectRule, Decision, ListenRule, Place, Protocol};

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Name of the compiled policy in the boot archive.
pub const FILE: &str = "policy";
/// Begins every compiled policy.
const MAGIC: &[u8; 8] = b"TLPOLCY1";

/// Which programs a trusted program may become by `execve` and stay trusted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Exec {
    /// Every program of the policy, by that program's own rules.
    #[default]
    Listed,
    /// These programs of the policy only; none, when empty.
    Only(Vec<String>),
}

/// A file or folder of the service VM that appears in place of the compute VM's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileRule {
    /// Absolute path.
    pub path: String,
    /// It may be changed.
    pub write: bool,
}

/// A trusted program.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Program {
    /// Absolute path, without redundant parts.
    pub path: String,
    /// What its executable pages must be.
    pub code: Code,
    /// Children made by `fork` are trusted as well.
    pub children: bool,
    /// What it may become.
    pub exec: Exec,
    /// Peers, in order: the first rule that matches decides.
    pub connect: Vec<ConnectRule>,
    /// Own addresses, in order: the first rule that matches decides.
    pub listen: Vec<ListenRule>,
    /// Files of the service VM.
    pub files: Vec<FileRule>,
}

impl Program {
    /// A program with the rules of the shorthand `--trust`: it may connect to and listen on any
    /// address of the service VM, and its children and the programs of the policy that it starts
    /// are trusted as well.
    #[must_use]
    pub fn with_defaults(path: &str) -> Self {
        let any = || alloc::vec![Net::ANY_V4, Net::ANY_V6];
        Self {
            path: path.into(),
            code: Code::default(),
            children: true,
            exec: Exec::Listed,
            connect: alloc::vec![ConnectRule {
                nets: any(),
                ports: Ports::all(),
                protocols: Protocol::ALL.to_vec(),
                deny: false,
                place: Place::Remote,
            }],
            listen: alloc::vec![ListenRule {
                nets: any(),
                ports: Ports::all(),
                protocols: Protocol::ALL.to_vec(),
                deny: false,
                place: Place::Remote,
            }],
            files: Vec::new(),
        }
    }

    /// True when it may become the program of that path and stay trusted.
    #[must_use]
    pub fn may_become(&self, path: &str) -> bool {
        match &self.exec {
            Exec::Listed => true,
            Exec::Only(paths) => paths.iter().any(|p| p == path),
        }
    }
}

/// A compiled policy.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Policy {
    /// Programs; no path is there twice.
    pub programs: Vec<Program>,
    /// Where the shared libraries of the root image lie in it: sorted, disjoint.
    pub libraries: Vec<Extent>,
}

/// Bytes that are no compiled policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl Policy {
    /// Programs that are trusted by their path alone, with the default rules: for tests.
    #[must_use]
    pub fn by_path(paths: &[&str]) -> Self {
        let program = |path: &&str| {
            let mut program = Program::with_defaults(path);
            program.code.verify = false;
            program
        };
        Self { programs: paths.iter().map(program).collect(), libraries: Vec::new() }
    }

    /// The program that a path names, however the path is spelled.
    #[must_use]
    pub fn program(&self, path: &[u8]) -> Option<&Program> {
        let path = normalise(path)?;
        self.programs.iter().find(|p| p.path.as_bytes() == path)
    }

    /// True when the program's executable pages may be this page of the root image.
    #[must_use]
    pub fn is_code_of(&self, program: &Program, page: u64) -> bool {
        program.code.may_hold(page)
            || program.code.image_libraries && extents::contain(&self.libraries, page)
    }

    /// The compiled form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let body = postcard::to_allocvec(self).unwrap_or_default();
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Reads the compiled form; bytes behind it are ignored.
    ///
    /// # Errors
    /// `Malformed` for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(Malformed)?;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| Malformed)?;
        let body = rest.get(..length).ok_or(Malformed)?;
        let policy: Self = postcard::from_bytes(body).map_err(|_| Malformed)?;
        let sorted = extents::are_sorted(&policy.libraries)
            && policy.programs.iter().all(|p| p.code.is_sound());
        if sorted { Ok(policy) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests;
