//! How much kernel memory a space may cause.
use abi::Error;

/// How much kernel memory a space may cause to be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quota {
    /// Bytes allowed.
    pub limit: u64,
    /// Bytes used, or given to other spaces.
    pub used: u64,
}

impl Quota {
    /// Uses some of it.
    ///
    /// # Errors
    /// `Quota` when there is not enough left.
    #[inline]
    pub fn charge(&mut self, bytes: u64) -> Result<(), Error> {
        match self.used.checked_add(bytes) {
            Some(used) if used <= self.limit => {
                self.used = used;
                Ok(())
            }
            _ => Err(Error::Quota),
        }
    }

    /// Gives some back.
    #[inline]
    pub fn credit(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Bytes left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.limit - self.used
    }
}
