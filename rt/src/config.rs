//! The program's configuration.
use spin::Once;
use system::{CONFIG_ADDRESS, CONFIG_LIMIT, Config};

static CONFIG: Once<Config> = Once::new();

/// The program's configuration; empty in the root server until it installs its own.
pub fn config() -> &'static Config {
    CONFIG.call_once(Config::default)
}

/// Sets the configuration of the root server, which nobody hands one to.
pub fn install(config: Config) {
    CONFIG.call_once(|| config);
}

/// Sets up heap and configuration from the configuration page, where there is one.
pub(crate) fn start() {
    if !mapped() || CONFIG.is_completed() {
        return;
    }
    // The heap comes first, because decoding needs one: a fixed header tells where it is.
    let word = |n: u64| {
        // SAFETY: `mapped` found the page in the region map; it is read-only and never changes.
        unsafe { core::ptr::read_volatile((CONFIG_ADDRESS + n * 8) as *const u64) }
    };
    crate::heap::add_first(word(0), word(1));
    let length = (CONFIG_LIMIT - 16) as usize;
    // SAFETY: as above; the root server maps CONFIG_LIMIT bytes.
    let bytes = unsafe { core::slice::from_raw_parts((CONFIG_ADDRESS + 16) as *const u8, length) };
    CONFIG.call_once(|| match system::decode(bytes) {
        Ok(config) => config,
        Err(_) => panic!("the configuration from the root server is malformed"),
    });
}

fn mapped() -> bool {
    (0..)
        .map_while(|n| crate::sys::region_list(n).ok())
        .any(|(base, length, _, _)| base == CONFIG_ADDRESS && length == CONFIG_LIMIT)
}
