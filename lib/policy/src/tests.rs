use super::*;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<Net> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn rule(to: &[&str], ports: &str, deny: bool) -> ConnectRule {
    ConnectRule {
        nets: nets(to),
        ports: ports.parse().unwrap(),
        protocols: vec![Protocol::Tcp],
        deny,
        place: Place::Remote,
    }
}

const REMOTE: Decision = Decision::Use(Place::Remote);
const LOCAL: Decision = Decision::Use(Place::Local);
const TCP: Option<Protocol> = Some(Protocol::Tcp);

#[test]
fn the_first_rule_that_matches_decides() {
    let program = Program {
        connect: vec![rule(&["10.1.0.0/16"], "any", true), rule(&["10.0.0.0/8"], "80,443", false)],
        ..Program::default()
    };
    assert_eq!(program.connect(TCP, ip("10.2.3.4"), 443), REMOTE);
    assert_eq!(program.connect(TCP, ip("10.1.3.4"), 443), Decision::Refuse);
    assert_eq!(program.connect(TCP, ip("10.2.3.4"), 22), Decision::Refuse);
    assert_eq!(program.connect(TCP, ip("::ffff:10.2.3.4"), 80), REMOTE);
    assert_eq!(program.connect(Some(Protocol::Udp), ip("10.2.3.4"), 80), Decision::Refuse);
    assert_eq!(program.connect(None, ip("10.2.3.4"), 80), Decision::Refuse);
    assert_eq!(program.connect(TCP, ip("2001:db8::1"), 80), Decision::Refuse);
    assert_eq!(program.connect(TCP, ip("127.0.0.1"), 80), LOCAL);
    assert_eq!(Program::default().connect(TCP, ip("10.2.3.4"), 443), Decision::Refuse);
}

#[test]
fn loopback_is_local_unless_a_rule_is_about_it_alone() {
    let mut program = Program::with_defaults("/x");
    for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
        assert_eq!(program.connect(TCP, ip(own), 80), LOCAL, "{own}");
    }
    assert_eq!(program.connect(TCP, ip("::2"), 80), REMOTE);
    program.connect.insert(0, rule(&["127.0.0.0/8", "::1"], "80", false));
    assert_eq!(program.connect(TCP, ip("127.0.0.1"), 80), REMOTE);
    assert_eq!(program.connect(TCP, ip("0.0.0.0"), 80), REMOTE);
    assert_eq!(program.connect(TCP, ip("::"), 80), REMOTE);
    assert_eq!(program.connect(TCP, ip("127.0.0.1"), 81), LOCAL);
    program.connect.insert(0, rule(&["127.0.0.1"], "any", true));
    assert_eq!(program.connect(TCP, ip("127.0.0.1"), 80), Decision::Refuse);
}

#[test]
fn wildcards_are_matched_by_ranges_of_all_addresses_only() {
    let mut program = Program::default();
    let listen = |on: &[&str], ports: &str, place| ListenRule {
        nets: nets(on),
        ports: ports.parse().unwrap(),
        protocols: vec![Protocol::Tcp],
        deny: false,
        place,
    };
    program.listen = vec![listen(&["10.0.2.15"], "80", Place::Remote)];
    assert_eq!(program.bind(TCP, ip("10.0.2.15"), 80), REMOTE);
    assert_eq!(program.bind(TCP, ip("0.0.0.0"), 80), Decision::Refuse);
    program.listen.push(listen(&["0.0.0.0/0", "::/0"], "80", Place::Both));
    assert_eq!(program.bind(TCP, ip("0.0.0.0"), 80), Decision::Use(Place::Both));
    assert_eq!(program.bind(TCP, ip("::"), 80), Decision::Use(Place::Both));
    assert_eq!(program.bind(TCP, ip("127.0.0.1"), 80), LOCAL);
    // A client's bind is no listening.
    assert_eq!(program.bind(TCP, ip("0.0.0.0"), 0), Decision::Refuse);
    program.connect = vec![rule(&["10.0.0.0/8"], "any", false)];
    assert_eq!(program.bind(TCP, ip("0.0.0.0"), 0), REMOTE);
    assert_eq!(program.listen(TCP, ip("0.0.0.0"), 0), Decision::Refuse);
    assert_eq!(program.bind(Some(Protocol::Udp), ip("0.0.0.0"), 0), Decision::Refuse);
}

#[test]
fn ranges_and_ports_are_read_strictly() {
    for bad in [
        "",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "::1/129",
        "example.org",
        "10.0.0.0/",
        "1.2.3",
        "::ffff:10.0.0.0/104",
        "10.0.0.0/-1",
        "fe80::1%eth0",
    ] {
        assert!(bad.parse::<Net>().is_err(), "{bad}");
    }
    assert!("10.0.0.1/8".parse::<Net>().unwrap_err().0.contains("10.0.0.0/8"));
    for bad in ["", "65536", "-1", "80-", "9-8", "80,,81", "http", "80-90-100"] {
        assert!(bad.parse::<Ports>().is_err(), "{bad}");
    }
    assert_eq!("80, 8000-8100".parse(), Ok(Ports(vec![(80, 80), (8000, 8100)])));
    assert!("any".parse::<Ports>().unwrap().contain(0));
}

