//! Failed logins in the words of ssh 9.2.

use std::sync::Arc;

use proptest::prelude::*;

use crate::carrier::error::{CommandEnd, LAST_WORDS};
use crate::plan::Route;

use super::*;

/// What a login of process 1 that has said `log`, and has let others say `asides`, is told as.
fn refusal(log: &[&str], asides: &[&str]) -> String {
    let plan = SshPlan {
        alias: "prod".into(),
        arguments: "prod".into(),
        ..SshPlan::new("127.0.0.1", 2299, "root")
    };
    let mut words = Words::of(1, Arc::default());
    log.iter().for_each(|line| words.hear(line));
    asides.iter().for_each(|line| words.overhear(line));
    let refusal = Refusal {
        plan: &plan,
        words: &words,
        taken: Duration::from_secs(7),
    };
    let error = refusal.error().to_string();
    assert_eq!(error.lines().count(), 1);
    error
}

const CONNECTING: &str = "debug1: sshconnect.c:ssh_connect_direct():485 (pid=1): Connecting to prod [127.0.0.1] port 2299.\r";
const GREETING: &str =
    "debug1: kex.c:kex_exchange_identification():1347 (pid=1): Local version string SSH-2.0-x";
const KEY: &str =
    "debug1: sshconnect.c:verify_host_key():1477 (pid=1): Server host key: ssh-ed25519 SHA256:eHV4";
const NO: &str = "debug1: sshconnect2.c:input_userauth_failure():743 (pid=1): Authentications that can continue: publickey";
const OFFER: &str = "debug1: sshconnect2.c:userauth_pubkey():2066 (pid=1): Offering public key: /k ED25519 SHA256:x explicit";
const CHANGED: [&str; 4] = [
    "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
    "Offending ED25519 key in /k h/kh2:1",
    "Host key for [127.0.0.1]:2299 has changed and you have requested strict checking.",
    "Host key verification failed.",
];

