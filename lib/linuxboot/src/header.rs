//! The setup header of a bzImage.
use crate::Error;
use memory::Memory;

/// Offset of the setup header in the file and in the boot parameters.
pub const SETUP_HEADER: usize = 0x1f1;
/// The part of the file that is read as header.
pub const HEADER_LENGTH: usize = 0x280;
/// Oldest protocol with a 64-bit entry point and `xloadflags`.
const PROTOCOL: u16 = 0x20c;
/// `xloadflags`: the kernel has a 64-bit entry point at offset 0x200.
const XLF_KERNEL_64: u16 = 1;
/// Size of a sector of the setup code.
const SECTOR: u64 = 512;

/// What the header says, checked against the file.
#[derive(Clone, Debug)]
pub struct Header {
    bytes: [u8; HEADER_LENGTH],
    /// Where the protected-mode kernel starts in the file.
    pub kernel_offset: u64,
    /// Its length.
    pub kernel_length: u64,
    /// Where it wants to be loaded.
    pub preferred_address: u64,
    /// Memory that it uses from there, before it reads the memory map.
    pub init_size: u64,
    /// Longest command line without the zero.
    pub command_line_limit: u64,
    /// Last address that an initial RAM disk may occupy.
    pub initrd_last: u64,
}

impl Header {
    /// Reads and checks the header of a kernel image.
    ///
    /// # Errors
    /// The image is none, is damaged, or is too old.
    pub fn read(image: &impl Memory) -> Result<Self, Error> {
        let mut bytes = [0; HEADER_LENGTH];
        image.read(0, &mut bytes).map_err(|_| Error::NotBzImage)?;
        let field = Fields(&bytes);
        if field.u16(0x1fe) != 0xaa55 || field.u32(0x202) != u32::from_le_bytes(*b"HdrS") {
            return Err(Error::NotBzImage);
        }
        let version = field.u16(0x206);
        if version < PROTOCOL {
            return Err(Error::OldProtocol(version));
        }
        if field.u16(0x236) & XLF_KERNEL_64 == 0 {
            return Err(Error::No64Bit);
        }
        // Zero stands for four, for kernels of the last millennium.
        let sectors = match bytes[SETUP_HEADER] {
            0 => 4,
            n => u64::from(n),
        };
        let kernel_offset = (sectors + 1) * SECTOR;
        let kernel_length = u64::from(field.u32(0x1f4)) * 16;
        let header = Self {
            kernel_offset,
            kernel_length,
            preferred_address: field.u64(0x258),
            init_size: field.u32(0x260).into(),
            command_line_limit: u64::from(field.u32(0x238)).min(4095),
            initrd_last: field.u32(0x22c).into(),
            bytes,
        };
        header.check(image.len())?;
        Ok(header)
    }

    fn check(&self, length: u64) -> Result<(), Error> {
        let needed = self.kernel_offset + self.kernel_length;
        if needed > length {
            return Err(Error::Truncated { needed, length });
        }
        // The entry point is 0x200 behind the start.
        if self.kernel_length <= 0x200 {
            return Err(Error::BadHeader("size of the kernel"));
        }
        if self.init_size < self.kernel_length {
            return Err(Error::BadHeader("init_size"));
        }
        let aligned = self.preferred_address.is_multiple_of(1 << 20);
        if !aligned || !(1 << 20..1 << 31).contains(&self.preferred_address) {
            return Err(Error::BadHeader("preferred address"));
        }
        let payload = u64::from(Fields(&self.bytes).u32(0x248));
        let payload_length = u64::from(Fields(&self.bytes).u32(0x24c));
        if payload + payload_length > self.kernel_length {
            return Err(Error::BadHeader("payload"));
        }
        Ok(())
    }

    /// The setup header proper, as it is copied into the boot parameters.
    #[must_use]
    pub fn setup(&self) -> &[u8] {
        // The byte behind the jump's opcode tells where the header ends.
        let end = 0x202 + usize::from(self.bytes[0x201]);
        &self.bytes[SETUP_HEADER..end.min(HEADER_LENGTH)]
    }
}

/// Little-endian fields at fixed offsets below [`HEADER_LENGTH`].
struct Fields<'a>(&'a [u8; HEADER_LENGTH]);

impl Fields<'_> {
    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.0[offset], self.0[offset + 1]])
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset + 4)) << 32
    }
}
