use super::*;
use abi::vcpu::{Registers, VcpuState, reg};
use proptest::prelude::*;

fn access(bytes: &[u8]) -> MemoryAccess {
    memory_access(bytes, Mode::Bits64).unwrap()
}

#[test]
fn plain_instructions_with_and_without_prefixes() {
    let of = |bytes: &[u8]| plain(bytes, Mode::Bits64).unwrap();
    assert_eq!(of(&[0x0f, 0xa2]), (Plain::Cpuid, 2));
    assert_eq!(of(&[0x66, 0x0f, 0xa2]), (Plain::Cpuid, 3));
    assert_eq!(of(&[0x0f, 0x30]), (Plain::Wrmsr, 2));
    assert_eq!(of(&[0x0f, 0x32]), (Plain::Rdmsr, 2));
    assert_eq!(of(&[0xf4]), (Plain::Hlt, 1));
    assert_eq!(of(&[0x0f, 0x01, 0xd9]), (Plain::Vmmcall, 3));
    assert_eq!(of(&[0x0f, 0x05]), (Plain::Syscall, 2));
    assert_eq!(of(&[0xe6, 0x80]), (Plain::Io, 2));
    assert_eq!(of(&[0x0f, 0x09]), (Plain::CacheFlush, 2));
    assert_eq!(of(&[0xf3, 0x48, 0x0f, 0x38, 0xf6, 0xc3]), (Plain::Other, 6));
    assert_eq!(plain(&[0x66, 0x0f], Mode::Bits64), Err(Error::Short));
    assert_eq!(plain(&[], Mode::Bits64), Err(Error::Short));
    assert_eq!(plain(&[0x06; 15], Mode::Bits64), Err(Error::Invalid));
    assert_eq!(plain(&[0x66; 15], Mode::Bits64), Err(Error::Invalid));
}

#[test]
fn stores() {
    let mut registers = Registers::default();
    registers.r[reg::RCX] = 0x1122_3344_5566_7788;
    // mov [rdi+8], ecx; mov [rdi], rcx; mov [rdi], ch; mov dword [rdi], 1; mov qword [rdi], -1
    let cases: [(&[u8], u8, u64); 5] = [
        (&[0x89, 0x4f, 0x08], 4, 0x5566_7788),
        (&[0x48, 0x89, 0x0f], 8, 0x1122_3344_5566_7788),
        (&[0x88, 0x2f], 1, 0x77),
        (&[0xc7, 0x07, 1, 0, 0, 0], 4, 1),
        (&[0x48, 0xc7, 0x07, 0xff, 0xff, 0xff, 0xff], 8, u64::MAX),
    ];
    for (bytes, width, value) in cases {
        let access = access(bytes);
        assert_eq!((access.width, access.length), (width, bytes.len() as u64));
        assert_eq!(access.stored(&registers), Some(value));
    }
}

#[test]
fn loads_extend_as_the_processor_does() {
    let load = |bytes: &[u8], value| {
        let mut registers = Registers::default();
        registers.r[reg::RAX] = u64::MAX;
        let access = access(bytes);
        assert_eq!(access.stored(&registers), None);
        access.loaded(&mut registers, value);
        registers.r[reg::RAX]
    };
    assert_eq!(load(&[0x8b, 0x07], 0x8000_0001), 0x8000_0001);
    assert_eq!(load(&[0x66, 0x8b, 0x07], 0x1234), 0xffff_ffff_ffff_1234);
    assert_eq!(load(&[0x8a, 0x27], 0x12), 0xffff_ffff_ffff_12ff);
    assert_eq!(load(&[0x0f, 0xb6, 0x07], 0x80), 0x80);
    assert_eq!(load(&[0x48, 0x0f, 0xbe, 0x07], 0x80), 0xffff_ffff_ffff_ff80);
    assert_eq!(load(&[0x48, 0x63, 0x07], 0x8000_0000), 0xffff_ffff_8000_0000);
    assert_eq!(load(&[0xa1, 0, 0, 0, 0xe0, 0, 0, 0, 0], 7), 7);
}

#[test]
fn writes_of_cr0() {
    let mut registers = Registers::default();
    registers.r[reg::R9] = 0x8005_0033;
    // mov cr0, r9
    let (from, length) = write_of_cr0(&[0x41, 0x0f, 0x22, 0xc1], Mode::Bits64).unwrap();
    assert_eq!((from.get(&registers), length), (0x8005_0033, 4));
    // mov cr4, rax; mov rax, cr0; lmsw ax
    for bytes in [&[0x0f, 0x22, 0xe0], &[0x0f, 0x20, 0xc0], &[0x0f, 0x01, 0xf0]] {
        assert_eq!(write_of_cr0(bytes, Mode::Bits64), Err(Error::Unsupported));
    }
}

