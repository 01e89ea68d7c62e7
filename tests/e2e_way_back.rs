//! It comes back through jump hosts and commands: a second after the server, or a host on the way to it, was started again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Lab, Underpass, V4, assert_ok, eventually, result_of};

/// What is promised.
const SOON: Duration = Duration::from_secs(1);
/// How long at most lies between two tries.
const KNOCK: Duration = Duration::from_millis(500);
/// Of so many rounds so many are good.
const ROUNDS: usize = 4;
const GOOD: usize = 3;
/// How long nobody answers: many tries that come ever less often would be far apart by then.
const OUTAGE: &str = "6000";

/// The configuration of a person: the bastion is the jump host of its own second sshd.
fn config(lab: &Lab) -> String {
    let path = lab.file("way_config");
    let text = format!(
        "Host *\n  User root\n  UserKnownHostsFile {known}\n\
         Host * !gateway\n  IdentityFile {id}\n\
         Host gw\n  HostName 192.168.77.1\n\
         Host behind\n  HostName 192.168.77.1\n  Port 2201\n  ProxyJump gw\n\
         Host tool\n  HostName 192.168.77.1\n  ProxyCommand nc %h %p\n\
         Host cloud\n  HostName 192.168.77.1\n  ProxyCommand sh {session} %h %p\n\
         Host guarded\n  HostName 192.168.77.1\n  Port 2201\n  ProxyCommand ssh -F {path} -W %h:%p gateway\n\
         Host gateway\n  HostName 192.168.77.1\n  IdentityFile {pass}\n  IdentitiesOnly yes\n",
        session = lab.file("session"),
        id = lab.file("id"),
        known = lab.file("known_hosts"),
        pass = lab.file("pass"),
    );
    fs::write(&path, text).unwrap();
    path
}

fn up(lab: &Lab, host: &str) -> Underpass {
    lab.underpass(&format!("-F {} -r {host} {}", config(lab), V4.subnet))
}

/// It comes back in time three times, in four rounds at most. In time is a second, or what a wait and a login take here: on a
/// machine that is busy with much else a login alone may take that second.
fn comes_back(host: &str, port: u16, why: &str) {
    let lab = Lab::up();
    let mut underpass = up(&lab, host);
    let limit = SOON.max(KNOCK + login(&mut underpass).mul_f32(1.5));
    let mut rounds = Vec::new();
    let in_time = |rounds: &[Duration]| rounds.iter().filter(|took| **took < limit).count();
    while rounds.len() < ROUNDS && in_time(&rounds) < GOOD {
        rounds.push(outage(&lab, &mut underpass, port, host, why));
    }
    assert_eq!(in_time(&rounds), GOOD, "{rounds:?}, {limit:?}");
}

/// How long the first login took, the device included.
fn login(underpass: &mut Underpass) -> Duration {
    let mut lines = underpass.log().iter();
    let ready = lines.find(|line| line.contains("ready: ")).unwrap();
    let (_, took) = ready.rsplit_once(" in ").unwrap();
    let seconds = took.trim_end_matches(" s").parse().unwrap();
    Duration::from_secs_f32(seconds)
}

/// The sshd at `port` dies, and comes back. How long that takes until there is a first byte. The log tells of it in three lines,
/// each with the name of `host`: down, `why`, and up again.
fn outage(lab: &Lab, underpass: &mut Underpass, port: u16, host: &str, why: &str) -> Duration {
    let before = underpass.log().len();
    let open = lab
        .start_probe("client", &format!("source {} 7", V4.host))
        .connected();
    lab.kill_sshd_at(port);
    assert_eq!(result_of(&open.finish()), "ECONNRESET");
    let held = format!("connect {} 5001 --timeout {OUTAGE}", V4.host);
    assert_eq!(lab.result("client", &held), "timeout");

    let get = format!("get {} 5001 1000 --timeout 30000", V4.host);
    let waiting = lab.start_probe("client", &get);
    lab.start_sshd_at(port);
    let back = Instant::now();
    assert_ok(&waiting.finish());
    let took = back.elapsed();
    underpass.wait_for_further_line("up again");
    let [lost, reconnecting, up] = &underpass.log()[before..] else {
        panic!("not three lines of sshd at {port}");
    };
    for (line, text) in [
        (lost, "connection lost: "),
        (reconnecting, why),
        (up, "up again after "),
    ] {
        let told = line.contains(&format!("{host}: ")) && line.contains(text);
        assert!(told, "{text}: {line}");
    }
    took
}