#[test]
fn logins_that_are_refused() {
    let denied = "sshconnect2.c:userauth():640 (pid=1): root@127.0.0.1: Permission denied (publickey,password).";
    let farewell = "Received disconnect from 127.0.0.1 port 22:2: Too many authentication failures";
    let ended = "Disconnected from 127.0.0.1 port 22";
    for (log, expected) in [
        (
            &[KEY, NO, OFFER, NO, denied][..],
            "root@prod: permission denied (the server takes: publickey, password; tried: /k). Name a key",
        ),
        (
            &[
                KEY,
                NO,
                "root@127.0.0.1: Permission denied (keyboard-interactive).",
            ],
            "tried: no key found). It asks for a password or a code",
        ),
        (
            &[KEY, NO, OFFER, NO, farewell, ended],
            "after 1 attempts: Too many authentication failures (tried: /k). Offer the right key alone",
        ),
        (
            &[KEY, "Host key verification failed."],
            "no ED25519 host key is known for [127.0.0.1]:2299 (offered: SHA256:eHV4). Compare",
        ),
        (
            &[KEY, CHANGED[0], CHANGED[1], CHANGED[2], CHANGED[3]],
            "known: /k h/kh2:1). Somebody may be listening in. If the change is expected: ssh-keygen -R '[127.0.0.1]:2299' -f '/k h/kh2'",
        ),
    ] {
        let said = refusal(log, &["a banner"]);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn servers_that_are_not_reached() {
    let refused = "sshconnect.c:ssh_connect_direct():530 (pid=1): ssh: connect to host prod port 2299: Connection refused";
    let timed_out = "ssh: connect to host prod port 2299: Connection timed out";
    for (log, expected) in [
        (
            &["ssh: Could not resolve hostname nx.invalid: Name or service not known"][..],
            "cannot resolve nx.invalid: Name or service",
        ),
        (
            &[CONNECTING, refused],
            "cannot connect to 127.0.0.1:2299: Connection refused. Nothing listens on port 2299",
        ),
        (
            &[
                CONNECTING,
                "bind 1.2.3.4: Cannot assign requested address",
                "ssh: connect to host prod port 2299: failure",
            ],
            "cannot connect from 1.2.3.4 (BindAddress): Cannot assign requested address. The addresses of this host",
        ),
        (
            &[
                CONNECTING,
                "getaddrinfo: nope.invalid: Name or service not known",
                "ssh: connect to host prod port 2299: failure",
            ],
            "cannot connect from nope.invalid (BindAddress): Name or service not known",
        ),
        // An ssh before 8.5 tells no address.
        (
            &[refused],
            "cannot connect to prod:2299: Connection refused. Nothing listens on port 2299 there, or a firewall refuses; is \
             sshd on another port (-p)? Check with: nc -vz prod 2299",
        ),
        (
            &["ssh: connect to host fd00::1 port 22: Network is unreachable"],
            "cannot connect to [fd00::1]:22: Network is unreachable. The route there: ip route get fd00::1",
        ),
        (
            &[CONNECTING, timed_out],
            "no answer from 127.0.0.1:2299 within 7 s",
        ),
        (
            &[
                CONNECTING,
                "Unable to negotiate with 127.0.0.1 port 2299: no matching cipher found.",
            ],
            "the SSH handshake with 127.0.0.1:2299 failed",
        ),
        (&[], "it says nothing"),
    ] {
        let said = refusal(log, &[]);
        assert!(said.contains(expected), "{said}");
    }
    let said = refusal(&[], &["command-line line 0: Bad SSH2 cipher spec 'nono'."]);
    assert!(said.contains("ssh ended: command-line line 0"), "{said}");
}

/// ssh gives it up by itself, before or after we do.
#[test]
fn a_handshake_that_does_not_end() {
    let version = "debug1: kex.c:kex_exchange_identification():1456 (pid=1): Remote protocol version 2.0, remote software version x";
    let late = "Connection to 127.0.0.1 port 2299 timed out";
    let said = refusal(&[CONNECTING, GREETING, version, late], &[]);
    let expected = "no answer from 127.0.0.1:2299 within 7 s: the SSH handshake does not end";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn servers_that_do_not_speak_ssh() {
    let banner = |text: &str| {
        format!("debug1: kex.c:kex_exchange_identification():1430 (pid=1): banner line 0: {text}")
    };
    let old = "debug1: kex.c:kex_exchange_identification():1456 (pid=1): Remote protocol version 1.5, remote software version old";
    let closed = "Connection closed by 127.0.0.1 port 2299";
    let late = "Connection to 127.0.0.1 port 2299 timed out";
    for (heard, last, expected) in [
        (
            banner("HTTP/1.1 400 Bad Request"),
            closed,
            "the SSH handshake with 127.0.0.1:2299 failed: it is not an SSH server: it says \"HTTP/1.1 400 Bad Request\". \
             Compare with: ssh -v prod",
        ),
        (
            banner("Exceeded MaxStartups"),
            closed,
            "ended before the login was done: it said \"Exceeded MaxStartups\" and closed the connection",
        ),
        (
            String::new(),
            closed,
            "ended before the login was done: it closed the connection before its SSH banner (MaxStartups",
        ),
        (
            old.to_owned(),
            "banner exchange: Connection to 127.0.0.1 port 2299: could not read protocol version",
            "it does not speak SSH 2: it says \"SSH-1.5",
        ),
        (
            banner("220 mail ESMTP"),
            late,
            "no answer from 127.0.0.1:2299 within 7 s: it is connected, but sends no SSH banner. Is it sshd",
        ),
    ] {
        let said = refusal(&[CONNECTING, GREETING, &heard, last], &[]);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn ways_that_lead_nowhere() {
    let closed = [GREETING, "Connection closed by UNKNOWN port 65535"];
    for (log, asides, expected) in [
        (
            &closed[..],
            &["token expired"][..],
            "the ProxyCommand or jump host does not lead to it: token expired. Try",
        ),
        (
            &["banner exchange: Connection to UNKNOWN port 65535: invalid format"],
            &[],
            "does not lead to it: banner exchange",
        ),
        (
            &[GREETING, "Connection to UNKNOWN port 65535 timed out"],
            &["Connecting..."],
            "no answer from prod within 7 s: it is connected, but sends no SSH banner",
        ),
    ] {
        let said = refusal(log, asides);
        assert!(said.contains(expected), "{said}");
    }
}

/// By way of `hops`, the last of which is dialled, with what their ssh processes have said.
fn behind(hops: &[&str], asides: &[&str]) -> ConnectError {
    let chain = hops.iter().rev().fold(None::<SshPlan>, |way, hop| {
        Some(SshPlan {
            is_hop: true,
            route: way.map_or(Route::Direct, |way| Route::Jump(Box::new(way))),
            ..SshPlan::new(hop, 22, "me")
        })
    });
    let plan = SshPlan {
        route: Route::Jump(Box::new(chain.unwrap())),
        ..SshPlan::new("prod", 22, "root")
    };
    let log = [
        GREETING,
        "kex_exchange_identification: Connection closed by remote host",
        "Connection closed by UNKNOWN port 65535",
    ];
    heard(&plan, &log, asides)
}

/// What comes of these lines in ssh's log, and of those on the way.
fn heard(plan: &SshPlan, log: &[&str], asides: &[&str]) -> ConnectError {
    let mut words = Words::of(1, Arc::default());
    log.iter().for_each(|line| words.hear(line));
    asides.iter().for_each(|line| words.overhear(line));
    Refusal {
        plan,
        words: &words,
        taken: Duration::from_secs(7),
    }
    .error()
}

#[test]
fn a_hop_that_refuses_is_named() {
    let ended = "Connection closed by UNKNOWN port 65535";
    let denied = "me@b: Permission denied (publickey).";
    for (asides, expected) in [
        (
            &["hello", denied][..],
            "jump host a: me@a: permission denied (the server takes: publickey; tried: ssh does not tell). Name a key for it in",
        ),
        (
            &[
                denied,
                "kex_exchange_identification: Connection closed by remote host",
                ended,
            ],
            "jump host b: me@b: permission denied",
        ),
        (
            &["Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures"],
            "jump host a: me@a: the server let us try no further",
        ),
    ] {
        let error = behind(&["a", "b"], asides);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(matches!(
            error.origin(),
            ConnectError::Refused { .. } | ConnectError::TooManyTries { .. }
        ));
    }
}

#[test]
fn a_hop_with_another_key_is_named() {
    let careless = "Error: forwarding disabled due to host key check failure";
    for (asides, expected) in [
        (
            &[CHANGED[3]][..],
            "jump host a: host key verification failed: ssh does not take the key of a: it is not known. Compare the fingerprint, then connect once with: ssh ",
        ),
        (
            &CHANGED,
            "jump host a: host key verification failed: ssh does not take the key of a: it has changed",
        ),
        (
            &[CHANGED[0], "SHA256:abc.", CHANGED[1], careless],
            "(offered: SHA256:abc, known: /k h/kh2:1). Somebody may be listening in. If the change is expected: ssh-keygen -R a -f",
        ),
    ] {
        let error = behind(&["a"], asides);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(matches!(error.origin(), ConnectError::HostKey(_)));
    }
}

/// The nearest to the server comes first.
#[test]
fn a_hop_that_is_not_reached_or_leads_no_further_is_named() {
    let ended = [
        "kex_exchange_identification: Connection closed by remote host",
        "Connection closed by UNKNOWN port 65535",
    ];
    let refused = "ssh: connect to host b.example port 22: Connection refused";
    let late = "ssh: connect to host b.example port 22: Connection timed out";
    let nowhere = "ssh: Could not resolve hostname b.example: Name or service not known";
    let closed = "channel 0: open failed: connect failed: Connection refused";
    let forbidden = "channel 0: open failed: administratively prohibited: open failed";
    let no_stdio = "stdio forwarding failed";
    for (asides, expected) in [
        (
            &[refused, ended[0], ended[1]][..],
            "jump host b: cannot connect to b.example:22: Connection refused. Nothing listens on port 22 there",
        ),
        (
            &[late, ended[0], ended[1]],
            "jump host b: no answer from b.example:22 within 7 s. A firewall",
        ),
        (
            &[nowhere, ended[0], ended[1]],
            "jump host b: cannot resolve b.example: Name or service not known. Check",
        ),
        (
            &[closed, no_stdio, ended[0], ended[1]],
            "jump host a: the jump host b does not connect to a:22: refused (Connection refused). Try there: ssh ",
        ),
        (
            &[closed, no_stdio],
            "the jump host a does not connect to prod:22: refused (Connection refused). Try there: ssh ",
        ),
        (
            &["a banner", forbidden, no_stdio],
            "the jump host a does not connect to prod:22: prohibited (open failed). Try there: ssh ",
        ),
    ] {
        let error = behind(&["a", "b"], asides).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let error = behind(&["a"], &["what nobody knows"]);
    assert!(matches!(error, ConnectError::Ssh(_)), "{error}");
}

#[test]
fn a_command_that_ends_is_named_as_over_the_built_in_ssh() {
    let plan = SshPlan {
        route: Route::Command("nc prod 22".into()),
        ..SshPlan::new("prod", 22, "root")
    };
    let error = |log: &[&str], asides: &[&str]| heard(&plan, log, asides);
    let closed = [
        GREETING,
        "kex_exchange_identification: Connection closed by remote host",
        "Connection closed by UNKNOWN port 65535",
    ];
    let mute = "prod: the ProxyCommand ended before the server had said a word";
    for (log, asides, expected) in [
        (&closed[..], &[][..], ". The command was: nc prod 22"),
        (
            &closed,
            &["starting", "token expired"],
            ": token expired. The command was: nc prod 22",
        ),
        (
            &[
                GREETING,
                "banner exchange: Connection to UNKNOWN port 65535: Broken pipe",
            ],
            &[],
            ". The command was: nc prod 22",
        ),
    ] {
        let error = error(log, asides);
        assert_eq!(error.to_string(), format!("{mute}{expected}"));
        assert!(matches!(
            error,
            ConnectError::Command {
                end: CommandEnd::NoWay,
                ..
            }
        ));
    }
    let late = error(&[GREETING, KEY, closed[2]], &[]);
    assert!(
        matches!(
            &late,
            ConnectError::Command {
                end: CommandEnd::Late,
                ..
            }
        ),
        "{late}"
    );
    for (said, expected) in LAST_WORDS {
        let error = error(&closed, said);
        assert!(
            matches!(&error, ConnectError::Command { end, .. } if *end == expected),
            "{error}"
        );
    }
}

/// A server may say what it likes in its banner, in the text of its DISCONNECT, and, where the log has it, with line feeds.
#[test]
fn no_error_is_a_servers_invention() {
    let farewell = "Received disconnect from 127.0.0.1 port 22:2: x";
    let ended = "Disconnected from 127.0.0.1 port 22";
    let [a, b, c, d] = CHANGED;
    let said = refusal(&[KEY, NO, farewell, a, b, c, d, ended], &[]);
    assert!(
        said.contains("the connection ended before the login was done"),
        "{said}"
    );
    // A request for a new password has a text too.
    let said = refusal(
        &[KEY, NO, a, b, c, d, "Connection closed by 1.2.3.4 port 5"],
        &[],
    );
    assert!(!said.contains("ssh-keygen"), "{said}");
    let said = refusal(
        &[GREETING, KEY, "Connection closed by 1.2.3.4 port 5"],
        &CHANGED,
    );
    assert!(!said.contains("changed"), "{said}");
}

proptest! {
    #[test]
    fn no_line_panics(
        log in proptest::collection::vec("\\PC{0,40}|Connecting to .{0,9}\\[.{0,9}|Offending .*|.*Host key verification failed.*|ssh: connect to host.*|debug1: .*\\):.*|Received disconnect from .*|.*Permission denied \\(.*", 0..8),
        asides in proptest::collection::vec("\\PC{0,40}", 0..3),
    ) {
        let log: Vec<_> = log.iter().map(String::as_str).collect();
        let asides: Vec<_> = asides.iter().map(String::as_str).collect();
        refusal(&log, &asides);
        behind(&["a", "b"], &log);
    }
}
