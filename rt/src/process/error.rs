//! Why a process can't be started, or its end not be waited for.
use core::fmt;

/// What went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The system description gives this program nothing to make processes of.
    NotAllowed,
    /// The archive is not one.
    Archive(archive::Error),
    /// It has no such file.
    NoFile,
    /// The file can't be run.
    File(executable::Defect),
    /// More than [`super::MOST_ARGUMENTS`] arguments, or more than [`super::ARGUMENT_BYTES`] of them.
    Arguments,
    /// As many processes as there can be exist.
    TooMany,
    /// The program needs so many bytes of memory, more than a process gets.
    Memory(u64),
    /// There is no such process, or its end has been told already.
    NoProcess,
    /// The kernel refused a step.
    Kernel(&'static str, abi::Error),
}

impl Error {
    /// A refusal of a step.
    pub(super) fn at(step: &'static str) -> impl Fn(abi::Error) -> Self {
        move |error| Error::Kernel(step, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotAllowed => f.write_str(
                "this program may not start processes; give it `processes` in the system description",
            ),
            Error::Archive(error) => write!(f, "{error}"),
            Error::NoFile => f.write_str("no such file in the archive"),
            Error::File(defect) => write!(f, "the file can't be run: {defect}"),
            Error::Arguments => write!(
                f,
                "more than {} arguments, or than {} bytes of them",
                super::MOST_ARGUMENTS,
                super::ARGUMENT_BYTES
            ),
            Error::TooMany => f.write_str("as many processes as there can be are running"),
            Error::Memory(bytes) => {
                write!(f, "the program needs {} KiB, more than a process gets", bytes >> 10)
            }
            Error::NoProcess => f.write_str("no such process"),
            Error::Kernel(step, error) => write!(f, "{step}: {}", error.text()),
        }
    }
}