#[test]
fn a_jump_host() {
    let why = "jump host gw: cannot connect to 192.168.77.1:22: Connection refused";
    comes_back("behind", 22, why);
}

#[test]
fn a_server_behind_a_jump_host() {
    let why = "the jump host gw does not connect to 192.168.77.1:2201: refused";
    comes_back("behind", 2201, why);
}

#[test]
fn a_server_behind_a_command() {
    comes_back("tool", 22, " s: the ProxyCommand ended");
}

/// A session tool of a cloud: it starts slowly, has much to say, and closes after some seconds.
#[test]
fn a_session_tool_that_closes_after_some_seconds() {
    let lab = Lab::up();
    let session = "echo 'Starting session with SessionId: x-0123' >&2\nsleep 1\necho 'still busy' >&2\n\
                   (sleep 3; echo 'Session timed out' >&2; kill $$) &\nexec nc \"$1\" \"$2\"\n";
    fs::write(lab.file("session"), session).unwrap();
    let mut underpass = up(&lab, "cloud");
    for _ in 0..2 {
        let open = lab
            .start_probe("client", &format!("source {} 7", V4.host))
            .connected();
        assert_eq!(result_of(&open.finish()), "ECONNRESET");
        let get = format!("get {} 5001 1000 --timeout 30000", V4.host);
        assert_ok(&lab.probe("client", &get));
        underpass.wait_for_further_line("cloud: up again after ");
    }
    let log = underpass.log();
    let count = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert!(count("cloud: connection lost: ") >= 2, "{log:?}");
    assert_eq!(count("Starting session"), 1, "{log:?}");
    let last_words = "the connection broke: the ProxyCommand ended";
    assert!(
        log.iter()
            .any(|line| line.contains(last_words) && line.contains(": Session timed out; ")),
        "{log:?}"
    );
}

/// What lets a person in at the gateway has expired. sshd gives penalties for refused logins: one is made, and the next is far off.
#[test]
fn a_gateway_that_refuses_the_command_is_not_asked_again_and_again() {
    let lab = Lab::up();
    fs::copy(lab.file("id"), lab.file("pass")).unwrap();
    let mut underpass = up(&lab, "guarded");
    fs::remove_file(lab.file("pass")).unwrap();
    let (before, refused) = (underpass.log().len(), refused_logins(&lab));
    lab.kill_sshd_at(2201);
    underpass.wait_for_further_line("reconnecting in ");
    let mut lines = underpass.log()[before..].iter();
    let line = lines
        .find(|line| line.contains("reconnecting in "))
        .unwrap();
    assert!(line.contains("Permission denied (publickey"), "{line}");
    let (_, wait) = line.split_once(" 1 try, reconnecting in ").expect(line);
    let (wait, _) = wait.split_once(" s: ").unwrap();
    assert!(wait.parse::<f32>().unwrap() >= 30.0, "{line}");
    eventually("the gateway's log", || refused_logins(&lab) > refused);
    assert_eq!(refused_logins(&lab), refused + 1, "{line}");
}

/// In the gateway's own log.
fn refused_logins(lab: &Lab) -> usize {
    let log = fs::read_to_string(lab.file("sshd-22.log")).unwrap();
    log.matches("Connection closed by authenticating user ")
        .count()
}
