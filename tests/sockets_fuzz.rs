//! The two sockets that take orders against whatever bytes: that of the privileged part, and the control socket. `scripts/fuzz`
//! says the like for as long as one likes. Needs root: the privileged part works in networks of the tests' own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "sockets_fuzz/drive.rs"]
mod drive;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use drive::{HELLO, ask_control, ask_helper, framed, greet};
use proptest::prelude::*;

const OPEN: &str = r#"{"Open":{"name":null,"mtu":null}}"#;
const HOLD: &str =
    r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[]}}"#;

/// Bodies of requests: sound ones, some that only look so, and any.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let sound = prop::sample::select(vec![OPEN, HOLD, r#"{"Release":{}}"#, HELLO]);
    let spoilt =
        (sound.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(text, at, byte)| {
            let mut bytes = text.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        });
    prop_oneof![
        3 => sound.prop_map(|text| text.as_bytes().to_vec()),
        3 => spoilt,
        1 => prop::collection::vec(any::<u8>(), 0..100),
    ]
}

/// Messages in a row, of which the length may lie.
fn talk() -> impl Strategy<Value = Vec<u8>> {
    let message = prop_oneof![
        5 => body().prop_map(|body| framed(&body)),
        1 => (body(), any::<u32>()).prop_map(|(body, length)| [&length.to_be_bytes(), &body[..]].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(message, 0..5).prop_map(|messages| messages.concat())
}

/// That the bytes are understood as they are meant.
#[test]
fn a_sound_request_is_answered() {
    assert!(greet(&framed(HELLO.as_bytes())));
    let requests = [OPEN, HOLD, r#"{"Release":{}}"#, HELLO].map(|text| framed(text.as_bytes()));
    let answers = ask_helper(&requests.concat());
    assert_eq!(answers, ["Ready", "Opened", "Held", "Released", "Refused"]);
    let (answer, orders) = ask_control(b"{\"request\":\"status\"}\n");
    assert!(answer.contains("\"report\""), "{answer}");
    assert_eq!(orders, 0);
    assert_eq!(ask_control(b"{\"request\":\"reload\"}\n").1, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_greeting(bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..100), body().prop_map(|body| framed(&body))]) {
        greet(&bytes);
    }

    #[test]
    fn any_words_to_the_privileged_part(bytes in talk()) {
        let kinds = ask_helper(&bytes);
        prop_assert_eq!(&kinds[0], "Ready");
        let known = ["Ready", "Opened", "Held", "Released", "Refused"];
        prop_assert!(kinds.iter().all(|kind| known.contains(&kind.as_str())), "{:?}", kinds);
    }

    /// What is no request is no order, and is answered once at most.
    #[test]
    fn any_words_to_the_control_socket(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), "\\{\"request\":\"[a-z]{0,6}\"[,}].{0,9}\n".prop_map(String::into_bytes)],
    ) {
        let (answer, orders) = ask_control(&bytes);
        prop_assert!(answer.lines().count() <= 1, "{}", answer);
        prop_assert!(orders == 0 || answer.contains("stopping") || answer.contains("reloaded"), "{}", answer);
    }
}

/// The process itself: it ends by itself, and says of no panic.
fn ask_process(bytes: &[u8]) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new("unshare")
        .args(["-n", env!("CARGO_BIN_EXE_underpass"), "helper"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = ours.write_all(bytes);
    let _ = ours.shutdown(std::net::Shutdown::Write);
    let mut answers = Vec::new();
    let _ = ours.read_to_end(&mut answers);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code().is_some_and(|code| code < 2),
        "{output:?}"
    );
    assert!(!said.contains("panicked"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_words_to_the_privileged_process(greeted: bool, bytes in talk()) {
        let hello = if greeted { framed(HELLO.as_bytes()) } else { Vec::new() };
        ask_process(&[hello, bytes].concat());
    }
}
