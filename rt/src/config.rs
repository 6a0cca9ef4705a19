//! The program's configuration.
use alloc::string::String;
use spin::Once;
use system::{CONFIG_ADDRESS, Config};

static CONFIG: Once<Config> = Once::new();

/// The program's configuration; empty in the root server until it installs its own.
pub fn config() -> &'static Config {
    CONFIG.call_once(Config::default)
}

/// What the program was started with: none for the programs of the system description.
pub fn arguments() -> &'static [String] {
    &config().arguments
}

/// Sets the configuration of the root server, which nobody hands one to.
pub fn install(config: Config) {
    CONFIG.call_once(|| config);
}

/// Sets up heap and configuration from the configuration page, where there is one.
pub(crate) fn start() {
    if CONFIG.is_completed() {
        return;
    }
    let Some(length) = mapped() else { return };
    // The heap comes first, because decoding needs one: a fixed header tells where it is.
    let word = |n: u64| {
        // SAFETY: `mapped` found the page in the region map; it is read-only and never changes.
        unsafe { core::ptr::read_volatile((CONFIG_ADDRESS + n * 8) as *const u64) }
    };
    crate::heap::add_first(word(0), word(1));
    let rest = (length - 16) as usize;
    // SAFETY: as above, for all of the region.
    let bytes = unsafe { core::slice::from_raw_parts((CONFIG_ADDRESS + 16) as *const u8, rest) };
    CONFIG.call_once(|| match system::decode(bytes) {
        Ok(config) => config,
        Err(_) => panic!("the configuration of this program is malformed"),
    });
    crate::heap::tell_in(crate::Shared::region(system::HEAP_REGION));
}

/// Length of the region with the configuration, where there is one.
fn mapped() -> Option<u64> {
    let region = crate::regions::around(CONFIG_ADDRESS, 1)?;
    (region.base.0 == CONFIG_ADDRESS).then_some(region.length)
}
