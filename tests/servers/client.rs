//! What a person writes into ssh's configuration for a plan, and a program that answers ssh's questions.

#![allow(dead_code, reason = "each test file uses a part")]

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use underpass::plan::{Route, SshClient, SshPlan};

use crate::rig;

/// A plan, once more as arguments for ssh.
pub(crate) struct Configured {
    pub(crate) plan: SshPlan,
    pub(crate) client: SshClient,
    _dir: TempDir,
}

impl Configured {
    pub(crate) fn new(plan: &SshPlan) -> Self {
        let dir = TempDir::new_in("/tmp").unwrap();
        let file = dir.path().join("ssh_config");
        fs::write(&file, configuration(plan)).unwrap();
        Self {
            // One address is several hosts.
            plan: SshPlan {
                alias: "server-0".to_owned(),
                ..plan.clone()
            },
            client: SshClient {
                arguments: vec!["-F".to_owned(), file.display().to_string()],
            },
            _dir: dir,
        }
    }
}

/// The target is `server-0`, the last one before it `server-1`.
fn configuration(plan: &SshPlan) -> String {
    let mut text = String::new();
    for (i, server) in plan.servers().enumerate() {
        let SshPlan {
            host, port, user, ..
        } = server;
        writeln!(text, "Host server-{i}").unwrap();
        writeln!(text, "HostName {host}\nPort {port}\nUser {user}").unwrap();
        for key in &server.identities {
            writeln!(text, "IdentityFile {}", key.display()).unwrap();
        }
        for file in &server.known_hosts {
            writeln!(text, "UserKnownHostsFile {}", file.display()).unwrap();
        }
        match &server.route {
            Route::Direct => {}
            Route::Jump(_) => writeln!(text, "ProxyJump server-{}", i + 1).unwrap(),
            Route::Command(command) => writeln!(text, "ProxyCommand {command}").unwrap(),
        }
    }
    text + "Host *\nGlobalKnownHostsFile none\nStrictHostKeyChecking yes\nIdentityAgent none\nIdentitiesOnly yes\n"
}

/// ssh reads answers from the terminal, or from a program that its environment names: runs `test`, which stands in `module`,
/// again in a process of its own where that program says `answer`. False in that process, which is to go on with the test.
pub(crate) fn runs_again_with_answers(module: &str, test: &str, answer: &str) -> bool {
    runs_again_with(module, test, &format!("echo '{answer}'"))
}

/// The same, with `lines` of a shell for the program; the question is its argument.
pub(crate) fn runs_again_with(module: &str, test: &str, lines: &str) -> bool {
    if std::env::var_os("SSH_ASKPASS_REQUIRE").is_some_and(|value| value == "force") {
        return false;
    }
    let dir = TempDir::new_in("/tmp").unwrap();
    let program = askpass(dir.path(), lines);
    let mut again = rig::one_test(module, test);
    again.env("SSH_ASKPASS", &program);
    again.env("SSH_ASKPASS_REQUIRE", "force");
    rig::assert_passes(again);
    true
}

/// A program of ssh's `SSH_ASKPASS`, with these lines of a shell.
pub(crate) fn askpass(dir: &Path, lines: &str) -> PathBuf {
    let program = dir.join("askpass");
    fs::write(&program, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    program
}
