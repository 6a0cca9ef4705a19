//! Where everything lies in the window that hypervisor and guest share: one 2 MiB page of the
//! guest's address space, of which only these parts have memory behind them.

/// The code: the guest executes it.
pub const CODE: u64 = 0;
/// Bytes of code at most.
pub const CODE_LENGTH: usize = 4096;
/// Two registers of the call that is being looked at: the guest writes here.
pub const SCRATCH: u64 = 0x1000;
/// Place of RAX in the scratch page.
pub const SAVED_RAX: u64 = SCRATCH;
/// Place of RDX in the scratch page.
pub const SAVED_RDX: u64 = SCRATCH + 8;
/// The tables: the guest reads them.
pub const DATA: u64 = 0x2000;
/// Bytes of the tables.
pub const DATA_LENGTH: u64 = 0x13000;

/// In the tables: non-zero makes every call exit (32 bits).
pub const ALL: u64 = 0;
/// In the tables: a [`Look`](super::Look) for each call number below [`NUMBERS`], a byte each.
pub const LOOKS: u64 = 0x200;
/// Numbers that have one; higher ones always exit.
pub const NUMBERS: u64 = 512;
/// In the tables: watched page-table roots, by hash; each with the place of its record.
pub const BUCKETS: u64 = 0x1000;
/// Number of buckets.
pub const BUCKET_COUNT: u64 = 512;
/// Bytes of a bucket: the root's page number (64 bits), offset of the record (32 bits).
pub const BUCKET: u64 = 16;
/// In the tables: records.
pub const RECORDS: u64 = 0x3000;
/// Records at most. With half of the buckets empty, every search ends soon.
pub const RECORD_COUNT: usize = 256;
/// Bytes of a record.
pub const RECORD: u64 = 256;

/// In a record: non-zero makes every call exit (32 bits).
pub const RECORD_ALWAYS: u64 = 0;
/// In a record: lowest descriptor that is looked at; all ones without any (32 bits).
pub const RECORD_LOWEST: u64 = 4;
/// In a record: non-zero when a descriptor beyond the bitmap is looked at (32 bits).
pub const RECORD_HIGH: u64 = 8;
/// In a record: non-zero when some descriptor is, or may become, remote (32 bits).
pub const RECORD_ANY: u64 = 12;
/// In a record: non-zero when calls about paths are looked at (32 bits).
pub const RECORD_PATHS: u64 = 16;
/// In a record: a bit for each descriptor that is looked at.
pub const RECORD_BITMAP: u64 = 64;
/// Descriptors in the bitmap.
pub const DESCRIPTORS: u32 = 1024;

const _: () = assert!(BUCKETS >= LOOKS + NUMBERS && RECORDS == BUCKETS + BUCKET_COUNT * BUCKET);
const _: () = assert!(RECORDS + RECORD_COUNT as u64 * RECORD == DATA_LENGTH);
const _: () = assert!(RECORD_BITMAP + (DESCRIPTORS / 8) as u64 <= RECORD);
