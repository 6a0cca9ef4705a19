//! No SSE instruction, nothing both writable and executable.
use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Register};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSection, SectionFlags, elf};
use std::path::{Path, PathBuf};

fn images() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("workspace");
    let folder = |group: &str| -> PathBuf {
        root.join("target-native").join(group).join("x86_64-unknown-linux-gnu/native")
    };
    let mut images = vec![("kernel".to_owned(), folder("kernel").join("kernel"))];
    for name in ["root", "anon", "image", "swap", "shared", "device", "link", "net", "relay", "vmm"]
    {
        images.push((name.to_owned(), folder("programs").join(name)));
    }
    images
        .into_iter()
        .map(|(name, path)| {
            let bytes = std::fs::read(&path)
                .unwrap_or_else(|e| panic!("{}: {e}; run cargo xtask build", path.display()));
            (name, bytes)
        })
        .collect()
}

/// True for registers that a switch of threads does not save: x87, MMX, SSE, AVX.
fn is_vector(register: Register) -> bool {
    register.is_vector_register() || register.is_mm() || register.is_st()
}

/// Address and instruction of each use of such a register in the executable sections. Saving and
/// restoring all of them (FXSAVE, XSAVE) names none.
fn vector_instructions(bytes: &[u8]) -> Vec<String> {
    let file = ElfFile64::<Endianness>::parse(bytes).expect("an ELF file");
    let mut factory = InstructionInfoFactory::new();
    let mut found = Vec::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(elf::SHF_EXECINSTR) == 0 {
            continue;
        }
        let code = section.data().expect("code");
        let mut decoder = Decoder::with_ip(64, code, section.address(), DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let info = factory.info(&instruction);
            let state = matches!(
                instruction.mnemonic(),
                iced_x86::Mnemonic::Fninit
                    | iced_x86::Mnemonic::Fxsave64
                    | iced_x86::Mnemonic::Fxrstor64
                    | iced_x86::Mnemonic::Fxsave
                    | iced_x86::Mnemonic::Fxrstor
            );
            if !state && info.used_registers().iter().any(|used| is_vector(used.register())) {
                found.push(format!("{:#x}: {:?}", instruction.ip(), instruction.code()));
            }
        }
    }
    found
}

#[test]
fn no_image_uses_vector_registers() {
    for (name, bytes) in images() {
        let found = vector_instructions(&bytes);
        assert!(
            found.is_empty(),
            "{name} has {} such instructions, first:\n{}",
            found.len(),
            found[..found.len().min(10)].join("\n")
        );
    }
}

#[test]
fn no_segment_is_writable_and_executable() {
    for (name, bytes) in images() {
        let file = ElfFile64::<Endianness>::parse(bytes.as_slice()).expect("an ELF file");
        let endian = file.endian();
        let headers = file.elf_header().program_headers(endian, bytes.as_slice()).expect("headers");
        let mut loads = 0;
        for header in headers.iter().filter(|h| h.p_type(endian) == elf::PT_LOAD) {
            loads += 1;
            let flags = header.p_flags(endian);
            let both = elf::PF_W | elf::PF_X;
            assert!(
                flags & both != both,
                "{name}: the segment at {:#x} is writable and executable",
                header.p_vaddr(endian)
            );
        }
        assert!(loads > 0, "{name} has nothing to load");
    }
}

#[test]
fn the_kernel_can_be_started_by_qemu() {
    let images = images();
    let (_, bytes) = &images[0];
    let file = ElfFile64::<Endianness>::parse(bytes.as_slice()).expect("an ELF file");
    let endian = file.endian();
    let headers = file.elf_header().program_headers(endian, bytes.as_slice()).expect("headers");
    let note = headers.iter().any(|header| {
        let Ok(Some(mut notes)) = header.notes(endian, bytes.as_slice()) else { return false };
        // XEN_ELFNOTE_PHYS32_ENTRY, which QEMU's `-kernel` looks for.
        std::iter::from_fn(|| notes.next().ok().flatten())
            .any(|note| note.name() == b"Xen" && note.n_type(endian) == 18)
    });
    assert!(note, "the kernel has no PVH entry note");
}
