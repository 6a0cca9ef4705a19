//! Whose code a process is: page tables that a hostile kernel wrote, and root images that are damaged.
//!
//! Promised: a connection is granted exactly where a plain walk of the same tables, written once more
//! here, finds nothing but the program's code; the reader of images ends, and names no bytes outside.
use abi::vcpu::VcpuState;
use arbitrary::{Arbitrary, Unstructured};
use erofs::{Image, Inode};
use linux_abi::nr;
use memory::Memory;
use paging::{Access, PAGE, Space, TABLES};
use policy::{Extent, Policy, Program};
use servicing::fake::address;
use servicing::fake::guest::{CODE, DATA, Guest, IMAGE};
use wire::hypercall::TRUST;

/// Of the image, the program's own pages and those of libraries; all others are other files'.
const OWN: u64 = 2;
const LIBRARIES: std::ops::Range<u64> = 500..520;

/// Page tables, or an image.
pub fn target(bytes: &[u8]) {
    match bytes.split_first() {
        Some((kind, rest)) if kind % 4 == 3 => image(rest),
        Some((_, rest)) => tables(rest),
        None => {}
    }
}

// ----- page tables -----

/// A write of the hostile kernel: what, and into which entry on the way to which address.
#[derive(Arbitrary, Debug)]
struct Edit {
    address: u8,
    level: u8,
    to: To,
    flags: u8,
}

#[derive(Arbitrary, Debug)]
enum To {
    Image(u16),
    Memory(u8),
    /// A new table, where there is none.
    Table,
    /// One that is there: loops, and tables that are shared.
    Root,
    OfCode(u8),
    Anything(u64),
}

struct Hostile {
    g: Guest,
    root: u64,
    /// Where what the harness itself needs is mapped; runs end where that changes.
    fixed: Vec<(u64, u64, Access)>,
}

fn tables(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Some(mut hostile) = Hostile::start() else { return };
    for _ in 0..24 {
        let Ok(edit) = Edit::arbitrary(&mut input) else { break };
        hostile.edit(&edit);
        if input.ratio(1, 3).unwrap_or(true) && !hostile.grants_by_the_rules() {
            return;
        }
    }
    hostile.grants_by_the_rules();
}

impl Hostile {
    /// A trusted program that has made its first calls.
    fn start() -> Option<Self> {
        let extent = |first, pages| vec![Extent { first, pages }];
        let mut curl = Program::with_defaults("/usr/bin/curl");
        curl.code.own = extent(0, OWN as u32);
        let pages = LIBRARIES.end - LIBRARIES.start;
        let libraries = extent(LIBRARIES.start as u32, pages as u32);
        let mut g = Guest::with_policy(Policy { programs: vec![curl], libraries });
        let p = g.start(b"/launcher");
        g.hypercall(p, TRUST, 0);
        g.write(p, DATA, b"/usr/bin/curl\0");
        g.call(p, nr::execve, &[DATA, 0, 0]);
        assert!(g.call(p, nr::socket, &[2, 1, 0]) >= 0);
        let root = g.cr3(p)?;
        let tables = Space::running(&g.world.compute, root);
        let find = |at| {
            let accesses = [Access::Write, Access::Execute].into_iter();
            let found =
                accesses.map(|access| Some((at, tables.find(at, access).ok()?.physical, access)));
            found.flatten().next()
        };
        let used = (DATA..DATA + 8 * PAGE).chain(0x1000_0000..0x1010_0000);
        let stack = 0x7fff_ffff_c000..0x7fff_ffff_f000;
        let fixed = used.chain(stack).step_by(PAGE as usize).filter_map(find).collect();
        Some(Self { g, root, fixed })
    }

    fn word(&self, at: u64) -> u64 {
        self.g.world.compute.read64(at).unwrap_or(0)
    }

    /// Addresses that share tables with each other, one of them with the program.
    fn edit(&mut self, edit: &Edit) {
        let address = match edit.address {
            0 => CODE,
            n @ 1..=63 => 0x7000_0000 + u64::from(n) * PAGE,
            n => (u64::from(n) << 39 & 0x7f80_0000_0000) + u64::from(n & 7) * PAGE,
        };
        let mut at = self.root + (address >> 39 & 511) * 8;
        for level in 0..3 - u64::from(edit.level % 4).min(3) {
            let entry = self.word(at);
            if entry & 1 == 0 {
                break;
            }
            at = (entry & ADDRESS) + (address >> (30 - 9 * level) & 511) * 8;
        }
        // Bit by bit: writable, a program's, large, not executable; and present, mostly.
        let flag = |bit: u8, value: u64| if edit.flags >> bit & 1 != 0 { value } else { 0 };
        let flags = flag(0, 2) | flag(1, 4) | flag(2, 1 << 7) | flag(3, 1 << 63) | flag(4, 4);
        let value = match edit.to {
            To::Image(page) => IMAGE.start + u64::from(page % 2100) * PAGE,
            To::Memory(frame) => u64::from(frame) * PAGE,
            To::Table => self.g.frame(),
            To::Root => self.root,
            To::OfCode(level) => self.table_of_code(level),
            To::Anything(value) => value,
        };
        let present = u64::from(edit.flags >> 5 != 7);
        let _ = self.g.world.compute.write(at, &(value | flags | present).to_le_bytes());
    }

