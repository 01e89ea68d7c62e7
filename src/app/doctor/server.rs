//! The server: whether it is reached, lets us in, and carries what it is to carry.

use std::net::SocketAddr;
use std::time::Duration;

use super::check::Check;
use crate::carrier::examine::Answer;
use crate::carrier::{ConnectError, Description};
use crate::net::{OpenError, OpenFailure};
use crate::plan::names::{self, DNS};
use crate::plan::{CarrierKind, CarrierPlan};

/// What is run on the server, where it runs anything: in words that every shell has.
pub(super) const SCRIPT: &str = "echo underpass-doctor; date +%s; cat /etc/resolv.conf";
/// The script's first word.
const MARK: &str = "underpass-doctor";
/// Round trips from which on a person feels it.
const SLOW: Duration = Duration::from_millis(150);
/// A server's clock may differ by so much, in seconds.
const CLOCK: u64 = 60;
/// No SSH connection carries more, in Mbit/s.
const MOST_RATE: f64 = 10_000.0;
/// sshd's window for what we send (channels.h, CHAN_TCP_WINDOW_DEFAULT), in bytes.
const UP_WINDOW: u32 = 2 << 20;

/// Which carrier is taken.
pub(super) fn carrier(plan: &CarrierPlan) -> Check {
    let kind = match plan.kind {
        CarrierKind::Russh => "the built-in SSH",
        CarrierKind::Openssh => "the installed ssh",
    };
    Check::pass("carrier", format!("{kind} ({})", plan.why))
}

/// What a successful login says: the steps to it all worked.
pub(super) fn logged_in(login: &Description, names: &str, took: Duration) -> Vec<Check> {
    let address = login.server.map(|address| address.to_string());
    let address = address.unwrap_or_else(|| "through another program".to_owned());
    vec![
        Check::pass("name", names),
        Check::pass("reach", address),
        Check::pass("host-key", format!("verified: {}", login.host_key)),
        Check::pass(
            "login",
            format!(
                "with {} in {:.2} s, {}",
                login.authentication,
                took.as_secs_f32(),
                login.cipher
            ),
        ),
    ]
}

/// How far a login came that failed, and why it did.
pub(super) fn not_logged_in(error: &ConnectError) -> Vec<Check> {
    const STEPS: [&str; 4] = ["name", "reach", "host-key", "login"];
    let failed = match error {
        ConnectError::UnknownHost { .. } => 0,
        // Of a host on the way.
        ConnectError::Hop { .. } => 1,
        ConnectError::Unreachable { .. }
        | ConnectError::BindAddress { .. }
        | ConnectError::TimedOut { .. }
        | ConnectError::Forward { .. }
        | ConnectError::Command { .. } => 1,
        ConnectError::NoAlgorithm { .. }
        | ConnectError::Handshake { .. }
        | ConnectError::HostKey(_) => 2,
        _ => 3,
    };
    let check = |(index, step): (usize, &&'static str)| match index.cmp(&failed) {
        std::cmp::Ordering::Less => Check::pass(step, "came past it"),
        std::cmp::Ordering::Equal => Check::error(step, error),
        std::cmp::Ordering::Greater => Check::skip(step, "not reached"),
    };
    STEPS.iter().enumerate().map(check).collect()
}

/// Whether the server forwards, by what it says to a connection to itself and to those that were asked for.
pub(super) fn forwarding(own: &Result<(), OpenError>, probes: &[Result<(), OpenError>]) -> Check {
    let is_prohibited = |result: &Result<(), OpenError>| matches!(result, Err(error) if error.failure == OpenFailure::Prohibited);
    if !is_prohibited(own) {
        return Check::pass("forwarding", "permitted");
    }
    if probes.iter().any(|result| !is_prohibited(result)) {
        return Check::pass(
            "forwarding",
            "permitted for some targets (PermitOpen, or permitopen= of the key)",
        );
    }
    let advice = "the server's administrator: AllowTcpForwarding yes, PermitOpen for these targets, and port-forwarding for the key";
    if probes.is_empty() {
        return Check::warn(
            "forwarding",
            "the server forbids a connection to itself: it forwards to some targets only, or not at all",
            "name a target that should work: --probe HOST:PORT",
        );
    }
    Check::fail("forwarding", "the server forbids every target", advice)
}

