//! Init's words of the kernel command line.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Which of the two machines this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Runs the user's programs; no network.
    Compute,
    /// Owns the network; runs dispatcher and delegates.
    Service,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compute => "compute",
            Self::Service => "service",
        })
    }
}

/// Static configuration of the one network card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Address of `eth0`.
    pub address: Ipv4Addr,
    /// Length of the network's prefix.
    pub bits: u8,
    /// Default route.
    pub gateway: Ipv4Addr,
    /// Name server.
    pub dns: Ipv4Addr,
}

/// Everything that the command line can change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// `trapline.role`.
    pub role: Role,
    /// `trapline.trust`: absolute paths of the trusted programs.
    pub trust: Vec<PathBuf>,
    /// `trapline.net`.
    pub network: Network,
    /// `trapline.root`: device of the root file system's lower layer.
    pub root: PathBuf,
    /// `trapline.agent`: terminal of the agent.
    pub agent: PathBuf,
    /// `trapline.upper`: size of the writable layer, as `tmpfs(5)` takes it.
    pub upper: String,
    /// `trapline.spin`: microseconds that a delegate looks for a request before it sleeps.
    pub spin: Option<u32>,
    /// Words that were not understood; init reports them.
    pub rejected: Vec<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            role: Role::Compute,
            trust: Vec::new(),
            network: Network {
                // QEMU's user-mode network.
                address: Ipv4Addr::new(10, 0, 2, 15),
                bits: 24,
                gateway: Ipv4Addr::new(10, 0, 2, 2),
                dns: Ipv4Addr::new(10, 0, 2, 3),
            },
            root: "/dev/pmem0".into(),
            agent: "/dev/hvc1".into(),
            upper: "50%".into(),
            spin: None,
            rejected: Vec::new(),
        }
    }
}

impl Parameters {
    /// Reads `/proc/cmdline`'s text. What is not understood keeps its default and is listed in
    /// `rejected`.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let mut parameters = Self::default();
        for word in line.split_ascii_whitespace() {
            let Some(setting) = word.strip_prefix("trapline.") else { continue };
            if parameters.set(setting).is_none() {
                parameters.rejected.push(word.to_owned());
            }
        }
        parameters
    }

    fn set(&mut self, setting: &str) -> Option<()> {
        let (name, value) = setting.split_once('=')?;
        match name {
            "role" => self.role = role(value)?,
            "trust" => self.trust = trust(value)?,
            "net" => self.network = network(value)?,
            "root" => self.root = value.into(),
            "agent" => self.agent = value.into(),
            "spin" => self.spin = Some(value.parse().ok()?),
            "upper" => self.upper = size(value)?,
            _ => return None,
        }
        Some(())
    }
}

fn role(value: &str) -> Option<Role> {
    match value {
        "compute" => Some(Role::Compute),
        "service" => Some(Role::Service),
        _ => None,
    }
}

fn trust(value: &str) -> Option<Vec<PathBuf>> {
    let paths = value.split(':').filter(|path| !path.is_empty()).map(PathBuf::from);
    paths.map(|path| (path.is_absolute() && path.file_name().is_some()).then_some(path)).collect()
}

fn network(value: &str) -> Option<Network> {
    let mut parts = value.split(',');
    let (address, bits) = parts.next()?.split_once('/')?;
    let network = Network {
        address: address.parse().ok()?,
        bits: bits.parse().ok().filter(|bits| *bits <= 32)?,
        gateway: parts.next()?.parse().ok()?,
        dns: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(network)
}

/// Digits and one unit: nothing that could smuggle in another mount option.
fn size(value: &str) -> Option<String> {
    let digits = value.trim_end_matches(['k', 'm', 'g', 'K', 'M', 'G', '%']);
    let plausible = value.len() - digits.len() <= 1 && !digits.is_empty();
    (plausible && digits.bytes().all(|b| b.is_ascii_digit())).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_among_the_kernels_own() {
        let p = Parameters::parse(
            "console=hvc0 quiet trapline.role=service trapline.upper=64m \
             trapline.trust=/usr/bin/curl:/bin/nc \
             trapline.net=192.168.7.9/16,192.168.0.1,9.9.9.9 ro\n",
        );
        assert_eq!(p.role, Role::Service);
        assert_eq!(p.trust, [PathBuf::from("/usr/bin/curl"), "/bin/nc".into()]);
        assert_eq!(p.network.bits, 16);
        assert_eq!(p.network.dns, Ipv4Addr::new(9, 9, 9, 9));
        assert_eq!(p.upper, "64m");
        assert!(p.rejected.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_listed_and_changes_nothing() {
        let words = [
            "trapline.role=both",
            "trapline.trust=curl",
            "trapline.trust=/",
            "trapline.net=10.0.2.15,10.0.2.2",
            "trapline.net=10.0.2.15/33,10.0.2.2,10.0.2.3",
            "trapline.upper=1m,exec",
            "trapline.upper=%",
            "trapline.new=1",
            "trapline.role",
        ];
        let p = Parameters::parse(&words.join(" "));
        assert_eq!(p.rejected, words);
        assert_eq!(Parameters { rejected: Vec::new(), ..p }, Parameters::default());
    }
}
