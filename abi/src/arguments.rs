//! What the arguments of each call are, so that tests find every pointer, address and selector.
use crate::CallNumber;

/// Kind of an argument, as the kernel treats it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    /// Address of memory that the kernel reads at once; the next argument is its length in bytes.
    Pointer,
    /// Address in a space: of a region, a mapping, an instruction or a stack.
    Address,
    /// Selector of something that must exist.
    Capability,
    /// Selector of something, or 0 for the own space or for nothing.
    Optional,
    /// Selector that must be empty.
    Slot,
    /// Number, length, offset, rights, time, or a word that means nothing to the kernel.
    Number,
}

impl CallNumber {
    /// The arguments that the call looks at, in order.
    #[must_use]
    pub const fn arguments(self) -> &'static [Argument] {
        use Argument::{Address, Capability, Number, Optional, Pointer, Slot};
        match self {
            Self::Null | Self::ReplyWait | Self::Wait | Self::Yield | Self::FaultRetry => &[],
            Self::Log => &[Pointer, Number],
            Self::Call => &[Capability],
            Self::Exit => &[Number],
            Self::RegionList => &[Optional, Address],
            Self::Signal => &[Capability, Number],
            Self::CapCopy => &[Capability, Optional, Slot, Number],
            Self::CapDrop => &[Optional, Capability],
            Self::CreateSpace => &[Slot, Number, Number],
            Self::CreateThread => &[Slot, Optional, Number, Address, Address, Number],
            Self::CreatePortal => &[Slot, Capability, Number, Number],
            Self::CreateNotification => &[Slot],
            Self::BindNotification => &[Capability, Capability],
            Self::CreateSc => &[Slot, Capability, Number, Number],
            Self::CreateVcpu => &[Slot, Capability, Number, Capability, Number],
            Self::VcpuPortal => &[Capability, Number, Capability],
            Self::VcpuRecall | Self::MemInfo | Self::Destroy => &[Capability],
            Self::RegionBind => &[Optional, Address, Number, Optional, Number, Number, Number],
            Self::RegionUnbind | Self::Unmap | Self::PagesUsed => &[Optional, Address, Number],
            Self::Map => &[Optional, Address, Capability, Number, Number, Number],
            Self::MemDerive => &[Slot, Capability, Number, Number, Number],
            Self::IrqBind => &[Capability, Capability, Number, Number],
            Self::SystemCount | Self::Shutdown => &[Capability, Number],
            Self::FaultPortal => &[Capability, Capability],
            Self::SpaceQuota => &[Optional],
            Self::TraceMask => &[Capability, Number, Number],
            Self::RegionWindow => &[Optional, Address, Number, Address],
            Self::RegionSplit => &[Optional, Address, Number, Address, Number],
            Self::RegionMove => &[Optional, Address, Number, Address],
            Self::RegionRights => &[Optional, Address, Number, Number],
            Self::RegionManager => &[Optional, Address, Number, Optional, Number],
            Self::FaultLimit => &[Optional, Number],
            Self::RegionsPass => &[Optional, Capability, Optional],
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::format;

    /// Each call and the list of arguments that its documentation begins with.
    fn documented() -> impl Iterator<Item = (CallNumber, &'static str)> {
        let text = include_str!("call.rs");
        CallNumber::ALL.iter().filter_map(move |call| {
            let line = format!("    {call:?} = {};", *call as u64);
            let end = text.find(&line).unwrap_or_else(|| panic!("{call:?} is not in call.rs"));
            let start = text[..end].rfind(";\n").unwrap_or(0);
            let list = text[start..end].split_once("`(")?.1;
            Some((*call, list.split_once('`')?.0))
        })
    }

    #[test]
    fn what_is_documented_as_an_address_is_one_in_the_table() {
        let words = ["pointer", "address", "base", "entry"];
        let mut seen = 0;
        for (call, list) in documented().filter(|(_, list)| words.iter().any(|w| list.contains(w)))
        {
            let is = |a: &Argument| matches!(a, Argument::Pointer | Argument::Address);
            assert!(call.arguments().iter().any(is), "{call:?}: {list}");
            seen += 1;
        }
        assert!(seen > 10, "{seen} calls with addresses");
    }

    #[test]
    fn calls_are_numbered_without_gaps() {
        for (number, call) in CallNumber::ALL.iter().enumerate() {
            assert_eq!(*call as usize, number);
            assert_eq!(CallNumber::from_raw(number as u64), Some(*call));
        }
        assert_eq!(CallNumber::from_raw(CallNumber::ALL.len() as u64), None);
    }
}
