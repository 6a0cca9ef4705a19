//! Status codes of kernel calls.

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why a kernel call was refused. The value travels in `rax`; zero means success.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u64)]
        pub enum Error {
            $($(#[$doc])* $name = $value,)*
        }

        impl Error {
            /// Decodes a status word: `Ok` for zero, unknown values become `BadCall`.
            ///
            /// # Errors
            /// The error that the word stands for.
            pub const fn check(status: u64) -> Result<(), Error> {
                match status {
                    0 => Ok(()),
                    $($value => Err(Error::$name),)*
                    _ => Err(Error::BadCall),
                }
            }

            /// A short text for reports.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Error::$name => $text,)*
                }
            }
        }
    };
}

errors! {
    /// No such call number.
    BadCall = 1, "unknown call number";
    /// The selector is out of range, empty, or names an object of another kind.
    BadCapability = 2, "bad capability";
    /// The capability lacks a right that the call needs.
    NoRight = 3, "missing right";
    /// An argument is out of its range, or the part of a memory capability is not made of whole pages inside.
    BadArgument = 4, "bad argument";
    /// An address lies in the kernel or beyond the space's end, is not canonical, or is not mapped.
    BadAddress = 5, "bad address";
    /// The range overlaps a region that exists.
    Overlap = 6, "overlapping region";
    /// There is no region there, or it is bound to another manager.
    NoRegion = 7, "no such region";
    /// The space's quota of kernel memory is used up.
    Quota = 8, "quota of kernel memory exhausted";
    /// The slot of the capability table is taken.
    Occupied = 9, "selector in use";
    /// The deadline passed first.
    Timeout = 10, "timed out";
    /// The other side died or was destroyed.
    Gone = 11, "object gone";
    /// The object is in a state that forbids the call.
    BadState = 12, "wrong state";
    /// Portal calls must stay on the handler's processor.
    WrongCpu = 13, "portal belongs to another processor";
    /// The processor lacks the feature.
    Unsupported = 14, "not supported by this processor";
    /// Binding would make managers depend on each other in a circle.
    Cycle = 15, "managers would form a cycle";
    /// Any refusal that a server states in its own protocol.
    Refused = 16, "refused by server";
    /// A manager's answer: the thread has used up its stack, and touched the guard below it.
    StackOverflow = 17, "stack overflow";
    /// A manager's answer: the client may have no more memory, or there is none left.
    NoMemory = 18, "quota of memory exhausted";
    /// The address or length of a range is not a multiple of the page size.
    Unaligned = 19, "not at the border of a page";
    /// A range goes beyond the last address and begins again at the first.
    WrapsAround = 20, "range wraps around";
}