/// A target that was asked for.
pub(super) fn probe(typed: &str, result: &Result<(), OpenError>, took: Duration) -> Check {
    let ms = took.as_secs_f64() * 1000.0;
    let error = match result {
        Ok(()) => return Check::pass("probe", format!("{typed} is open, in {ms:.0} ms")),
        Err(error) => error,
    };
    let found = format!("{typed}: {error}, after {ms:.0} ms");
    match error.failure {
        OpenFailure::Refused => Check::warn(
            "probe",
            found,
            "the host is there, and nothing listens on that port",
        ),
        OpenFailure::HostUnreachable | OpenFailure::NetworkUnreachable => Check::fail(
            "probe",
            found,
            "the server has no way there: on it, see ip route get, and its security groups",
        ),
        OpenFailure::TimedOut => Check::fail(
            "probe",
            found,
            "a firewall between the server and the target drops it, or the host is off",
        ),
        OpenFailure::Prohibited => Check::fail(
            "probe",
            found,
            "PermitOpen in sshd_config, or permitopen= of the key, must name it",
        ),
        OpenFailure::Filtered => {
            Check::fail("probe", found, "a packet filter on the way forbids it")
        }
        _ => Check::fail("probe", found, "try it on the server: nc -vz HOST PORT"),
    }
}

/// Whether a session can run something. Nothing needs it, but it wakes sshd from Nagle's algorithm.
pub(super) fn exec(answer: &Answer) -> Check {
    match answer {
        Answer::Granted(output) if is_ours(output) => Check::pass("exec", "commands run"),
        Answer::Granted(_) => Check::pass("exec", "a forced command answers instead"),
        Answer::Refused | Answer::NoSession => {
            Check::pass("exec", "no command is run, which underpass does without")
        }
        Answer::Silent => Check::warn(
            "exec",
            "no answer to a command within 5 s",
            "a shell start-up file or a forced command may hang there: try ssh HOST true",
        ),
    }
}

/// sshd sends small packets at once only after a session has run something (packet.c, ssh_packet_set_interactive).
pub(super) fn nodelay(answer: &Answer) -> Check {
    match answer {
        Answer::Granted(_) => Check::pass("nodelay", "the server sends small packets at once"),
        Answer::Refused | Answer::NoSession => Check::pass(
            "nodelay",
            "the server may hold small packets back; underpass acknowledges at once instead",
        ),
        Answer::Silent => Check::skip("nodelay", "the server did not answer"),
    }
}

/// The time to the server and back, and what it allows one flow.
pub(super) fn latency(round_trips: &[Duration], window: impl Fn(Duration) -> u32) -> Vec<Check> {
    let mut sorted = round_trips.to_vec();
    sorted.sort();
    let Some(median) = sorted.get(sorted.len() / 2).copied() else {
        return vec![Check::warn(
            "latency",
            "the server did not answer a question within 5 s",
            "the path may be lossy: try ping and mtr",
        )];
    };
    let found = format!("a round trip takes {:.2} ms", median.as_secs_f64() * 1000.0);
    let latency = if median < SLOW {
        Check::pass("latency", found)
    } else {
        Check::warn(
            "latency",
            found,
            "many short connections will be slow; a server that is nearer helps",
        )
    };
    // The window is opened again when half of it is used.
    let down = rate(window(median) / 2, median);
    let up = rate(UP_WINDOW, median);
    let window = Check::pass(
        "window",
        format!("its windows allow one flow {down} down and {up} up on this path"),
    );
    vec![latency, window]
}

/// So many bytes per round trip, as far as that says something: SSH itself is slower than the rest.
fn rate(bytes: u32, round_trip: Duration) -> String {
    let megabits = f64::from(bytes) * 8.0 / 1e6;
    let seconds = round_trip.as_secs_f64();
    if megabits > MOST_RATE * seconds {
        return format!("more than {MOST_RATE} Mbit/s");
    }
    format!("{:.0} Mbit/s", megabits / seconds)
}

/// What the script has said of the server's clock.
pub(super) fn clock(output: &[u8], now: u64) -> Check {
    match is_ours(output) {
        true => far_clock(&String::from_utf8_lossy(output), now),
        false => Check::skip("far-clock", "no command is run there"),
    }
}