#[test]
fn string_instructions_that_write() {
    let of = |bytes: &[u8]| string_write(bytes, Mode::Bits64);
    let string =
        |length, width, copies, repeated| Ok(StringWrite { length, width, copies, repeated });
    // rep stosq; stosb; rep movsb; movsd; rep movsq
    assert_eq!(of(&[0xf3, 0x48, 0xab]), string(3, 8, false, true));
    assert_eq!(of(&[0xaa]), string(1, 1, false, false));
    assert_eq!(of(&[0xf3, 0xa4]), string(2, 1, true, true));
    assert_eq!(of(&[0xa5]), string(1, 4, true, false));
    assert_eq!(of(&[0xf3, 0x48, 0xa5]), string(3, 8, true, true));
    // movsd [rdi], xmm0; fs movsb; addr32 stosb; mov [rdi], eax
    for bytes in [&[0xf2, 0x0f, 0x11, 0x07][..], &[0x64, 0xa4], &[0x67, 0xaa], &[0x89, 0x07]] {
        assert_eq!(of(bytes), Err(Error::Unsupported), "{bytes:x?}");
    }
}

#[test]
fn addresses_of_operands() {
    let mut state = VcpuState { rip: 0x1000, ..VcpuState::ZERO };
    state.regs.r[reg::RDI] = 0x2000;
    state.regs.r[reg::RCX] = 3;
    state.segments[5].base = 0x7000;
    let of = |bytes: &[u8]| operand_address(bytes, &state);
    // mov [rdi+rcx*8+4], eax; mov [rip+0x10], eax; gs mov [rcx], eax; mov eax, ecx
    assert_eq!(of(&[0x89, 0x44, 0xcf, 0x04]), Some(0x201c));
    assert_eq!(of(&[0x89, 0x05, 0x10, 0, 0, 0]), Some(0x1016));
    assert_eq!(of(&[0x65, 0x89, 0x01]), Some(0x7003));
    assert_eq!(of(&[0x89, 0xc8]), None);
}

#[test]
fn others_are_refused() {
    // add [rdi], ecx; rep movsb; movaps [rdi], xmm0; mov eax, ecx; push [rdi]; mov es, [rdi]
    let cases: [&[u8]; 6] = [
        &[0x01, 0x0f],
        &[0xf3, 0xa4],
        &[0x0f, 0x29, 0x07],
        &[0x89, 0xc8],
        &[0xff, 0x37],
        &[0x8e, 0x07],
    ];
    for bytes in cases {
        assert_eq!(memory_access(bytes, Mode::Bits64), Err(Error::Unsupported), "{bytes:x?}");
    }
}

#[test]
fn modes_of_code_segments() {
    assert_eq!(Mode::of(1 << 10, 0xa9b), Mode::Bits64);
    assert_eq!(Mode::of(1 << 10, 0xc9b), Mode::Bits32);
    assert_eq!(Mode::of(0, 0xa9b), Mode::Bits16);
    assert_eq!(Mode::of(0, 0x9b), Mode::Bits16);
}

proptest! {
    /// Hostile bytes: an answer or an error, and a length that is not beyond the bytes.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..20), mode in 0u8..3) {
        let mode = [Mode::Bits16, Mode::Bits32, Mode::Bits64][usize::from(mode)];
        if let Ok((_, length)) = plain(&bytes, mode) {
            prop_assert!(length >= 1 && length <= bytes.len().min(MAX_LENGTH) as u64);
        }
        let _ = operand_address(&bytes, &VcpuState::ZERO);
        if let Ok(string) = string_write(&bytes, mode) {
            prop_assert!(string.length <= bytes.len() as u64);
        }
        if let Ok(access) = memory_access(&bytes, mode) {
            prop_assert!(access.length <= bytes.len() as u64);
            let mut registers = Registers { r: [0x0123_4567_89ab_cdef; 16] };
            let before = registers;
            access.loaded(&mut registers, u64::MAX);
            let changed = registers.r.iter().zip(&before.r).filter(|(a, b)| a != b).count();
            prop_assert!(changed <= 1);
            if access.stored(&before).is_some() {
                prop_assert_eq!(changed, 0);
            }
        }
    }

    /// The short way agrees with the decoder.
    #[test]
    fn common_forms_agree(bytes in prop::collection::vec(any::<u8>(), 15), first in 0usize..6) {
        let starts: [&[u8]; 6] =
            [&[0xf4], &[0x0f, 0xa2], &[0x0f, 0x32], &[0x0f, 0x30], &[0x0f, 1, 0xd9], &[0x0f, 5]];
        let mut bytes = bytes;
        bytes[..starts[first].len()].copy_from_slice(starts[first]);
        let (_, length) = common(&bytes).unwrap();
        prop_assert_eq!(instruction(&bytes, Mode::Bits64).unwrap().len() as u64, length);
    }
}
