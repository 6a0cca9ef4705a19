//! Owners and signals of the fake compute VM's descriptors.
use super::{File, Guest};
use linux_abi::{
    F_GETOWN, F_GETOWN_EX, F_GETSIG, F_SETFL, F_SETOWN, F_SETOWN_EX, F_SETSIG, O_ASYNC,
};

/// Who gets signals, and which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owner {
    pub pid: i32,
    pub signal: i32,
    /// The number under which `O_ASYNC` was set.
    pub number: Option<i32>,
}

/// A signal that was raised: for whom, which (zero: the default), and with which descriptor.
pub type Raised = (i32, i32, i32);

impl Guest {
    /// `fcntl` with these commands; `None`: another one.
    pub(super) fn owners(&mut self, process: usize, a: [u64; 6]) -> Option<i64> {
        let fd = a[0] as i32;
        let file = self.processes[process].files[&fd].clone();
        let mut owner = file.owner.get();
        let result = match a[1] as u32 {
            F_SETOWN => {
                owner.pid = a[2] as i32;
                0
            }
            F_SETOWN_EX => {
                let bytes = self.read(process, a[2], 8);
                owner.pid = i32::from_le_bytes(bytes[4..].try_into().unwrap());
                0
            }
            F_GETOWN => i64::from(owner.pid),
            F_GETOWN_EX => {
                self.write(process, a[2], &1_i32.to_le_bytes());
                self.write(process, a[2] + 4, &owner.pid.to_le_bytes());
                0
            }
            F_SETSIG => {
                owner.signal = a[2] as i32;
                0
            }
            F_GETSIG => i64::from(owner.signal),
            F_SETFL => {
                let on = a[2] & u64::from(O_ASYNC) != 0;
                owner.number = on.then(|| owner.number.unwrap_or(fd));
                file.flags.set(a[2]);
                0
            }
            _ => return None,
        };
        file.owner.set(owner);
        Some(result)
    }
}

/// What arrives there raises a signal.
pub(super) fn raise(file: &File, raised: &mut Vec<Raised>) {
    let Owner { pid, signal, number } = file.owner.get();
    if let (Some(number), true) = (number, pid != 0) {
        raised.push((pid, signal, number));
    }
}