/// Whom the server asks for names, as the script has said.
///
/// # Errors
/// Why that is not known.
pub(super) fn name_servers(output: &[u8]) -> Result<Vec<SocketAddr>, &'static str> {
    if !is_ours(output) {
        return Err("no command is run there");
    }
    // An address of one of its links means nothing to who forwards.
    let servers = names::servers(&String::from_utf8_lossy(output), |_| None);
    match servers.is_empty() {
        true => Err("/etc/resolv.conf there names no server"),
        false => Ok(servers),
    }
}

/// Of the name servers there, who answers over TCP; and whether names were asked for, which are looked up so.
pub(super) fn far_resolver(servers: &[(SocketAddr, bool)], is_needed: bool) -> Check {
    let shown = |answers: bool| {
        let found = servers.iter().filter(|(_, does)| *does == answers);
        let found: Vec<String> = found.map(|(server, _)| shown(*server)).collect();
        found.join(", ")
    };
    let (answering, silent) = (shown(true), shown(false));
    let advice = "up --dns asks it over TCP, through the server; name one that answers: --dns-server IP, in a cloud usually the VPC's base \
                  address + 2, 169.254.169.253 or 169.254.169.254";
    match (answering.is_empty(), silent.is_empty()) {
        (_, true) => Check::pass("far-resolver", answering),
        (false, false) => {
            let found = format!("{answering}; no answer from {silent}");
            Check::warn("far-resolver", found, advice)
        }
        (true, false) => {
            let found = format!("no answer from {silent}");
            match is_needed {
                true => Check::fail("far-resolver", found, advice),
                false => Check::warn("far-resolver", found, advice),
            }
        }
    }
}

/// Without the port that all have.
fn shown(server: SocketAddr) -> String {
    match server.port() {
        DNS => server.ip().to_string(),
        _ => server.to_string(),
    }
}

fn far_clock(text: &str, now: u64) -> Check {
    let time: Option<u64> = text
        .lines()
        .nth(1)
        .and_then(|line| line.trim().parse().ok());
    let Some(time) = time else {
        return Check::skip("far-clock", "the server does not tell");
    };
    let difference = time.abs_diff(now);
    if difference <= CLOCK {
        return Check::pass("far-clock", "as here");
    }
    Check::warn(
        "far-clock",
        format!("the server's clock differs by {difference} s"),
        "certificates and the logs of both sides need the same time: chrony or systemd-timesyncd",
    )
}

