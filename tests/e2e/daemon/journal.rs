//! Under systemd the log goes to the journal in its own protocol: a level is a priority, and fields keep their names.

use std::collections::BTreeMap;
use std::process::Child;

use super::*;

/// A `/run` of its own with the socket of a journal in it, and stderr said to lead there as systemd.exec(5) has it.
const UNIT: &str = r#"
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal
mount --bind "$JOURNAL" /run/systemd/journal
JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$@"
"#;

/// The fields of one entry: `NAME=value`, or a name, a length and a value of that length (systemd.io,
/// JOURNAL_NATIVE_PROTOCOL).
fn entry(mut rest: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut fields = BTreeMap::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = text(&rest[..end]);
        rest = &rest[end + 1..];
        match line.split_once('=') {
            Some((name, value)) => fields.insert(name.to_owned(), value.to_owned()),
            None => {
                let (length, more) = rest.split_first_chunk().unwrap();
                let (value, more) = more.split_at(u64::from_le_bytes(*length) as usize);
                rest = &more[1..];
                fields.insert(line, text(value))
            }
        };
    }
    fields
}

/// A service that ends with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn levels_and_fields_arrive_in_the_journal() {
    let lab = Lab::up();
    let place = tempfile::tempdir().unwrap();
    let journal = UnixDatagram::bind(place.path().join("socket")).unwrap();
    journal
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // A port there is no sshd on gives an error, the right one a start.
    let until = |args: &str, text: &str| {
        let wrapper = ["unshare", "-m", "sh", "-c", UNIT, "sh"];
        let mut command = lab.wrapped_up_command(&wrapper, &format!("{args} {}", V4.subnet));
        command
            .env("JOURNAL", place.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut service = Service(command.spawn().unwrap());
        let mut buffer = vec![0; 1 << 16];
        let found = loop {
            let length = journal.recv(&mut buffer).expect("an entry comes");
            let entry = entry(&buffer[..length]);
            let says = |message: &String| message.contains(text);
            if entry.get("MESSAGE").is_some_and(says) {
                break entry;
            }
        };
        let _ = kill(Pid::from_raw(service.0.id() as i32), Signal::SIGTERM);
        service.0.wait().unwrap();
        let mut stderr = String::new();
        let mut pipe = service.0.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut pipe, &mut stderr).unwrap();
        assert_eq!(stderr, "", "what is in the journal is there alone");
        found
    };
    let ready = until("", "ready");
    assert_eq!(ready["SYSLOG_IDENTIFIER"], "underpass");
    assert_eq!(ready["PRIORITY"], "5", "{ready:?}");
    assert!(ready["TARGET"].starts_with("underpass::"), "{ready:?}");
    let refused = until("-p 9", "onnection refused");
    assert_eq!(refused["PRIORITY"], "3", "{refused:?}");
}