#[test]
fn programs_are_recognised_in_every_spelling() {
    let policy = Policy::by_path(&["/usr/bin/curl", "/usr/bin/wget"]);
    for good in ["/usr/bin/curl", "/bin/curl", "//usr/./bin//curl"] {
        assert!(policy.program(good.as_bytes()).is_some(), "{good}");
    }
    for bad in ["/usr/bin/../bin/curl", "curl", "relative", "/usr/bin/curl2", "/", ""] {
        assert!(policy.program(bad.as_bytes()).is_none(), "{bad}");
    }
}

#[test]
fn what_a_program_may_become_is_its_own_rule() {
    let mut program = Program::with_defaults("/usr/bin/git");
    assert!(program.may_become("/usr/bin/ssh"));
    program.exec = Exec::Only(vec!["/usr/bin/ssh".into()]);
    assert!(program.may_become("/usr/bin/ssh") && !program.may_become("/usr/bin/curl"));
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|n| IpAddr::V4(Ipv4Addr::from_bits(n))),
        any::<u128>().prop_map(|n| IpAddr::V6(Ipv6Addr::from_bits(n))),
        any::<u32>().prop_map(|n| IpAddr::V6(Ipv4Addr::from_bits(n).to_ipv6_mapped())),
    ]
}

fn any_extents() -> impl Strategy<Value = Vec<Extent>> {
    let extent = (0u32..200, 0u32..20).prop_map(|(first, pages)| Extent { first, pages });
    proptest::collection::vec(extent, 0..12)
}

proptest! {
    /// A range holds exactly the addresses between its first and its last.
    #[test]
    fn ranges_hold_what_lies_between_their_ends(base: u32, bits in 0u8..=32, other: u32) {
        let size = 1u64 << (32 - bits);
        let first = (u64::from(base) / size * size) as u32;
        let net = Net::new(IpAddr::V4(Ipv4Addr::from_bits(first)), bits).unwrap();
        let inside = (u64::from(first)..u64::from(first) + size).contains(&u64::from(other));
        prop_assert_eq!(net.contains(IpAddr::V4(Ipv4Addr::from_bits(other))), inside);
        prop_assert!(net.contains(IpAddr::V4(Ipv4Addr::from_bits(base))));
        prop_assert_eq!(net.to_string().parse(), Ok(net));
    }

    /// Without rules nothing outside of the own machine can be used.
    #[test]
    fn no_rule_means_no(address in any_address(), port: u16, n in 0usize..4) {
        let protocol = Protocol::ALL.get(n).copied();
        let program = Program::default();
        let expected = if is_loopback(address) { LOCAL } else { Decision::Refuse };
        prop_assert_eq!(program.listen(protocol, address, port), expected);
        prop_assert_eq!(program.bind(protocol, address, port), expected);
        if !address.to_canonical().is_unspecified() {
            prop_assert_eq!(program.connect(protocol, address, port), expected);
        }
    }

    /// A rule in front of others never makes them say more about what it does not match.
    #[test]
    fn a_denying_rule_only_takes_away(address in any_address(), port: u16, first: u16, last: u16) {
        let before = Program::with_defaults("/x");
        let mut after = before.clone();
        let mut denied = rule(&["0.0.0.0/0", "::/0"], "any", true);
        denied.ports = Ports(vec![(first.min(last), first.max(last))]);
        after.connect.insert(0, denied.clone());
        let (a, b) = (before.connect(TCP, address, port), after.connect(TCP, address, port));
        let own = a == LOCAL;
        prop_assert_eq!(b, if denied.ports.contain(port) && !own { Decision::Refuse } else { a });
    }

    #[test]
    fn joined_extents_hold_the_same_pages(extents in any_extents(), page in 0u64..230) {
        let joined = extents::join(extents.clone());
        prop_assert!(extents::are_sorted(&joined));
        let inside = extents.iter().any(|e| {
            (u64::from(e.first)..u64::from(e.first + e.pages)).contains(&page)
        });
        prop_assert_eq!(extents::contain(&joined, page), inside);
    }

    #[test]
    fn compiled_policies_survive(extents in any_extents(), jit: bool) {
        let mut policy = Policy::by_path(&["/usr/bin/curl"]);
        policy.libraries = extents::join(extents);
        policy.programs[0].code.jit = jit;
        let mut bytes = policy.encode();
        bytes.extend([0; 100]);
        prop_assert_eq!(Policy::decode(&bytes), Ok(policy));
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), n in 0usize..60, value: u8) {
        let _ = Policy::decode(&bytes);
        let mut good = Policy::by_path(&["/usr/bin/curl"]).encode();
        if let Some(byte) = good.get_mut(n) {
            *byte = value;
        }
        let _ = Policy::decode(&good);
        let text = String::from_utf8_lossy(&bytes);
        let _ = text.parse::<Net>();
        let _ = text.parse::<Ports>();
    }
}
