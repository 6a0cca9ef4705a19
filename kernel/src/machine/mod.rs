//! The machine layer: everything that needs `unsafe` or privileged instructions, behind safe
//! functions. Nothing outside this folder contains `unsafe`.
pub mod acpi;
pub mod apic;
pub mod boot;
pub mod cpu;
pub mod entry;
mod frames;
mod heap;
pub mod image;
pub mod lock;
mod mem;
mod multiboot;
mod panic;
pub mod phys;
pub mod port;
mod pvh;
pub mod serial;
pub mod smp;
pub mod svm;
pub mod table;
pub mod time;
pub mod tlb;
pub mod trace;
pub mod vcpu;

pub use frames::FramePool;
pub use heap::init as init_heap;
pub use panic::{give_up, shut_down};
