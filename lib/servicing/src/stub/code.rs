//! The stub's machine code (AMD APM volume 3 for the encodings). It runs in the guest's kernel mode,
//! on the program's stack pointer, with interrupts masked; it uses RAX and RDX, which it keeps in
//! the scratch page, and flags, which `SYSCALL` has put into R11.
use super::layout as at;
use super::look::Look;
use alloc::vec::Vec;

/// The stub for one place and one entry of the guest's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Code {
    /// Instructions, for the beginning of the window.
    pub bytes: Vec<u8>,
    /// Offset of the `VMMCALL`.
    pub exit: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Label {
    Probe,
    Found,
    Local,
    Exit,
    /// Where the test of that condition ends.
    Behind(u8),
    /// Where the bitmap is read for that argument.
    Bitmap(u8),
}

/// Condition codes of `Jcc`.
const BELOW: u8 = 0x2;
const NOT_BELOW: u8 = 0x3;
const EQUAL: u8 = 0x4;
const NOT_EQUAL: u8 = 0x5;
const SIGN: u8 = 0x8;

/// Numbers of registers in ModRM.
const RAX: u8 = 0;
const RDX: u8 = 2;

struct Assembler {
    /// Address of the window, as the sign-extended displacement of its low half.
    window: u32,
    bytes: Vec<u8>,
    labels: Vec<(Label, usize)>,
    /// Places of 32-bit distances, and what they lead to.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An address in the window as a displacement.
    fn place(&mut self, offset: u64) {
        let address = self.window.wrapping_add(offset as u32);
        self.put(&address.to_le_bytes());
    }

    fn label(&mut self, label: Label) {
        self.labels.push((label, self.bytes.len()));
    }

    fn distance(&mut self, to: Label) {
        self.jumps.push((self.bytes.len(), to));
        self.put(&[0; 4]);
    }

    fn jump(&mut self, to: Label) {
        self.put(&[0xe9]);
        self.distance(to);
    }

    fn jump_if(&mut self, condition: u8, to: Label) {
        self.put(&[0x0f, 0x80 | condition]);
        self.distance(to);
    }

    /// `MOV [place], r64` (0x89) or `MOV r64, [place]` (0x8b), with an absolute address.
    fn move_saved(&mut self, opcode: u8, register: u8, offset: u64) {
        self.put(&[0x48, opcode, 0x04 | register << 3, 0x25]);
        self.place(offset);
    }

    fn restore(&mut self) {
        self.move_saved(0x8b, RDX, at::SAVED_RDX);
        self.move_saved(0x8b, RAX, at::SAVED_RAX);
    }

    /// `CMP dword [RDX + place], 0`: RDX holds the record's offset.
    fn field_is_set(&mut self, field: u64) {
        self.put(&[0x83, 0xb8 | RDX]);
        self.place(at::DATA + at::RECORDS + field);
        self.put(&[0]);
    }

    /// `TEST AL, bits`.
    fn test(&mut self, bits: u8) {
        self.put(&[0xa8, bits]);
    }

    fn resolve(mut self) -> Option<(Vec<u8>, u64)> {
        for (place, to) in &self.jumps {
            let (_, target) = self.labels.iter().find(|(label, _)| label == to)?;
            let distance = *target as i64 - (*place as i64 + 4);
            let distance = i32::try_from(distance).ok()?;
            self.bytes.get_mut(*place..place + 4)?.copy_from_slice(&distance.to_le_bytes());
        }
        let (_, exit) = self.labels.iter().find(|(label, _)| *label == Label::Exit)?;
        // The exit restores two registers first.
        let exit = *exit as u64 + 16;
        Some((self.bytes, exit))
    }
}

/// `REX` and ModRM number of the argument registers that can be compared: RDI, RSI, R10, R8.
const ARGUMENTS: [(u8, bool, u8); 4] = [
    (Look::DESCRIPTOR[0], false, 7),
    (Look::DESCRIPTOR[1], false, 6),
    (Look::DESCRIPTOR[3], true, 2),
    (Look::DESCRIPTOR[4], true, 0),
];

/// The stub for a window at `window`, in front of the guest's entry. `None` where they lie too far
/// apart, or the window is not in the last 2 GiB.
#[must_use]
pub fn generate(window: u64, entry: u64) -> Option<Code> {
    let low = window as u32;
    if i64::from(low as i32) as u64 != window {
        return None;
    }
    let mut a = Assembler { window: low, bytes: Vec::new(), labels: Vec::new(), jumps: Vec::new() };
    a.move_saved(0x89, RAX, at::SAVED_RAX);
    a.move_saved(0x89, RDX, at::SAVED_RDX);
    search(&mut a);
    conditions(&mut a);
    a.label(Label::Local);
    a.restore();
    a.put(&[0xe9]);
    let behind = window.wrapping_add(a.bytes.len() as u64 + 4);
    let distance = i32::try_from(entry.wrapping_sub(behind) as i64).ok()?;
    a.put(&distance.to_le_bytes());
    a.label(Label::Exit);
    a.restore();
    a.put(&[0x0f, 0x01, 0xd9]); // vmmcall
    a.put(&[0x0f, 0x0b]); // ud2: nobody comes back here
    let (bytes, exit) = a.resolve()?;
    (bytes.len() <= at::CODE_LENGTH).then_some(Code { bytes, exit })
}

