use super::*;

fn unreachable(errno: i32) -> ConnectError {
    ConnectError::Unreachable {
        server: "192.0.2.1:2222".to_owned(),
        source: io::Error::from_raw_os_error(errno),
    }
}

fn timed_out(stage: Stage) -> ConnectError {
    ConnectError::TimedOut {
        server: "[2001:db8::1]:22".into(),
        seconds: 10,
        stage,
    }
}

/// The hint follows the kind of failure, and can be pasted.
#[test]
fn what_to_look_at() {
    for (error, text) in [
        (
            unreachable(101),
            "cannot connect to 192.0.2.1:2222: Network is unreachable. The route there: ip route get 192.0.2.1",
        ),
        (
            unreachable(113),
            "cannot connect to 192.0.2.1:2222: No route to host. The route there: ip route get 192.0.2.1",
        ),
        (
            unreachable(111),
            "cannot connect to 192.0.2.1:2222: Connection refused. Nothing listens on port 2222 there, or a firewall refuses; \
             is sshd on another port (-p)? Check with: nc -vz 192.0.2.1 2222",
        ),
        (
            unreachable(13),
            "cannot connect to 192.0.2.1:2222: Permission denied. A packet filter forbids it, here or on the way: sudo nft \
             list ruleset",
        ),
        (
            unreachable(99),
            "cannot connect to 192.0.2.1:2222: Cannot assign requested address. Is sshd there? Check with: nc -vz 192.0.2.1 \
             2222",
        ),
        (
            ConnectError::UnknownHost {
                host: "prod".into(),
                source: io::Error::other(
                    "failed to lookup address information: Name or service not known",
                ),
            },
            "cannot resolve prod: Name or service not known. Check the name: getent hosts prod",
        ),
        (
            timed_out(Stage::Connecting),
            "no answer from [2001:db8::1]:22 within 10 s. A firewall may drop what is sent there; check the address and the \
             port (-p): nc -vz 2001:db8::1 22",
        ),
        (
            timed_out(Stage::Banner),
            "no answer from [2001:db8::1]:22 within 10 s: it is connected, but sends no SSH banner. Is it sshd that listens \
             there? It should say SSH-2.0 here: nc 2001:db8::1 22",
        ),
        (
            ConnectError::Forward {
                hop: "gw".into(),
                target: "[2001:db8::1]:22".into(),
                reason: "No route to host".into(),
                arguments: "-F '/a b' gw".into(),
            },
            "the jump host gw does not connect to [2001:db8::1]:22: No route to host. Try there: ssh -F '/a b' gw nc -vz \
             2001:db8::1 22",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn why_a_connection_ended() {
    for (reason, text) in [
        (
            LostReason::Disconnected(String::new()),
            "the server ended the connection without a reason",
        ),
        (
            LostReason::Disconnected("bye".into()),
            "the server ended the connection: bye",
        ),
    ] {
        assert_eq!(reason.to_string(), text);
    }
}
