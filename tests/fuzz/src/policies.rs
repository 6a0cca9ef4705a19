//! Policies, as text and compiled.
use policy::{Policy, Protocol};
use std::net::{IpAddr, Ipv6Addr};
use trapline::policy::Source;

/// Any text is a policy or has a mistake, which is told with its place. What was read survives being
/// compiled.
pub fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match Source::new("p.toml", text).parse() {
        Err(error) => {
            let told = error.to_string();
            let parts: Vec<&str> = told.splitn(4, ':').collect();
            let number = |n: usize| parts.get(n).and_then(|part| part.parse::<usize>().ok());
            let placed = number(1).is_some_and(|n| n > 0) && number(2).is_some_and(|n| n > 0);
            assert!(parts.first() == Some(&"p.toml") && placed, "{told}");
        }
        Ok(drafts) => {
            let programs = drafts.into_iter().map(|draft| draft.program).collect();
            let policy = Policy { programs, libraries: Vec::new() };
            assert_eq!(Policy::decode(&policy.encode()), Ok(policy.clone()));
            ask(&policy, bytes);
        }
    }
}

/// Any bytes are a policy or are refused, and a policy answers every question.
pub fn compiled(bytes: &[u8]) {
    // So that a fuzzer need not guess the frame.
    let mut framed = b"TLPOLCY1".to_vec();
    framed.extend((bytes.len() as u64).to_le_bytes());
    framed.extend(bytes);
    for bytes in [bytes, &framed] {
        if let Ok(policy) = Policy::decode(bytes) {
            assert_eq!(Policy::decode(&policy.encode()), Ok(policy.clone()));
            ask(&policy, bytes);
        }
    }
}

fn ask(policy: &Policy, bytes: &[u8]) {
    let mut raw = [0; 16];
    for (to, from) in raw.iter_mut().zip(bytes.iter().rev()) {
        *to = *from;
    }
    let v6 = IpAddr::V6(Ipv6Addr::from(raw));
    let v4 = IpAddr::from([raw[0], raw[1], raw[2], raw[3]]);
    let port = u16::from_le_bytes([raw[4], raw[5]]);
    let page = u64::from_le_bytes([raw[0], raw[1], raw[2], raw[3], raw[4], 0, 0, 0]);
    for program in &policy.programs {
        for address in [v4, v6] {
            for protocol in Protocol::ALL.map(Some).into_iter().chain([None]) {
                let _ = program.connect(protocol, address, port);
                let _ = program.bind(protocol, address, port);
                let _ = program.listen(protocol, address, port);
            }
        }
        let _ = (program.may_become(&program.path), policy.is_code_of(program, page));
        // Paths that are not in their plain form are never found; what is found has the name asked for.
        if let Some(found) = policy.program(program.path.as_bytes()) {
            let asked = policy::normalise(program.path.as_bytes());
            assert_eq!(asked.as_deref(), Some(found.path.as_bytes()));
        }
    }
}
