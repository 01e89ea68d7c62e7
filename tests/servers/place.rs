//! What every server needs: a directory with keys, a home to log in to, and an end.

#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use underpass::plan::{HostKeyPolicy, SshPlan};

use crate::rig;

/// A directory with a key that may log in (`id_ed25519`), a host key in OpenSSH's format (`host_key`) and a home directory
/// with an authorized_keys file.
pub(crate) struct Place {
    dir: TempDir,
    /// Where the server listens on 127.0.0.1.
    pub(crate) port: u16,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new_in("/tmp").unwrap();
        let place = Self {
            dir,
            port: rig::free_port(),
        };
        for key in ["host_key", "id_ed25519"] {
            rig::keygen(&place.path(key), "ed25519", "");
        }
        let ssh = place.path("home/.ssh");
        fs::create_dir_all(&ssh).unwrap();
        fs::copy(place.path("id_ed25519.pub"), ssh.join("authorized_keys")).unwrap();
        // Servers refuse a home that others may write to.
        for dir in [place.path("home"), ssh] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
        }
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the server wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// How to log in to a server whose public host key is `host_key` (`ssh-ed25519 AAAA...`).
    pub(crate) fn plan(&self, host_key: &str) -> SshPlan {
        let line = format!("[127.0.0.1]:{} {host_key}\n", self.port);
        fs::write(self.path("known_hosts"), line).unwrap();
        SshPlan {
            identities: vec![self.path("id_ed25519")],
            host_keys: HostKeyPolicy::Yes,
            known_hosts: vec![self.path("known_hosts")],
            ..SshPlan::new("127.0.0.1", self.port, "root")
        }
    }

    /// `program` in a mount namespace of its own, in which root's home is this place's: some servers know no other place
    /// for authorized_keys. Its process is `program`'s. What it says goes to the log.
    pub(crate) fn at_home(&self, program: &str) -> Command {
        self.within(&[("home", "/root")], program)
    }

    /// `program` in a mount namespace of its own, in which each file of this place lies over one of the machine's.
    pub(crate) fn within(&self, laid_over: &[(&str, &str)], program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c"]).arg(
            "while [ $# -gt 0 ] && [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" || exit; shift 2; done\n\
             shift; exec \"$@\"",
        );
        command.arg("sh");
        for (file, over) in laid_over {
            command.arg(self.path(file)).arg(over);
        }
        command
            .args(["--", program])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log_file());
        command
    }

    /// For a server's standard error.
    pub(crate) fn log_file(&self) -> fs::File {
        let mut options = fs::OpenOptions::new();
        let opened = options.create(true).append(true).open(self.path("log"));
        opened.unwrap()
    }

    /// Waits for the server to listen.
    pub(crate) fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "no server: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.log());
        }
    }
}

/// A process of ours, ended with its children on drop.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let program = command.get_program().to_owned();
        let spawned = command.spawn();
        Self(spawned.unwrap_or_else(|e| {
            panic!("{program:?} does not start: {e}. scripts/test installs what the tests need")
        }))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        rig::kill(&self.0.id().to_string());
        let _ = self.0.wait();
    }
}

/// What `command` prints; it must succeed.
pub(crate) fn output(command: &mut Command) -> String {
    let program = command.get_program().to_owned();
    let output = command.output().unwrap_or_else(|e| {
        panic!("{program:?} does not start: {e}. scripts/test installs what the tests need")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {text}{errors}");
    text
}
