//! Records of the channel in which a machine's interrupts come to its monitor.
use virtio::Msi;

/// Bytes of a record.
const LENGTH: usize = 12;

/// A message as a record: address, data.
#[must_use]
pub fn encode(msi: Msi) -> [u8; LENGTH] {
    let mut record = [0; LENGTH];
    let (address, data) = record.split_at_mut(8);
    address.copy_from_slice(&msi.address.to_le_bytes());
    data.copy_from_slice(&msi.data.to_le_bytes());
    record
}

/// Reads a record, which may be anything; `None` for one of another length. What is in it the guest has chosen.
#[must_use]
pub fn decode(record: &[u8]) -> Option<Msi> {
    let record: [u8; LENGTH] = record.try_into().ok()?;
    let [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3] = record;
    let address = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
    Some(Msi { address, data: u32::from_le_bytes([d0, d1, d2, d3]) })
}
