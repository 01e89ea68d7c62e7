//! A flood of questions: it neither takes memory nor stops a connection beside it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::common::V4;
use crate::e2e::rig::Rig;
use crate::e2e::server::NameServer;

const FAR: &str = "10.0.1.20";
/// What all may take more than before, in KiB: for answers that are remembered, and for 4,096 questions that wait.
const MOST: u64 = 48 << 10;

/// Asks for 20,000 names as fast as it can, in batches; behind each an echo comes back over the connection that was open before.
const FLOOD: &str = r#"
import socket, struct, sys
def question(number, name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">6H", number, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
echo = socket.create_connection(("10.0.1.20", 7), 10)
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.connect(("198.18.0.53", 53))
names.setblocking(False)
def take():
    taken = 0
    try:
        while names.recv(2000):
            taken += 1
    except BlockingIOError:
        return taken
def there_and_back():
    echo.sendall(b"x" * 64)
    got = b""
    while len(got) < 64:
        piece = echo.recv(64)
        assert piece
        got += piece
there_and_back()
for round in range(3):
    print("ready", flush=True)
    sys.stdin.readline()
    taken = echoes = 0
    for batch in range(20):
        for number in range(1000):
            try:
                names.send(question(number, f"n{round}x{batch}x{number}.corp.internal"))
            except BlockingIOError:
                pass
        there_and_back()
        echoes += 1
        taken += take()
    print(echoes, taken, flush=True)
# Who asks as programs do is answered as before, once the rest is answered or given up.
while True:
    try:
        print(socket.gethostbyname("api.corp.internal"), flush=True)
        break
    except OSError:
        there_and_back()
"#;

/// Has 300 connections ask for a large answer 128 times each, and reads none of it; meanwhile others ask as ever.
const DEAF: &str = r#"
import socket, struct, subprocess, sys
def question(number, name, kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    message = struct.pack(">6H", number, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)
    return struct.pack(">H", len(message)) + message
def connect():
    stream = socket.socket()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stream.settimeout(10)
    stream.connect(("198.18.0.53", 53))
    return stream
def dig(*args):
    command = ["dig", "+tcp", "+short", "+time=5", "+tries=1", *args]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()
print(len(dig("TXT", "big.corp.internal")), flush=True)
sys.stdin.readline()
deaf = []
for round in range(2):
    for _ in range(300):
        stream = connect()
        try:
            stream.sendall(b"".join(question(number, "big.corp.internal", 16) for number in range(128)))
        except OSError:
            pass
        deaf.append(stream)
    print(*[dig("api.corp.internal") for _ in range(5)], len(dig("TXT", "big.corp.internal")), flush=True)
    sys.stdin.readline()
"#;

/// Memory of underpass's processes in the client, in KiB.
fn memory(rig: &Rig) -> u64 {
    let own = rig.lab.processes("client").into_iter().filter(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("underpass")
    });
    let resident = own.map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    });
    resident.sum()
}

#[test]
fn a_flood_of_questions_takes_no_memory_and_stops_no_connection() {
    let rig = Rig::new();
    let far = [
        "--local=/corp.internal/".to_owned(),
        "--host-record=api.corp.internal,10.0.1.20".to_owned(),
    ];
    let _far = NameServer::start(&rig.lab, "vpc", FAR, &far);
    let args = format!("--dns corp.internal --dns-server {FAR} {}", V4.subnet);
    let mut command = rig.run_command(&args, &["python3", "-c", FLOOD]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().expect("a line").unwrap();
    assert_eq!(next(), "ready");
    let before = memory(&rig);
    assert!(before > 0);
    for round in 0..3 {
        stdin.write_all(b"\n").unwrap();
        let figures = next();
        let (echoes, taken) = figures.split_once(' ').unwrap();
        let taken: u64 = taken.parse().unwrap();
        assert_eq!(echoes, "20");
        assert!(taken > 0, "{figures}");
        let more = memory(&rig).saturating_sub(before);
        assert!(more < MOST, "round {round}: {more} KiB more than before");
        if round < 2 {
            assert_eq!(next(), "ready");
        }
    }
    assert_eq!(next(), "10.0.1.20");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn clients_that_read_no_answers_take_neither_memory_nor_places() {
    let rig = Rig::new();
    let mut far = vec![
        "--local=/corp.internal/".to_owned(),
        "--host-record=api.corp.internal,10.0.1.20".to_owned(),
    ];
    let text = "x".repeat(250);
    for number in 100..306 {
        far.push(format!("--txt-record=big.corp.internal,{number}{text}"));
    }
    let _far = NameServer::start(&rig.lab, "vpc", FAR, &far);
    let args = format!("--dns corp.internal --dns-server {FAR} {}", V4.subnet);
    let mut command = rig.run_command(&args, &["python3", "-c", DEAF]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().expect("a line").unwrap();
    let large = next();
    assert!(large.parse::<usize>().unwrap() > 50_000, "{large}");
    let before = memory(&rig);
    for _ in 0..2 {
        stdin.write_all(b"\n").unwrap();
        let answers = ["10.0.1.20"; 5].join(" ");
        assert_eq!(next(), format!("{answers} {large}"));
        let more = memory(&rig).saturating_sub(before);
        assert!(more < MOST, "{more} KiB more than before");
    }
    stdin.write_all(b"\n").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}
