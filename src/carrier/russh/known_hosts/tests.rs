//! The format of the man page, line by line, and ssh-keygen's reading of the same files.

use std::fs;
use std::path::Path;
use std::process::Command;

use data_encoding::BASE64;
use proptest::prelude::*;

use super::*;

const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
const P256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";

fn keys(text: &str) -> KnownHosts {
    KnownHosts {
        lines: line::parse(text, Path::new("f")).collect(),
    }
}

fn data(text: &str) -> KeyData {
    PublicKey::from_openssh(text).unwrap().key_data().clone()
}

fn verdict(text: &str, name: &str) -> Verdict {
    keys(text).of(&[name.to_owned()]).verdict(&data(A))
}

fn place(line: usize) -> Place {
    Place {
        file: "f".into(),
        line,
    }
}

fn changed(line: usize, by_pattern: bool) -> Verdict {
    Verdict::Changed(Known {
        algorithm: Algorithm::Ed25519,
        place: place(line),
        by_pattern,
    })
}

#[test]
fn the_examples_of_the_man_page() {
    // sshd(8), "An example ssh_known_hosts file", with keys that can be read.
    let text = format!(
        "# Comments allowed at start of line\n\
         cvs.example.net,192.0.2.10 {A}\n\
         # A hashed hostname\n\
         |1|JfKTdBh7rNbXkVAQCRp4OQoPfmI=|USECr3SWf1JUPsms5AqfD5QfxkM= {A}\n\
         # A revoked key\n\
         @revoked * {B}\n\
         # A CA key, accepted for any host in *.mydomain.com or *.mydomain.org\n\
         @cert-authority *.mydomain.org,*.mydomain.com {P256}\n"
    );
    for name in ["cvs.example.net", "192.0.2.10"] {
        assert_eq!(verdict(&text, name), Verdict::Known(place(2)));
    }
    let known = keys(&text);
    let any = ["any".to_owned()];
    assert_eq!(known.of(&any).verdict(&data(B)), Verdict::Revoked(place(6)));
    let host = ["a.mydomain.com".to_owned()];
    let host = known.of(&host);
    assert_eq!(host.authority(&data(P256)), Some(&place(8)));
    assert_eq!(host.any_authority(), Some(&place(8)));
    assert_eq!(host.verdict(&data(P256)), Verdict::Unknown);
    assert_eq!(known.of(&any).authority(&data(P256)), None);
}

#[test]
fn changed_and_revoked() {
    let text = format!("# c\n\nbastion {B}");
    assert_eq!(verdict(&text, "bastion"), changed(3, false));
    let text = format!("*.x {B}");
    assert_eq!(verdict(&text, "a.x"), changed(1, true));
    // Of several, ssh names the last.
    let text = format!("bastion {B}\nbastion {B}");
    assert_eq!(verdict(&text, "bastion"), changed(2, false));
    let text = format!("bastion {B}\nbastion {A}");
    assert_eq!(verdict(&text, "bastion"), Verdict::Known(place(2)));
    // ssh, too: a key of another type is another key.
    let text = format!("bastion {P256}");
    assert!(matches!(verdict(&text, "bastion"), Verdict::Changed(_)));
    let text = format!("bastion {A}\n@revoked * {A}");
    assert_eq!(verdict(&text, "bastion"), Verdict::Revoked(place(2)));
    let text = format!("@revoked other {A}");
    assert_eq!(verdict(&text, "bastion"), Verdict::Unknown);
    let text = format!("@revoked bastion {B}");
    assert_eq!(verdict(&text, "bastion"), Verdict::Unknown);
    // An authority's key is no host's.
    let text = format!("@cert-authority bastion {A}");
    assert_eq!(verdict(&text, "bastion"), Verdict::Unknown);
}

#[test]
fn several_files() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["1", "2", "missing", "."].map(|name| dir.path().join(name));
    fs::write(&files[0], b"# \xff\xfe\n\nx ssh-rsa AAAA\n").unwrap();
    fs::write(&files[1], format!("bastion {B}\nbastion {A}\n")).unwrap();
    let known = KnownHosts::load(&files);
    let names = ["bastion".to_owned()];
    let place = Place {
        file: files[1].clone(),
        line: 2,
    };
    assert_eq!(known.of(&names).verdict(&data(A)), Verdict::Known(place));
    assert_eq!(known.of(&names).algorithms(), [Algorithm::Ed25519]);
}