    fn table_of_code(&self, level: u8) -> u64 {
        let steps = (0..u64::from(level % 4)).map(|n| 39 - 9 * n);
        steps.fold(self.root, |table, shift| self.word(table + (CODE >> shift & 511) * 8) & ADDRESS)
    }

    /// False where the run has to end.
    fn grants_by_the_rules(&mut self) -> bool {
        let tables = Space::running(&self.g.world.compute, self.root);
        let there = |(at, physical, access): &(u64, u64, Access)| {
            tables.find(*at, *access).is_ok_and(|found| found.physical == *physical)
        };
        // The fake program executes what is there, and no processor goes on where nothing can be executed.
        let mut code = [0; 2];
        let calls = tables.fetch(CODE, &mut code).is_ok() && code == [0x0f, 0x05];
        if !calls || !self.fixed.iter().all(there) {
            return false;
        }
        let gate = self.fixed.iter().find(|(.., access)| *access == Access::Execute);
        let mut plain = Plain {
            memory: &self.g.world.compute,
            gate: gate.map_or(0, |(at, ..)| *at),
            left: TABLES.into(),
            own: false,
        };
        let sound = plain.table(self.root, 39, 0, true) && plain.own;
        let before: VcpuState = self.g.s;
        let fd = self.g.call(0, nr::socket, &[2, 1, 0]);
        if fd < 0 {
            return false;
        }
        self.g.write(0, DATA, &address([10, 0, 2, 2], 80));
        let result = self.g.call(0, nr::connect, &[fd as u64, DATA, 16]);
        assert_eq!(result == 0, sound, "connect: {result} at {:#x}", before.rip);
        result == 0
    }
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The rules, said as plainly as can be.
struct Plain<'p, M> {
    memory: &'p M,
    gate: u64,
    left: u64,
    own: bool,
}

impl<M: Memory> Plain<'_, M> {
    /// True when all that can be executed through this table may be.
    fn table(&mut self, table: u64, shift: u32, base: u64, writable: bool) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        // At once: one by one, a circle of tables would take a second.
        let mut bytes = [0; PAGE as usize];
        if self.memory.read(table, &mut bytes).is_err() {
            return false;
        }
        let (entries, _) = bytes.as_chunks::<8>();
        (0..).zip(entries.iter().take(if shift == 39 { 256 } else { 512 })).all(|(n, entry)| {
            let entry = u64::from_le_bytes(*entry);
            if entry & 1 == 0 || entry & 4 == 0 || entry >> 63 != 0 {
                return true;
            }
            let (address, writable) = (base + (n << shift), writable && entry & 2 != 0);
            match (shift, entry & 1 << 7 != 0) {
                (39, true) => false,
                (12, _) | (_, true) => self.page(entry & ADDRESS, shift, address, writable),
                _ => self.table(entry & ADDRESS, shift - 9, address, writable),
            }
        })
    }

    fn page(&mut self, physical: u64, shift: u32, address: u64, writable: bool) -> bool {
        let physical = physical >> shift << shift;
        if writable {
            return false;
        }
        if shift == 12 && address == self.gate && !IMAGE.contains(&physical) {
            return true;
        }
        (0..1 << (shift - 12)).all(|n| {
            let at = physical + n * PAGE;
            let page = at.wrapping_sub(IMAGE.start) / PAGE;
            let is_own = IMAGE.contains(&at) && page < OWN;
            self.own |= is_own;
            is_own || IMAGE.contains(&at) && LIBRARIES.contains(&page)
        })
    }
}

// ----- images -----

/// A superblock with the right magic in front of anything.
fn image(bytes: &[u8]) {
    let mut disk = vec![0; 1024];
    let (head, rest) = bytes.split_at(bytes.len().min(8));
    let mut superblock = [0; 128];
    superblock[..4].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
    // Blocks of 512 bytes to 8 KiB, now and then of a size that makes no sense.
    let byte = |n: usize| head.get(n).copied().unwrap_or(0);
    superblock[12] = if byte(0) > 250 { byte(0) } else { 9 + byte(0) % 5 };
    superblock[14] = byte(1) % 64;
    superblock[40] = if byte(2) > 250 { byte(2) } else { 0 };
    disk.extend(superblock);
    disk.extend(rest);
    let Ok(image) = Image::open(disk.as_slice()) else { return };
    for path in [&b"/a"[..], b"/a/a/../b", b"/b/c", b"/"] {
        if let Ok(inode) = image.find(path) {
            inspect(&image, &inode);
        }
    }
    let mut folders: Vec<Inode> = image.root().into_iter().collect();
    for _ in 0..32 {
        let Some(folder) = folders.pop() else { break };
        for entry in image.list(&folder).unwrap_or_default().iter().take(32) {
            let Ok(inode) = image.inode(entry.number) else { continue };
            inspect(&image, &inode);
            folders.push(inode);
        }
    }
}

fn inspect(image: &Image<'_, [u8]>, inode: &Inode) {
    if let Ok(place) = image.place(inode) {
        let end = place.checked_add(inode.size);
        assert!(end.is_some_and(|end| end <= image.length()), "{inode:?} at {place}");
    }
    let mut bytes = [0; 64];
    for offset in [0, inode.size / 2, inode.size, u64::MAX - 8] {
        if image.read(inode, offset, &mut bytes).is_ok() {
            assert!(offset.checked_add(64).is_some_and(|end| end <= inode.size), "{inode:?}");
        }
    }
    if let Ok(target) = image.target(inode) {
        assert_eq!(target.len() as u64, inode.size);
    }
}