/// Looks for the page-table root. Leads to `Local` when it is not watched; at `Found` RDX is the
/// offset of its record.
fn search(a: &mut Assembler) {
    a.put(&[0x0f, 0x20, 0xd8]); // mov rax, cr3
    a.put(&[0x83, 0x3c, 0x25]); // cmp dword [ALL], 0
    a.place(at::DATA + at::ALL);
    a.put(&[0]);
    a.jump_if(NOT_EQUAL, Label::Exit);
    let mask = ((at::BUCKET_COUNT - 1) * at::BUCKET) as u32;
    a.put(&[0x48, 0xc1, 0xe8, 12]); // shr rax, 12
    a.put(&[0x89, 0xc2]); // mov edx, eax
    a.put(&[0xc1, 0xe2, at::BUCKET.trailing_zeros() as u8]); // shl edx, 4
    a.put(&[0x81, 0xe2]); // and edx, mask
    a.put(&mask.to_le_bytes());
    a.label(Label::Probe);
    a.put(&[0x48, 0x83, 0xb8 | RDX]); // cmp qword [rdx + BUCKETS], 0
    a.place(at::DATA + at::BUCKETS);
    a.put(&[0]);
    a.jump_if(EQUAL, Label::Local);
    a.put(&[0x48, 0x39, 0x80 | RAX << 3 | RDX]); // cmp [rdx + BUCKETS], rax
    a.place(at::DATA + at::BUCKETS);
    a.jump_if(EQUAL, Label::Found);
    a.put(&[0x83, 0xc2, at::BUCKET as u8]); // add edx, 16
    a.put(&[0x81, 0xe2]); // and edx, mask
    a.put(&mask.to_le_bytes());
    a.jump(Label::Probe);
    a.label(Label::Found);
    a.put(&[0x8b, 0x80 | RDX << 3 | RDX]); // mov edx, [rdx + BUCKETS + 8]
    a.place(at::DATA + at::BUCKETS + 8);
}

/// Tests what the call's [`Look`] asks for, and falls through when nothing of it holds.
fn conditions(a: &mut Assembler) {
    a.field_is_set(at::RECORD_ALWAYS);
    a.jump_if(NOT_EQUAL, Label::Exit);
    a.move_saved(0x8b, RAX, at::SAVED_RAX);
    a.put(&[0x48, 0x3d]); // cmp rax, NUMBERS
    a.put(&(at::NUMBERS as u32).to_le_bytes());
    a.jump_if(NOT_BELOW, Label::Exit);
    a.put(&[0x0f, 0xb6, 0x80]); // movzx eax, byte [rax + LOOKS]
    a.place(at::DATA + at::LOOKS);
    a.put(&[0x84, 0xc0]); // test al, al
    a.jump_if(EQUAL, Label::Local);
    a.jump_if(SIGN, Label::Exit);
    a.test(Look::ANY);
    a.jump_if(EQUAL, Label::Behind(Look::ANY));
    a.field_is_set(at::RECORD_ANY);
    a.jump_if(NOT_EQUAL, Label::Exit);
    a.label(Label::Behind(Look::ANY));
    a.test(Look::PATHS);
    a.jump_if(EQUAL, Label::Behind(Look::PATHS));
    a.field_is_set(at::RECORD_PATHS);
    a.jump_if(NOT_EQUAL, Label::Exit);
    a.label(Label::Behind(Look::PATHS));
    a.test(Look::HIGHEST);
    a.jump_if(EQUAL, Label::Behind(Look::HIGHEST));
    a.put(&[0x39, 0x80 | 7 << 3 | RDX]); // cmp [rdx + LOWEST], edi
    a.place(at::DATA + at::RECORDS + at::RECORD_LOWEST);
    a.jump_if(BELOW, Label::Exit);
    a.label(Label::Behind(Look::HIGHEST));
    for (bit, extended, register) in ARGUMENTS {
        descriptor(a, bit, extended, register);
    }
}

/// Exits when the descriptor in a register is looked at. Negative numbers name no descriptor.
fn descriptor(a: &mut Assembler, bit: u8, extended: bool, register: u8) {
    let rex = |a: &mut Assembler, prefix: u8| {
        if extended {
            a.put(&[prefix]);
        }
    };
    a.test(bit);
    a.jump_if(EQUAL, Label::Behind(bit));
    rex(a, 0x41);
    a.put(&[0x81, 0xf8 | register]); // cmp r32, DESCRIPTORS
    a.put(&at::DESCRIPTORS.to_le_bytes());
    a.jump_if(BELOW, Label::Bitmap(bit));
    rex(a, 0x45);
    a.put(&[0x85, 0xc0 | register << 3 | register]); // test r32, r32
    a.jump_if(SIGN, Label::Behind(bit));
    a.field_is_set(at::RECORD_HIGH);
    a.jump_if(NOT_EQUAL, Label::Exit);
    a.jump(Label::Behind(bit));
    a.label(Label::Bitmap(bit));
    rex(a, 0x44);
    a.put(&[0x0f, 0xa3, 0x80 | register << 3 | RDX]); // bt [rdx + BITMAP], r32
    a.place(at::DATA + at::RECORDS + at::RECORD_BITMAP);
    a.jump_if(BELOW, Label::Exit);
    a.label(Label::Behind(bit));
}
