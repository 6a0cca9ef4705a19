//! Pages on the disk are encrypted and authenticated: ChaCha20-Poly1305 (RFC 8439) with a key that
//! lives as long as the machine, and a number that is never used twice as the nonce. What belongs to
//! a page, and where and in which version it was written, is authenticated with it, so that
//! neither another page nor an earlier version passes for it.
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};

/// Bytes of a key.
pub const KEY: usize = 32;
/// Bytes of a tag.
pub const TAG: usize = 16;

/// The bytes are not those that were sealed for this page, place and version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forged;

/// What is sealed: where it belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    /// The page.
    pub page: u32,
    /// Its place on the disk.
    pub slot: u32,
    /// Number of the sealing, by which the place is expected to be found again.
    pub version: u64,
}

impl Label {
    fn nonce(self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.version.to_le_bytes());
        nonce.into()
    }

    fn bound(self, length: usize) -> [u8; 16] {
        let mut data = [0; 16];
        data[..4].copy_from_slice(&self.page.to_le_bytes());
        data[4..8].copy_from_slice(&self.slot.to_le_bytes());
        data[8..].copy_from_slice(&(length as u64).to_le_bytes());
        data
    }
}

/// The key, and the number of the last sealing.
pub struct Sealer {
    cipher: ChaCha20Poly1305,
    last: u64,
}

impl Sealer {
    /// With a key that is used for nothing else, and the last version that was ever used with it.
    #[must_use]
    pub fn new(key: &[u8; KEY], last: u64) -> Self {
        Self { cipher: ChaCha20Poly1305::new(key.into()), last }
    }

    /// The next version. At a million a second, they last half a million years.
    pub fn next_version(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Encrypts what lies behind the first [`TAG`] bytes, and writes the tag there.
    ///
    /// # Errors
    /// `Forged` when there is no room for a tag.
    pub fn seal(&self, label: Label, record: &mut [u8]) -> Result<(), Forged> {
        let (tag, body) = record.split_at_mut_checked(TAG).ok_or(Forged)?;
        let made =
            self.cipher.encrypt_in_place_detached(&label.nonce(), &label.bound(body.len()), body);
        tag.copy_from_slice(&made.map_err(|_| Forged)?);
        Ok(())
    }

    /// Checks the tag in front and decrypts what lies behind it.
    ///
    /// # Errors
    /// `Forged`; then what lies there is nothing.
    pub fn open<'a>(&self, label: Label, record: &'a mut [u8]) -> Result<&'a [u8], Forged> {
        let (tag, body) = record.split_at_mut_checked(TAG).ok_or(Forged)?;
        let opened = self.cipher.decrypt_in_place_detached(
            &label.nonce(),
            &label.bound(body.len()),
            body,
            Tag::from_slice(tag),
        );
        opened.map_err(|_| Forged)?;
        Ok(body)
    }
}
