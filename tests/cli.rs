//! The command line as its users see it: help, and one clear line for each mistake.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, Output};

fn underpass(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_underpass"));
    command.args(args).env("NO_COLOR", "1").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_is_as_reviewed() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}

/// Scripts end what may not run.
#[test]
fn down_of_all_is_a_success_where_none_runs() {
    let directory = tempfile::tempdir().unwrap();
    for (args, code) in [(&["down"][..], 1), (&["down", "--all"], 0)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_underpass"));
        command
            .args(args)
            .env("UNDERPASS_RUNTIME_DIR", directory.path());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}

#[test]
fn help_is_a_command_too() {
    assert_eq!(underpass(&["help"]).stdout, underpass(&["--help"]).stdout);
    for command in ["up", "run", "doctor", "flows"] {
        let help = underpass(&["help", command]);
        assert_eq!(help.stdout, underpass(&[command, "--help"]).stdout);
        assert!(help.status.success() && text(&help.stdout).contains("Usage: underpass"));
    }
}

#[test]
fn a_mistake_gets_one_line_that_says_what_to_change() {
    for (args, words) in [
        (&["up"][..], "add -r [user@]host[:port]"),
        (&["up", "-r", "h"], "add what to capture"),
        (&["up", "-r", "", "10/8"], "host's name is empty"),
        (&["up", "-r", "h:x", "10/8"], "no number from 1 to 65535"),
        (&["up", "-r", "::g", "10/8"], "brackets"),
        (
            &["up", "-r", "me:secret@h", "10/8"],
            "password cannot be given here",
        ),
        (&["up", "-r", "h", "10.0.0.0/33"], "width is over 32"),
        (&["up", "-r", "h", "10.0.0.0/8:90-80"], "runs backwards"),
        (&["doctor", "--probe", "10.0.1.20:443"], "add -r"),
        (&["doctor", "-r", "h", "--probe", "10.0.1.20"], "no port"),
        (&["doctor", "-r", "h", "--probe", "a:0"], "1 to 65535"),
        (&["up", "-r", "h", "10/8", "--dns", "a..b"], "domains"),
        (
            &["up", "-r", "h", "10/8", "--dns=..", "--dry-run"],
            "domains",
        ),
        (&["up", "-r", "h", "db:5432"], "getent ahosts"),
        (
            &["up", "-r", "h", "db.*.internal"],
            "*.internal.example.com",
        ),
        (&["up", "-r", "h", "127.0.0.0/8"], "loopback"),
        (
            &["up", "-r", "h", "10/8", "-x", "10.0.0.0/8:80"],
            "ports have no meaning",
        ),
        (
            &["up", "-r", "h", "10.1/16", "-x", "10/8"],
            "nothing is left to capture",
        ),
        (
            &["up", "-r", "h", "10/8", "-o", "Foo=bar"],
            "Bad configuration option: foo",
        ),
        (
            &["up", "-r", "h", "10/8", "-o", "StrictHostKeyChecking=si"],
            "accept-new",
        ),
        (
            &["up", "-r", "h", "10/8", "-o", "UserKnownHostsFile"],
            "KEY=VALUE",
        ),
        (&["up", "-r", "h", "10/8", "--mtu", "500"], "1280 to 65520"),
        (
            &["up", "-r", "h", "10/8", "--tun", "sixteen-letters-"],
            "15 bytes",
        ),
        (&["up", "-r", "h:22", "-p", "23", "10/8"], "given twice"),
        (&["up", "-r", "me@h", "-l", "you", "10/8"], "given twice"),
        (&["up", "-r", "h", "-l", "me:secret", "10/8"], "-l admin"),
        (
            &["up", "-r", "h", "-F", "/no/such/file", "10/8"],
            "/no/such/file",
        ),
        (&["up", "-r", "h", "-J", "a,,b", "10/8"], "Invalid -J"),
    ] {
        let output = underpass(args);
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {line}");
        assert!(line.starts_with("underpass: error: "), "{args:?}: {line}");
        assert!(line.contains(words), "{args:?}: {line}");
        assert_eq!(line.lines().count(), 1, "{args:?}: {line}");
        assert!(!line.contains("secret"));
    }
}

#[test]
fn what_the_parser_itself_refuses_ends_with_the_same_code() {
    for args in [
        &[][..],
        &["bogus"],
        &["up", "--bogus"],
        &["up", "-r", "h", "10/8", "-p", "0"],
        &["up", "-r", "h", "10/8", "-q", "-v"],
        &["completions", "tcsh-of-mine"],
    ] {
        assert_eq!(underpass(args).status.code(), Some(2), "{args:?}");
    }
}

/// What somebody tries first.
#[test]
fn nothing_typed_shows_what_there_is() {
    let output = underpass(&[]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert_eq!(said, text(&underpass(&["-h"]).stdout));
    // Nobody types this one.
    assert!(!said.contains("helper"), "{said}");
}

#[test]
fn an_interface_without_its_equals_sign_gets_one() {
    let output = underpass(&["up", "-r", "h", "10/8", "--gateway", "eth0"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--gateway=eth0"), "{said}");
    let output = underpass(&["up", "-r", "h", "10/8", "eth0"]);
    assert!(!text(&output.stderr).contains("--gateway"));
}

#[test]
fn host_bits_are_cleared_with_a_warning() {
    let output = underpass(&["up", "-r", "127.0.0.1", "198.51.100.7/24", "--dry-run"]);
    let warning = text(&output.stderr);
    assert!(warning.contains("198.51.100.7/24 has host bits set; taken as 198.51.100.0/24"));
    assert!(text(&output.stdout).contains("ip route add 198.51.100.0/24 dev underpass0"));
    assert!(output.status.success());
}

#[test]
fn ports_leave_nothing_for_what_is_no_tcp() {
    for (networks, warns) in [
        (&["198.51.100.0/24:80"][..], true),
        (&["198.51.100.0/24:80", "203.0.113.0/24"], false),
    ] {
        let args = ["up", "-r", "127.0.0.1", "--udp", "--dry-run"];
        let output = underpass(&[&args, networks].concat());
        let warning =
            "no UDP and no ping for --udp: of 198.51.100.0/24:80 only TCP to its ports is captured";
        assert_eq!(text(&output.stderr).contains(warning), warns);
        assert!(output.status.success());
    }
}

/// Routes and rules know the network as it is here; what it stands for is said in words.
#[test]
fn a_dry_run_says_what_a_mapping_shows() {
    let args = [
        "up",
        "-r",
        "127.0.0.1",
        "203.0.113.0/25=198.51.100.9/25:443",
        "203.0.113.0/25=198.51.100.128/25",
        "-x",
        "203.0.113.8/29",
        "--dry-run",
    ];
    let output = underpass(&args);
    let (commands, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(
        commands.starts_with(
            "# 198.51.100.0/25 here is 203.0.113.0/25 behind the server\n\
             # 198.51.100.128/25 here is 203.0.113.0/25 behind the server\n"
        ),
        "{commands}"
    );
    for part in [
        "to 198.51.100.0/25 ipproto tcp dport 443 lookup ",
        "ip route add 198.51.100.128/25 dev underpass0",
    ] {
        assert!(commands.contains(part), "{part}\n{commands}");
    }
    let rest = commands.lines().filter(|line| !line.starts_with('#'));
    assert!(rest.clone().count() > 0 && rest.clone().all(|line| !line.contains("203.0.113")));
    for line in [
        "203.0.113.0/25=198.51.100.9/25:443 has host bits set; taken as 203.0.113.0/25=198.51.100.0/25:443",
        "-x 203.0.113.8/29 leaves nothing out: 203.0.113.8/29 behind the server is 198.51.100.8/29 here; \
         write -x 198.51.100.8/29 if that is meant",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[test]
fn a_dry_run_names_the_rules_and_the_server_that_is_left_out() {
    let args = [
        "up",
        "-r",
        "127.0.0.1",
        "0/0",
        "10.0.1.0/24:80-443",
        "-q",
        "--dry-run",
    ];
    let output = underpass(&args);
    let commands = text(&output.stdout);
    for part in [
        "ip route add throw 127.0.0.1/32 table ",
        "ip route add 0.0.0.0/0 dev underpass0 src 198.18.",
        "to 10.0.1.0/24 ipproto tcp dport 80-443 lookup ",
        "protocol 117",
    ] {
        assert!(commands.contains(part), "{part}\n{commands}");
    }
    assert_eq!(text(&output.stderr), "");
}

/// Where nobody looks after names who cannot be asked to ask us; then that is said.
#[test]
fn a_dry_run_says_what_becomes_of_names() {
    let args = ["up", "-r", "127.0.0.1", "198.51.100.0/24", "--dry-run"];
    for (dns, which) in [("--dns", "all names"), ("--dns=corp.test", "corp.test")] {
        let output = underpass(&[&args[..], &[dns]].concat());
        let (commands, said) = (text(&output.stdout), text(&output.stderr));
        let is_line = |line: &str| {
            line.starts_with("# ") && line.contains(" 198.19.255.") && line.contains(which)
        };
        assert!(
            commands.lines().any(is_line) || said.contains("looks after the names"),
            "{commands}{said}"
        );
    }
}

/// As under a supervisor that lets the kernel reap its children. ssh is one of ours; dash ignores no such thing.
#[test]
fn whose_starter_ignores_the_end_of_children_learns_of_it() {
    let mut command = Command::new("bash");
    let script = "trap '' CHLD; exec \"$0\" up --dry-run -r h 10.1.0.0/16";
    command.args(["-c", script, env!("CARGO_BIN_EXE_underpass")]);
    let output = command.env("NO_COLOR", "1").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn the_log_is_json_when_asked_for() {
    let output = underpass(&["up", "-r", "h", "--log-format", "json"]);
    let line = text(&output.stderr);
    assert!(
        line.starts_with('{') && line.contains("\"level\":\"ERROR\""),
        "{line}"
    );
}

#[test]
fn without_privileges_up_says_what_to_do() {
    // The build directory may be closed to others; a copy is not.
    let directory = std::env::temp_dir().join(format!("underpass-cli-{}", std::process::id()));
    let copy = directory.join("underpass");
    std::fs::create_dir_all(&directory).unwrap();
    // By a process of its own: a child of another test that had the file open for writing would make it a busy one.
    let made = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_underpass"))
        .arg(&copy)
        .status();
    assert!(made.unwrap().success());
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&copy)
        .args(["up", "-r", "127.0.0.1:1", "10.0.1.0/24"])
        .output()
        .unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{line}");
    assert!(
        line.contains("sudo") && line.contains("setcap cap_net_admin+ep"),
        "{line}"
    );
}
