//! Addresses, routes, names.

use crate::log;
use crate::netlink::{Interface, Netlink};
use crate::parameters::{Network, Parameters, Role};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::Path;

/// An address that leads nowhere (RFC 5737, TEST-NET-1) on the compute VM's loopback: `getaddrinfo`
/// with `AI_ADDRCONFIG` does not ask for IPv4 addresses on a machine that has none but 127.0.0.1.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn interface(name: &str) -> Result<Interface, String> {
    let path = format!("/sys/class/net/{name}/ifindex");
    crate::mounts::await_device(Path::new(&path)).map_err(|_| format!("no interface {name}"))?;
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    text.trim().parse().map(Interface).map_err(|_| format!("{path}: {text:?}"))
}

fn report(what: &str, outcome: Result<(), impl Display>) {
    if let Err(error) = outcome {
        log::error(format_args!("network: {what}: {error}"));
    }
}

fn card(netlink: &Netlink, network: &Network) {
    let eth0 = match interface("eth0") {
        Ok(eth0) => eth0,
        Err(error) => return log::error(error),
    };
    report("eth0", netlink.up(eth0));
    report("address of eth0", netlink.address(eth0, network.address, network.bits));
    report("default route", netlink.default_route(eth0, network.gateway));
}

fn file(path: &str, text: &str) {
    // The root image may bring a dangling link (`resolv.conf`) here.
    let _ = std::fs::remove_file(path);
    report(path, std::fs::write(path, text));
}

/// Configures the network; what fails is reported and left out.
pub fn configure(parameters: &Parameters) {
    let name = format!("trapline-{}", parameters.role);
    report("host name", rustix::system::sethostname(name.as_bytes()));
    file("/etc/hostname", &format!("{name}\n"));
    file("/etc/hosts", &format!("127.0.0.1 localhost {name}\n::1 localhost ip6-localhost\n"));
    file("/etc/resolv.conf", &format!("nameserver {}\n", parameters.network.dns));
    let netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return log::error(format_args!("network: {error}")),
    };
    let lo = Interface(1);
    report("lo", netlink.up(lo));
    match parameters.role {
        Role::Compute => report("lo", netlink.address(lo, NOWHERE, 32)),
        Role::Service => card(&netlink, &parameters.network),
    }
}
