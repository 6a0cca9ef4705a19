//! The interrupt of a program's device.
use crate::sys;
use abi::Selector;

/// Binds the interrupt of the program's device to the notification bit that the root server has
/// set aside for it. Answers address and data of its message (MSI).
///
/// # Errors
/// What is missing in the configuration, or why the kernel refused.
pub fn bind_interrupt() -> Result<(u64, u32), &'static str> {
    let config = crate::config();
    let control = config.capability("irq").ok_or("no capability 'irq'")?;
    let notification = config.capability("notification").ok_or("no capability 'notification'")?;
    let bits = config.number("irq_bits").ok_or("no parameter 'irq_bits'")?;
    let cpu = config.number("irq_cpu").and_then(|cpu| u32::try_from(cpu).ok());
    let cpu = cpu.ok_or("no parameter 'irq_cpu'")?;
    let (address, data) = sys::irq_bind(Selector(control), Selector(notification), bits, cpu)
        .map_err(abi::Error::text)?;
    Ok((address, data as u32))
}