#[test]
fn the_other_names_of_a_key() {
    let text = format!("a,b {A}\n|1|x|y {A}\nc {B}\n@revoked d {A}");
    let known = keys(&text);
    let key = PublicKey::from_openssh(A).unwrap();
    let found: Vec<_> = known.names_of(&key).map(|(p, n)| (p.line, n)).collect();
    assert_eq!(found, [(1, Some("a,b")), (2, None)]);
}

/// The lines that `ssh-keygen -F` finds.
fn found_by_ssh_keygen(file: &Path, name: &str) -> Vec<usize> {
    let output = Command::new("ssh-keygen")
        .args(["-F", name, "-f"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| line.split_once("found: line "))
        .filter_map(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .collect()
}

fn names() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("bastion".to_owned()),
        Just("[bastion]:2222".to_owned()),
        Just("Bastion".to_owned()),
        "[!]?[a-b*?.]{1,4}",
        "[!]?\\[[a-b*?]{1,3}\\]:[0-9*?]{1,3}",
        "\\|1\\|[A-Za-z0-9+/=|]{0,60}",
    ];
    let hashed = (prop_oneof![Just("bastion"), Just("a.b")], any::<[u8; 20]>())
        .prop_map(|(name, salt)| names::hashed(name, &salt).unwrap());
    prop_oneof![
        4 => proptest::collection::vec(word, 1..4).prop_map(|words| words.join(",")),
        1 => hashed,
    ]
}

fn line() -> impl Strategy<Value = String> {
    let marker = prop_oneof![
        6 => Just(""),
        1 => Just("@revoked "),
        // With a tab ssh looks for the end of the marker at the next blank (hostfile.c `check_markers`) and
        // takes the line for nonsense; here it is what it says.
        1 => Just("@cert-authority "),
        1 => Just("@other "),
        1 => Just("@revoked @revoked "),
        1 => Just("#"),
        1 => Just("  "),
    ];
    // What ssh-keygen -F finds need not have a key that can be read.
    let key = prop_oneof![Just(A), Just(B), Just(P256)];
    let end = prop_oneof![Just(""), Just(" a comment"), Just("\t")];
    (marker, names(), key, end)
        .prop_map(|(marker, names, key, end)| format!("{marker}{names} {key}{end}\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_same_lines_as_ssh_keygen(
        lines in proptest::collection::vec(line(), 0..8),
        name in prop_oneof![
            Just("bastion".to_owned()), Just("[bastion]:2222".to_owned()), "[ab.]{1,4}", "\\[[ab]{1,2}\\]:[0-9]{1,2}",
        ],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        fs::write(&file, lines.concat()).unwrap();
        let known = KnownHosts::load(std::slice::from_ref(&file));
        let names = [name.clone()];
        let ours: Vec<_> = known.of(&names).lines.iter().map(|l| l.place.line).collect();
        let theirs = found_by_ssh_keygen(&file, &name);
        prop_assert_eq!(ours, theirs, "{:?}", lines);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let known = keys(&String::from_utf8_lossy(&bytes));
        let names = ["bastion".to_owned()];
        known.of(&names).verdict(&data(A));
    }
}

#[test]
fn hashed_by_ssh_keygen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    fs::write(&file, format!("bastion {A}\n[bastion]:2222 {B}\n")).unwrap();
    let status = Command::new("ssh-keygen")
        .args(["-q", "-H", "-f"])
        .arg(&file)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let known = KnownHosts::load(&[file]);
    for (name, key, other) in [("bastion", A, B), ("[bastion]:2222", B, A)] {
        let names = [name.to_owned()];
        let keys = known.of(&names);
        assert!(matches!(keys.verdict(&data(key)), Verdict::Known(_)));
        assert!(matches!(keys.verdict(&data(other)), Verdict::Changed(_)));
    }
    let other = ["other".to_owned()];
    assert!(known.of(&other).algorithms().is_empty());
}

#[test]
fn base64_of_another_kind_is_no_hash() {
    let hash = format!("|1|{}|x", BASE64.encode(&[0; 20]));
    assert_eq!(verdict(&format!("{hash} {A}"), "x"), Verdict::Unknown);
}
