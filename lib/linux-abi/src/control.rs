//! Ancillary data of messages (cmsg(3)).

/// Bytes of a control message's header: length, level, type.
const HEADER: usize = 16;

/// A control message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlMessage<'a> {
    /// `SOL_*`.
    pub level: i32,
    /// Type, by the level.
    pub kind: i32,
    /// What it carries.
    pub data: &'a [u8],
}

/// The messages in ancillary data, up to the first that is malformed (which the kernel refuses).
pub fn control_messages(control: &[u8]) -> impl Iterator<Item = ControlMessage<'_>> {
    let mut rest = control;
    core::iter::from_fn(move || {
        let header = rest.first_chunk::<HEADER>()?;
        let (length, names) = header.split_first_chunk::<8>()?;
        let (level, kind) = names.split_first_chunk::<4>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let data = rest.get(HEADER..length)?;
        rest = rest.get(length.checked_next_multiple_of(8)?..).unwrap_or(&[]);
        let kind = i32::from_le_bytes(*kind.first_chunk()?);
        Some(ControlMessage { level: i32::from_le_bytes(*level), kind, data })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut out = (HEADER as u64 + data.len() as u64).to_le_bytes().to_vec();
        out.extend(level.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(data);
        out.resize(out.len().next_multiple_of(8), 0);
        out
    }

    #[test]
    fn each_message_is_found() {
        let control = [message(0, 8, &[1; 12]), message(41, 50, &[])].concat();
        let found: Vec<_> = control_messages(&control).map(|m| (m.level, m.kind)).collect();
        assert_eq!(found, [(0, 8), (41, 50)]);
        assert_eq!(control_messages(&control).next().map(|m| m.data), Some(&[1; 12][..]));
    }

    proptest! {
        #[test]
        fn garbage_ends(bytes in proptest::collection::vec(any::<u8>(), 0..100), length: u64) {
            let mut control = message(1, 1, &bytes);
            control[..8].copy_from_slice(&length.to_le_bytes());
            prop_assert!(control_messages(&control).count() <= control.len() / HEADER);
            prop_assert!(control_messages(&bytes).count() <= bytes.len() / HEADER);
        }
    }
}
