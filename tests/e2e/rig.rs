//! An ordinary user in the lab's client, who runs commands.

#![allow(dead_code, unreachable_pub)] // each test file uses its part
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::common::{Lab, Value, carrier, finished};

pub const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");
/// nobody: a user with no right to anything.
pub const UID: u32 = 65534;

/// Surroundings of a user: a mount namespace of their own with a device node that everybody may open, as udev makes it,
/// and what the test asks for (`$SETUP`).
const SURROUNDINGS: &str = r#"
set -e
mount -t tmpfs underpass-test "$RIG/dev"
mknod -m 666 "$RIG/dev/tun" c 10 200
mount --bind "$RIG/dev/tun" /dev/net/tun
eval "$SETUP"
exec "$@"
"#;

pub struct Rig {
    pub lab: Lab,
    pub home: TempDir,
    /// Shell commands that root runs before.
    pub setup: String,
    /// What gives the privileges up.
    pub become_user: Vec<String>,
}

impl Rig {
    pub fn new() -> Self {
        let uid = UID.to_string();
        let setpriv = [
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
        ];
        Self::with_user(&setpriv, UID)
    }

    pub fn with_user(become_user: &[&str], uid: u32) -> Self {
        let lab = Lab::up();
        let home = tempfile::Builder::new()
            .prefix("underpass-run")
            .tempdir()
            .unwrap();
        for name in ["id", "known_hosts"] {
            let file = home.path().join(name);
            fs::copy(lab.state.join(name), &file).unwrap();
            chown(&file, Some(uid), Some(uid)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::create_dir(home.path().join("dev")).unwrap();
        chown(home.path(), Some(uid), Some(uid)).unwrap();
        Self {
            lab,
            home,
            setup: String::new(),
            become_user: become_user.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `program` as the user, who runs underpass over the test's carrier.
    pub fn as_user(&self, program: impl AsRef<Path>) -> Command {
        // Whoever runs the tests may ignore signals, in the background for example.
        let mut command = self.lab.command("client", "env");
        command
            .args(["--default-signal", "unshare"])
            .args(["-m", "sh", "-c", SURROUNDINGS, "sh"])
            .args(&self.become_user)
            .arg(program.as_ref())
            .env("RIG", self.home.path())
            .env("SETUP", &self.setup)
            .env("HOME", self.home.path())
            .env("NO_COLOR", "1")
            .env("UNDERPASS_CARRIER", carrier())
            // No directory that the user may not look into: execvp(3) would say so, and not that there is no program.
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env_remove("SSH_AUTH_SOCK")
            .current_dir(self.home.path());
        command
    }

    /// The arguments from `-r` on that log in.
    pub fn login(&self) -> Vec<String> {
        let known_hosts = format!("UserKnownHostsFile={}", self.file("known_hosts").display());
        let id = self.file("id").display().to_string();
        ["-r", "root@192.168.77.1", "-i", &id, "-o", &known_hosts]
            .map(str::to_owned)
            .to_vec()
    }

    /// `underpass run` with `args`, split at blanks, and the command after `--`.
    pub fn run_command(&self, args: &str, command: &[&str]) -> Command {
        // A session of its own: there is no tty to ask on.
        let mut run = self.as_user("setsid");
        run.args(["--wait", UNDERPASS, "run"])
            .args(self.login())
            .args(args.split_whitespace())
            .arg("--")
            .args(command);
        run
    }

    /// The same to its end.
    pub fn run(&self, args: &str, command: &[&str]) -> Output {
        finished(self.run_command(args, command))
    }

    /// What it prints; it has to succeed.
    pub fn prints(&self, args: &str, command: &[&str]) -> String {
        let output = self.run(args, command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The result of a probe inside.
    pub fn probe(&self, args: &str, probe: &str) -> String {
        let words: Vec<&str> = probe.split_whitespace().collect();
        let program = probe_program();
        let output = self.run(args, &[&[program.as_str()], words.as_slice()].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        let line = text
            .lines()
            .last()
            .unwrap_or_else(|| panic!("{probe}: {said}"));
        let value: Value = serde_json::from_str(line).unwrap();
        value["result"].as_str().unwrap().to_owned()
    }
}

pub fn probe_program() -> String {
    let examples = Path::new(UNDERPASS).with_file_name("examples");
    examples.join("lab-probe").display().to_string()
}

/// Mounts of ours that reached this process.
pub fn stray_mounts() -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .filter(|line| line.contains(" - tmpfs underpass "))
        .count()
}

/// Processes that have `word` among their arguments.
pub fn processes_with(word: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = arguments.split(|byte| *byte == 0);
            pid.parse::<u32>().is_ok() && words.any(|other| other == word.as_bytes())
        })
        .collect()
}
