//! ssh's effective configuration: what `ssh -G` says is in the plan, and what happens without ssh.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::unistd::{Uid, User};
use tempfile::TempDir;
use underpass::app::ssh_config::SshConfig;
use underpass::app::surroundings::{self, Person};
use underpass::cli::UpArgs;
use underpass::plan::{
    Agent, CarrierKind, Environment, HostKeyPolicy, Plan, PlanError, PlanWarning, Route, resolve,
};

/// Files of a configuration, each in the directory of the test; `DIR` in a text is that directory.
fn files(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    // Others than root read them too.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in files {
        let text = text.replace("DIR", dir.path().to_str().unwrap());
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn config(dir: &TempDir) -> String {
    dir.path().join("config").display().to_string()
}

fn args(dir: &TempDir, remote: &str) -> UpArgs {
    UpArgs {
        remote: Some(remote.to_owned()),
        subnets: vec!["10.0.1.0/24".to_owned()],
        ssh_config: Some(config(dir)),
        ..UpArgs::default()
    }
}

/// Who runs the test, sudo or not, as `ssh` below is run by the same.
fn person() -> Person {
    let user = User::from_uid(Uid::effective()).unwrap().unwrap();
    Person {
        name: Some(user.name),
        home: Some(user.dir),
        uid: user.uid.as_raw(),
        behind_sudo: None,
        shell: None,
    }
}

/// As `up` makes it, but every key file is there.
fn planned(args: &UpArgs) -> Result<(Plan, Vec<PlanWarning>), PlanError> {
    let person = person();
    let environment = Environment {
        exists: |_| true,
        ..surroundings::environment(&person)
    };
    let mut config = SshConfig::new(person);
    resolve(args, &environment, &mut |query| config.ask(query))
}

fn plan(args: &UpArgs) -> Plan {
    planned(args).unwrap().0
}

/// The value of one option in the words of ssh itself.
fn ssh_says(dir: &TempDir, host: &str, key: &str) -> String {
    let output = Command::new("ssh")
        .args(["-G", "-F", &config(dir), host])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_default().trim().to_owned()
}

/// `underpass up --dry-run` with `path` for PATH and only NO_COLOR besides.
fn dry_run(path: &Path, more: &[(&str, &str)], args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_underpass"))
        .args(["up", "--dry-run", "198.51.100.0/24"])
        .args(args)
        .env_clear()
        .env("NO_COLOR", "1")
        .env("PATH", path)
        .envs(more.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const CONFIG: &str = "\
Include DIR/included
Host prod
    HostName %h.example.com
    IdentityFile DIR/%r@%h-%p
    IdentityFile \"DIR/a key of %u%%\"
    IdentityFile DIR/%C
    CertificateFile DIR/%n-cert.pub
    IdentityAgent DIR/%u.sock
    UserKnownHostsFile DIR/known-%k DIR/%%
    HostKeyAlias prod-key
    ControlPath DIR/%C
Host *.internal !db.internal
    User ops
    ProxyCommand nc -X \"a b\" %h %p %%
Match originalhost special exec \"test %n = special\"
    User matched
    StrictHostKeyChecking accept-new
    Ciphers aes256-gcm@openssh.com,aes128-gcm@openssh.com
Host *
    ServerAliveInterval 1m
";

fn configured() -> TempDir {
    let included = "Host prod\n  User deploy\n  Port 2222\n";
    files(&[("config", CONFIG), ("included", included)])
}

#[test]
fn the_plan_is_what_ssh_says() {
    let dir = configured();
    for host in [
        "prod",
        "web.internal",
        "db.internal",
        "special",
        "other",
        "10.0.0.1",
        "fe80::1%lo",
    ] {
        let place = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let ssh = plan(&args(&dir, &place)).ssh;
        assert_eq!(ssh.host, ssh_says(&dir, host, "hostname "));
        assert_eq!(ssh.user, ssh_says(&dir, host, "user "));
        assert_eq!(ssh.port.to_string(), ssh_says(&dir, host, "port "));
        assert_eq!(ssh.keepalive.unwrap().interval.as_secs(), 60, "{host}");
    }
}

#[test]
fn tokens_mean_what_they_mean_to_ssh() {
    let dir = configured();
    let ssh = plan(&args(&dir, "prod")).ssh;
    let path = |name: &str| dir.path().join(name);
    let user = person().name.unwrap();
    // ssh expands ControlPath by itself: its hash is ours.
    let hashed = PathBuf::from(ssh_says(&dir, "prod", "controlpath "));
    assert_eq!(
        ssh.identities,
        [
            path("deploy@prod.example.com-2222"),
            path(&format!("a key of {user}%")),
            hashed
        ]
    );
    assert_eq!(ssh.login.certificates, [path("prod-cert.pub")]);
    assert_eq!(
        ssh.login.agent,
        Agent::Socket(path(&format!("{user}.sock")))
    );
    assert_eq!(ssh.known_hosts, [path("known-prod-key"), path("%")]);
    assert_eq!(ssh.host_key_alias.as_deref(), Some("prod-key"));
}

#[test]
fn match_include_and_patterns_are_those_of_ssh() {
    let dir = configured();
    let special = plan(&args(&dir, "special")).ssh;
    assert_eq!(
        (special.alias.as_str(), special.user.as_str()),
        ("special", "matched")
    );
    assert_eq!(special.host_keys, HostKeyPolicy::AcceptNew);
    let ciphers = special.algorithms.ciphers.unwrap();
    assert_eq!(
        ciphers,
        ["aes256-gcm@openssh.com", "aes128-gcm@openssh.com"]
    );
    let other = plan(&args(&dir, "other")).ssh;
    assert_eq!(other.algorithms.ciphers, None);
    let web = plan(&args(&dir, "web.internal:2200")).ssh;
    assert_eq!(
        web.route,
        Route::Command("nc -X \"a b\" web.internal 2200 %".into())
    );
    assert_eq!(plan(&args(&dir, "db.internal")).ssh.route, Route::Direct);
}

#[test]
fn the_command_line_goes_first() {
    let dir = configured();
    let first = dir.path().join("included").display().to_string();
    let typed = UpArgs {
        login: Some("me".into()),
        port: Some(22),
        identities: vec![first.clone()],
        options: vec![
            "StrictHostKeyChecking=no".into(),
            "UserKnownHostsFile=/kh \"/a b\"".into(),
            "IdentityAgent none".into(),
        ],
        ..args(&dir, "prod")
    };
    let ssh = plan(&typed).ssh;
    assert_eq!((ssh.user.as_str(), ssh.port), ("me", 22));
    assert_eq!(ssh.identities[0], Path::new(&first));
    assert_eq!(ssh.identities.len(), 4);
    assert_eq!(ssh.host_keys, HostKeyPolicy::No);
    assert_eq!(ssh.known_hosts, ["/kh", "/a b"].map(PathBuf::from));
    assert_eq!(ssh.login.agent, Agent::None);
}

#[test]
fn the_way_through_jump_hosts_is_that_of_ssh() {
    let dir = files(&[(
        "config",
        "Host target\n  ProxyJump a@outer:2200,inner\nHost inner\n  HostName 10.0.0.7\n  ProxyJump elsewhere\n\
         Host outer\n  HostName 192.0.2.1\n  User not-this-one\n  UserKnownHostsFile DIR/kh\n",
    )]);
    let way = |args: &UpArgs| {
        let plan = plan(args);
        let shown = plan
            .ssh
            .servers()
            .map(|server| format!("{}:{}", server.host, server.port));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(
        way(&args(&dir, "target")),
        ["target:22", "10.0.0.7:22", "192.0.2.1:2200"]
    );
    let ssh = plan(&args(&dir, "target")).ssh;
    let outer = ssh.dialled().unwrap();
    assert_eq!(outer.user, "a");
    assert_eq!(outer.known_hosts, [dir.path().join("kh")]);
    let typed = UpArgs {
        jump: Some("b@[::1]:23".into()),
        ..args(&dir, "target")
    };
    assert_eq!(way(&typed), ["target:22", "::1:23"]);
    let none = UpArgs {
        options: vec!["ProxyJump none".into()],
        ..args(&dir, "target")
    };
    assert_eq!(way(&none), ["target:22"]);
}

#[test]
fn a_mistake_in_a_file_is_named_with_its_place() {
    let dir = files(&[("config", "Host *\n  Prot 22\n")]);
    let path = std::env::var("PATH").unwrap();
    let output = dry_run(Path::new(&path), &[], &["-r", "h", "-F", &config(&dir)]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("config: line 2: Bad configuration option: prot"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn what_is_not_honoured_is_said() {
    let dir = files(&[(
        "config",
        "Host h\n  HostName 198.51.100.1\n  PKCS11Provider /usr/lib/token.so\n  Compression yes\n  VerifyHostKeyDNS no\n  \
         KnownHostsCommand /bin/true %H\n  ForwardAgent yes\n  SendEnv LANG\n  ControlMaster auto\n  LocalForward 80 a:80\n",
    )]);
    let path = std::env::var("PATH").unwrap();
    let file = config(&dir);
    let typed = ["-r", "h", "-F", &file, "--carrier"];
    // ssh honours it all.
    let by_ssh = dry_run(Path::new(&path), &[], &[&typed[..], &["auto"]].concat());
    assert_eq!(text(&by_ssh.stderr), "");
    let output = dry_run(Path::new(&path), &[], &[&typed[..], &["russh"]].concat());
    assert!(output.status.success());
    let said = text(&output.stderr);
    let mut said: Vec<_> = said.lines().collect();
    said.sort_unstable();
    assert_eq!(
        said,
        [
            "underpass: warning: h: KnownHostsCommand is not honoured: host keys are looked for in files only",
            "underpass: warning: h: PKCS11Provider /usr/lib/token.so is not honoured: the token's keys are not tried; \
             load them into the agent with ssh-add -s",
        ]
    );
    assert!(text(&output.stdout).contains("throw 198.51.100.1/32"));
}

#[test]
fn without_ssh_the_files_are_read() {
    let dir = files(&[
        (
            "config",
            "Include DIR/included\nHost h\n  HostName 198.51.100.1\n  CanonicalizeHostname yes\n  BatchMode no\nHost *\n  \
             HostName 198.51.100.2\n  HashKnownHosts yes\n",
        ),
        ("included", "Host g !h\n  HostName 198.51.100.9\n"),
    ]);
    let empty = TempDir::new().unwrap();
    let run = |host: &str| {
        dry_run(
            empty.path(),
            &[],
            &["-r", host, "-F", &config(&dir), "-l", "me"],
        )
    };
    let output = run("g");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("no ssh client is installed: reading ") && said.contains("no Match"),
        "{said}"
    );
    assert!(text(&output.stdout).contains("throw 198.51.100.9/32"));
    assert!(text(&run("x").stdout).contains("throw 198.51.100.2/32"));
    let said = text(&run("h").stderr);
    assert!(
        said.contains("CanonicalizeHostname yes is not honoured"),
        "{said}"
    );
    // With no file there is nothing to say.
    let output = dry_run(empty.path(), &[], &["-r", "127.0.0.1", "-F", "none"]);
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn without_ssh_a_file_with_match_is_refused() {
    let dir = files(&[
        ("config", "Host h\n  User a\nInclude DIR/included\n"),
        ("included", "match user root\n  User b\n"),
    ]);
    let empty = TempDir::new().unwrap();
    let output = dry_run(empty.path(), &[], &["-r", "h", "-F", &config(&dir)]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("has Match blocks") && said.contains("openssh-client"),
        "{said}"
    );
}

/// What only ssh can read is ssh's to check, where the carrier is not chosen.
#[test]
fn a_binary_list_of_revoked_keys_takes_ssh() {
    let dir = files(&[("config", "Host h\n  RevokedHostKeys DIR/krl\n")]);
    let krl = dir.path().join("krl");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-k", "-f"])
        .arg(&krl)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let plan = plan(&args(&dir, "me@h"));
    assert_eq!(plan.carrier.kind, CarrierKind::Openssh);
    assert_eq!(plan.carrier.why, "only ssh honours RevokedHostKeys");
    // A list of plain keys is read here.
    fs::write(&krl, "").unwrap();
    let plan = self::plan(&args(&dir, "me@h"));
    assert_eq!(plan.carrier.kind, CarrierKind::Russh);
}

/// To go on as root would be to use root's keys, and to run what a configuration names as root.
#[test]
fn who_called_sudo_must_be_known() {
    let empty = TempDir::new().unwrap();
    for (name, uid, said) in [
        ("no-such-user", "65534", "no-such-user (SUDO_USER)"),
        ("nobody", "1", "SUDO_UID is 1"),
    ] {
        let sudo = [("SUDO_USER", name), ("SUDO_UID", uid)];
        let output = dry_run(empty.path(), &sudo, &["-r", "127.0.0.1"]);
        let text = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.contains(said) && text.contains("env -u SUDO_USER"),
            "{text}"
        );
    }
}

#[test]
fn behind_sudo_ssh_runs_as_who_called_it() {
    let dir = files(&[(
        "ssh",
        "#!/bin/sh\necho hostname 127.0.0.1\necho user $(/usr/bin/id -u)\necho port 22\n\
         echo \"identityfile /none-of-$HOME-$USER\"\necho \"$(/usr/bin/id -u) $(/usr/bin/id -G) $HOME $USER\" >&2\n",
    )]);
    fs::set_permissions(dir.path().join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let sudo = [("SUDO_USER", "nobody"), ("HOME", "/root"), ("USER", "root")];
    let output = dry_run(dir.path(), &sudo, &["-r", "h", "-v"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("ssh -G h: 65534 65534 /nonexistent nobody"),
        "{said}"
    );
}
