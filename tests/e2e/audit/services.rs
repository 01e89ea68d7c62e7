//! The journal and syslog instead of a file.

use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;

use crate::common::{Lab, Underpass, V4, Value, finished};

/// A /run with the journal's socket, where `$1` is one.
const JOURNAL: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
    touch /run/systemd/journal/socket && mount --bind $1 /run/systemd/journal/socket";
/// A /dev with syslog's, and what is needed beside it; the host's is not touched.
const SYSLOG: &str = "mkdir $1.dev && mount -t tmpfs none $1.dev && mkdir $1.dev/net && \
    for node in null zero tty random urandom net/tun log; do touch $1.dev/$node; done && \
    for node in null zero tty random urandom net/tun; do mount --bind /dev/$node $1.dev/$node; done && \
    mount --bind $1 $1.dev/log && mount --rbind $1.dev /dev";

/// What a log service hears until an end of a flow is among it. Its socket is mounted to its place in a mount namespace of
/// underpass's own.
fn service(lab: &Lab, which: &str, mount: &str) -> (Vec<String>, Underpass) {
    let socket = lab.state.join("socket");
    let service = UnixDatagram::bind(&socket).unwrap();
    service
        .set_read_timeout(Some(std::time::Duration::from_secs(30)))
        .unwrap();
    let mount = format!("{mount} && shift && exec \"$@\"");
    let wrapper = [
        "unshare",
        "-m",
        "sh",
        "-ec",
        &mount,
        "sh",
        &lab.file("socket"),
    ];
    let args = format!("{} --audit-log {which}", V4.subnet);
    let underpass = Underpass::start(lab.wrapped_up_command(&wrapper, &args));
    assert_eq!(
        lab.result("client", &format!("connect {} 80", V4.host)),
        "open"
    );
    let mut heard = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    while !heard
        .iter()
        .any(|text: &String| text.contains("\"flow_end\""))
    {
        let length = service.recv(&mut buffer).expect("it is told");
        heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    (heard, underpass)
}

#[test]
fn the_journal_gets_each_line_with_its_fields() {
    let lab = Lab::up();
    let (heard, mut underpass) = service(&lab, "journald", JOURNAL);
    for text in &heard {
        let text = text.strip_suffix('\n').unwrap();
        let (fields, line) = text.split_once("\nMESSAGE=").unwrap();
        assert_eq!(
            fields,
            "PRIORITY=6\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=underpass-audit"
        );
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["v"], 1);
    }
    assert!(heard[0].contains("\"session_start\""), "{heard:?}");
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn syslog_gets_each_line_with_its_tag() {
    let lab = Lab::up();
    let (heard, mut underpass) = service(&lab, "syslog", SYSLOG);
    let tag = format!("<86>underpass-audit[{}]: ", underpass.pid());
    for text in &heard {
        let line = text.strip_prefix(&tag).unwrap_or_else(|| panic!("{text}"));
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["v"], 1);
    }
    assert!(heard[0].contains("\"session_start\""), "{heard:?}");
    assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn a_log_service_that_is_not_there_is_said() {
    let lab = Lab::up();
    let hide = "mount -t tmpfs none /run && exec \"$@\"";
    let wrapper = ["unshare", "-m", "sh", "-c", hide, "sh"];
    let args = format!("{} --audit-log journald", V4.subnet);
    let output = finished(lab.wrapped_up_command(&wrapper, &args));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Name a file instead"), "{said}");
}
