//! Shows the hypervisor the vDSO, the only code of programs that is the kernel's own: at this moment
//! nothing but kernel and initramfs has run, so what it is now is what it has to be.

use guest_sys::hypercall;
use std::fs::File;
use std::os::unix::fs::FileExt;

const PAGE: u64 = 4096;

/// The range of the vDSO in a text like `/proc/self/maps`.
fn range(maps: &str) -> Option<(u64, u64)> {
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    number(start).zip(number(end)).filter(|(start, end)| start < end)
}

/// Shows it; without it, programs that are known by their code are not trusted.
///
/// # Errors
/// What is missing.
pub fn show() -> Result<(), String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| format!("maps: {e}"))?;
    let Some((start, end)) = range(&maps) else { return Err("there is no vDSO".into()) };
    let memory = File::open("/proc/self/mem").map_err(|e| format!("memory: {e}"))?;
    for at in (start..end).step_by(PAGE as usize) {
        // It is there once it has been touched.
        memory.read_exact_at(&mut [0; 1], at).map_err(|e| format!("vDSO at {at:#x}: {e}"))?;
    }
    match hypercall::call(wire::hypercall::VDSO, [start, (end - start) / PAGE, 0]) {
        0 => Ok(()),
        error => Err(format!("the hypervisor does not take the vDSO: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vdso_is_found() {
        let maps = "7ffd0000-7ffd4000 r--p 00000000 00:00 0    [vvar]\n\
                    7ffd4000-7ffd6000 r-xp 00000000 00:00 0    [vdso]\n";
        assert_eq!(range(maps), Some((0x7ffd_4000, 0x7ffd_6000)));
        assert_eq!(range("7ffd4000 r-xp 0 00:00 0 [vdso]\n"), None);
        assert_eq!(range(""), None);
    }
}