/// Whether the script has run, and not something else in its place.
pub(super) fn is_ours(output: &[u8]) -> bool {
    output.starts_with(MARK.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::super::check::Verdict::{self, Fail, Pass, Skip, Warn};
    use super::*;
    use crate::carrier::HostKeyError;

    fn refused(failure: OpenFailure) -> Result<(), OpenError> {
        Err(OpenError::new(failure, ""))
    }

    #[test]
    fn forwarding_is_judged_by_all_that_is_known() {
        let prohibited = || refused(OpenFailure::Prohibited);
        for (own, probes, expected) in [
            (Ok(()), vec![], Pass),
            (refused(OpenFailure::Refused), vec![], Pass),
            (prohibited(), vec![], Warn),
            (prohibited(), vec![Ok(())], Pass),
            (
                prohibited(),
                vec![prohibited(), refused(OpenFailure::TimedOut)],
                Pass,
            ),
            (prohibited(), vec![prohibited()], Fail),
        ] {
            assert_eq!(
                forwarding(&own, &probes).verdict,
                expected,
                "{own:?} {probes:?}"
            );
        }
    }

    #[test]
    fn a_probe_is_told_as_it_is() {
        use OpenFailure::{HostUnreachable, Other, Prohibited, Refused, TimedOut};
        let took = Duration::from_millis(5);
        assert_eq!(probe("a:1", &Ok(()), took).verdict, Pass);
        assert_eq!(probe("a:1", &refused(Refused), took).verdict, Warn);
        for failure in [HostUnreachable, Other, Prohibited, TimedOut] {
            assert_eq!(probe("a:1", &refused(failure), took).verdict, Fail);
        }
    }

    #[test]
    fn a_failed_login_says_how_far_it_came() {
        let verdicts = |error: ConnectError| -> Vec<Verdict> {
            not_logged_in(&error)
                .iter()
                .map(|check| check.verdict)
                .collect()
        };
        let unknown = ConnectError::UnknownHost {
            host: "h".into(),
            source: io::ErrorKind::NotFound.into(),
        };
        assert_eq!(verdicts(unknown), [Fail, Skip, Skip, Skip]);
        let unreachable = ConnectError::Unreachable {
            server: "192.0.2.1:22".into(),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        assert_eq!(verdicts(unreachable), [Pass, Fail, Skip, Skip]);
        let key = HostKeyError::Unknown {
            advice: "h".into(),
            host: "h".into(),
            algorithm: "ED25519".into(),
            fingerprint: "SHA256:x".into(),
        };
        assert_eq!(verdicts(key.into()), [Pass, Pass, Fail, Skip]);
        let ended = ConnectError::Ended {
            host: "h".into(),
            detail: "x".into(),
        };
        assert_eq!(verdicts(ended), [Pass, Pass, Pass, Fail]);
    }

    #[test]
    fn sessions_are_told_apart() {
        let ours = Answer::Granted(b"underpass-doctor\n1\n".to_vec());
        assert!(exec(&ours).found.contains("run"));
        assert!(
            exec(&Answer::Granted(b"no\n".to_vec()))
                .found
                .contains("forced")
        );
        assert_eq!(exec(&Answer::NoSession).verdict, Pass);
        assert_eq!(exec(&Answer::Silent).verdict, Warn);
        assert_eq!(nodelay(&Answer::Silent).verdict, Skip);
    }

    #[test]
    fn a_path_is_judged_by_its_median() {
        let ms = Duration::from_millis;
        let verdict = |round_trips: &[Duration]| latency(round_trips, |_| 1 << 20)[0].verdict;
        assert_eq!(verdict(&[]), Warn);
        assert_eq!(verdict(&[ms(1), ms(900), ms(2)]), Pass);
        assert_eq!(verdict(&[ms(300); 3]), Warn);
        let window = |round_trip| latency(&[round_trip], |_| 1 << 20)[1].found.clone();
        // sshd's 2 MiB per 100 ms.
        assert!(window(ms(100)).contains("168 Mbit/s up"));
        let loopback =
            "its windows allow one flow more than 10000 Mbit/s down and more than 10000 Mbit/s up";
        for round_trip in [Duration::ZERO, Duration::from_micros(90)] {
            let found = window(round_trip);
            assert!(found.starts_with(loopback), "{found}");
        }
    }

    #[test]
    fn the_far_side_is_read() {
        let output = b"underpass-doctor\n1000\nsearch x\nnameserver 192.0.2.53\n";
        assert_eq!(clock(output, 1010).verdict, Pass);
        assert_eq!(clock(output, 2000).verdict, Warn);
        assert_eq!(clock(b"welcome\n", 0).verdict, Skip);
        let servers = name_servers(output).unwrap();
        assert_eq!(servers, ["192.0.2.53:53".parse().unwrap()]);
        for (output, why) in [
            (&b"welcome\nnameserver 192.0.2.53\n"[..], "no command"),
            (b"underpass-doctor\n1000\n", "names no server"),
        ] {
            assert!(name_servers(output).unwrap_err().contains(why));
        }
    }

    #[test]
    fn a_name_server_that_does_not_answer_is_no_pass() {
        let servers = ["192.0.2.53:53", "192.0.2.54:5353"].map(|text| text.parse().unwrap());
        for (answers, is_needed, verdict, found) in [
            ([true, true], true, Pass, "192.0.2.53, 192.0.2.54:5353"),
            (
                [true, false],
                true,
                Warn,
                "192.0.2.53; no answer from 192.0.2.54:5353",
            ),
            (
                [false, false],
                true,
                Fail,
                "no answer from 192.0.2.53, 192.0.2.54:5353",
            ),
            (
                [false, false],
                false,
                Warn,
                "no answer from 192.0.2.53, 192.0.2.54:5353",
            ),
        ] {
            let asked: Vec<_> = servers.into_iter().zip(answers).collect();
            let check = far_resolver(&asked, is_needed);
            assert_eq!((check.verdict, check.found.as_str()), (verdict, found));
            let advice = check.advice.unwrap_or_default();
            assert_eq!(
                advice.contains("--dns-server IP"),
                verdict != Pass,
                "{advice}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_output_will_do(output: Vec<u8>, now: u64) {
            for output in [&[MARK.as_bytes(), b"\n", &output].concat(), &output] {
                clock(output, now);
                let _ = name_servers(output);
            }
        }
    }
}
