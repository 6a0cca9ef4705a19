use super::*;
use policy::{Decision, Place, Protocol};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Vec<Draft>> {
    Source::new("p.toml", text.into()).parse()
}

fn says(text: &str, words: &str) {
    match parse(text) {
        Ok(drafts) => panic!("accepted: {drafts:?}"),
        Err(error) => assert!(error.to_string().contains(words), "{error}"),
    }
}

const EXAMPLE: &str = r#"
[[program]]
path = "/bin/curl"
connect = [
  { to = "10.0.0.0/8", ports = [443, "8000-8100"], protocol = "tcp" },
  { ports = 53 },
]

[[program]]
path = "/usr/sbin/nginx"
exec = ["/bin/curl"]
sha256 = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
libraries = ["/lib/x86_64-linux-gnu"]
jit = true
children = false
listen = [{ on = "any", ports = "80,443", protocol = "tcp" }]
files = [{ path = "/etc/resolv.conf" }, { path = "/srv", write = true }]
"#;

#[test]
fn every_key_is_understood() {
    let drafts = parse(EXAMPLE).expect("a good policy");
    let [curl, nginx] = &drafts[..] else { panic!("{drafts:?}") };
    let remote = Decision::Use(Place::Remote);
    let ip = |text: &str| text.parse().expect("an address");
    let tcp = Some(Protocol::Tcp);
    assert_eq!(curl.program.path, "/usr/bin/curl");
    assert_eq!(curl.program.connect(tcp, ip("10.1.1.1"), 8050), remote);
    assert_eq!(curl.program.connect(tcp, ip("10.1.1.1"), 80), Decision::Refuse);
    assert_eq!(curl.program.connect(Some(Protocol::Udp), ip("9.9.9.9"), 53), remote);
    assert_eq!(curl.program.bind(tcp, ip("0.0.0.0"), 80), Decision::Refuse);
    assert_eq!(nginx.program.bind(tcp, ip("::"), 443), remote);
    assert!(!nginx.program.children);
    let code = &nginx.program.code;
    assert!(code.verify && code.jit && !code.image_libraries);
    assert!(curl.program.code.verify && !curl.program.code.jit);
    assert_eq!((curl.sha256.is_none(), &curl.libraries), (true, &Libraries::Image));
    assert_eq!(nginx.sha256.as_ref().map(|sum| sum.value[31]), Some(0xff));
    let Libraries::Files(files) = &nginx.libraries else { panic!("{nginx:?}") };
    assert_eq!(files[0].value, "/usr/lib/x86_64-linux-gnu");
    assert!(nginx.program.may_become("/usr/bin/curl"));
    assert!(!nginx.program.may_become("/usr/sbin/nginx"));
    assert!(nginx.program.files[1].write && !nginx.program.files[0].write);
}

#[test]
fn mistakes_are_named_with_their_place() {
    says("[[program]]\npath = \"curl\"\n", "p.toml:2:8: 'curl' is no absolute path");
    says("[[program]]\npath = \"/a\"\ncolour = 1\n", "p.toml:3:1: unknown field `colour`");
    says("[[program]]\n", "p.toml:1:1: missing field `path`");
    says("[[program]]\npath = \"/a\"\nconnect = [{ to = \"10.0.0.1/8\" }]\n", "p.toml:3:19: ");
    says("[[program]]\npath = \"/a\"\nconnect = [{ to = \"x.org\" }]\n", "names are not looked up");
    says("[[program]]\npath = \"/a\"\nconnect = [{ ports = 70000 }]\n", "p.toml:3:22: '70000'");
    says("[[program]]\npath = \"/a\"\nlisten = [{ place = \"here\" }]\n", "write remote or local");
    let nested = "files = [{ path = \"/srv\", write = true }, { path = \"/srv/fixed\" }]\n";
    let text = format!("[[program]]\npath = \"/a\"\n{nested}");
    says(&text, "p.toml:3:52: '/srv/fixed' can't be kept from changes below '/srv'");
    says("[[program]]\npath = \"/a\"\nlisten = [{ place = \"both\" }]\n", "add protocol = \"tcp\"");
    says("[[program]]\npath = \"/a\"\nconnect = [{ place = \"both\" }]\n", "write remote or local");
    says("[[program]]\npath = \"/a\"\nlisten = [{ protocol = \"sctp\" }]\n", "tcp, udp or icmp");
    says("[[program]]\npath = \"/a\"\nsha256 = \"12\"\n", "p.toml:3:10: a SHA-256 sum is");
    says("[[program]]\npath = \"/a\"\nlibraries = \"lib\"\n", "p.toml:3:13: 'lib' is no absolute");
    says("[[program]]\npath = \"/a\"\njit = \"yes\"\n", "p.toml:3:7: ");
    says(
        "[[program]]\npath = \"/a\"\n[[program]]\npath = \"//a\"\n",
        "p.toml:4:8: '/a' is there twice",
    );
    says("[[program]]\npath = \"/a\"\nexec = [\"/b\"]\n", "has no [[program]] of its own");
    says("[[program]\n", "p.toml:1:");
    says("a = 1979-05-27T07:32:00Z\n", "p.toml:1:1: unknown field `a`");
}

#[test]
fn an_empty_policy_trusts_nobody() {
    assert_eq!(parse("# nothing\n").expect("good"), Vec::new());
}

proptest! {
    /// Whatever a policy file holds, reading it ends with an answer.
    #[test]
    fn any_text_is_survived(text in "(\\[\\[program\\]\\]\n|path = \"/[a-z]\"\n|[a-z0-9 =\"\\[\\]{},./:\n-]{0,8}){0,20}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.to_string().starts_with("p.toml:"), "{}", error);
        }
    }

    /// A good policy with any piece replaced.
    #[test]
    fn damaged_policies_are_survived(at in 0usize..700, cut in 0usize..20, piece in "\\PC{0,6}") {
        let chars: Vec<char> = EXAMPLE.chars().collect();
        let (at, end) = (at.min(chars.len()), (at + cut).min(chars.len()));
        let text: String = chars[..at].iter().copied().chain(piece.chars()).chain(chars[end..].iter().copied()).collect();
        let _ = parse(&text);
    }
}
