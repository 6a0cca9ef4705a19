//! One line per remotely serviced call.
use crate::cx::Cx;
use crate::space::Outcome;
use crate::world::Kind;
use alloc::string::String;
use core::fmt::{self, Display, Formatter};
use linux_abi::{Address, Argument, Errno, name, nr};

/// The arguments of a call, readable.
struct Arguments<'c>(&'c Cx);

impl Display for Arguments<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(call) = linux_abi::call(self.0.number) else { return Ok(()) };
        for (n, (kind, value)) in call.arguments().zip(self.0.arguments).enumerate() {
            if n > 0 {
                f.write_str(", ")?;
            }
            match kind {
                Argument::Pointer if n == 1 && has_address(self.0.number) => {
                    match address(self.0, value, self.0.arguments[2]) {
                        Some(address) => write!(f, "{address}")?,
                        None => write!(f, "{value:#x}")?,
                    }
                }
                Argument::Path if value != 0 => match path(self.0, value) {
                    Some(path) => write!(f, "{path:?}")?,
                    None => write!(f, "{value:#x}")?,
                },
                Argument::Pointer if value != 0 => write!(f, "{value:#x}")?,
                Argument::Pointer | Argument::Path => f.write_str("NULL")?,
                Argument::Descriptor | Argument::Directory => write!(f, "{}", value as i32)?,
                Argument::Length => write!(f, "{value}")?,
                Argument::Number if value < 1 << 16 => write!(f, "{value}")?,
                Argument::Number if value as i32 == -1 => f.write_str("-1")?,
                Argument::Number => write!(f, "{value:#x}")?,
            }
        }
        Ok(())
    }
}

fn has_address(number: u64) -> bool {
    matches!(number, nr::connect | nr::bind)
}

fn address(cx: &Cx, at: u64, length: u64) -> Option<Address> {
    let mut bytes = [0; 28];
    let bytes = bytes.get_mut(..usize::try_from(length).ok()?.min(28))?;
    cx.space.tables(&cx.core).read(at, bytes).ok()?;
    Address::parse(bytes)
}

/// Most bytes of a path in a line.
const PATH_SHOWN: usize = 256;

fn path(cx: &Cx, at: u64) -> Option<String> {
    let mut bytes = [0; PATH_SHOWN];
    let length = cx.space.tables(&cx.core).read_string(at, &mut bytes).ok()??;
    Some(String::from_utf8_lossy(bytes.get(..length)?).into_owned())
}

/// None where the call ends without being seen again.
struct Result(Option<i64>);

impl Display for Result {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(result) = self.0 else { return f.write_str("whatever is ready here") };
        match Errno::of(result) {
            Some(error) if error.name() != "E?" => write!(f, "-1 {}", error.name()),
            Some(error) => write!(f, "-1 (error {})", error.0),
            None => write!(f, "{result}"),
        }
    }
}

/// Counts a call that is over, and tells about it when it was remote.
pub(crate) fn report(cx: &Cx, outcome: Outcome, start: u64) {
    let kind = cx.kind.get();
    if !cx.again.get() {
        cx.core.counters.call(cx.number, kind);
    }
    if kind == Kind::Local || !cx.core.verbose.get() {
        return;
    }
    let result = Result(match outcome {
        Outcome::Return(result) => Some(result),
        // Its own kernel answers a close after the delegate.
        Outcome::Reflect => Some(0),
        Outcome::Alone(_) => None,
    });
    let how = match kind {
        Kind::Local => "local",
        Kind::Remote => "remote",
        Kind::Both => "both",
        Kind::Refused => "refused",
    };
    let microseconds = cx.core.world.now().saturating_sub(start) / 1000;
    cx.core.world.call(format_args!(
        "{}[{}] {}({}) = {} ({how}, {microseconds} us)",
        cx.space.name.borrow(),
        cx.space.id,
        name(cx.number),
        Arguments(cx),
        result,
    ));
}
