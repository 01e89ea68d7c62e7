//! asyncssh, in a virtual environment of the tests' own.

#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use underpass::plan::SshPlan;

use crate::place::{Place, output};
use crate::rig;

/// The version that the tests were written against.
const ASYNCSSH: &str = "asyncssh==2.24.1";

/// A Python with asyncssh, made once below the target directory: by way of the network, where it is not there yet.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(ASYNCSSH.replace("==", "-"));
        let python = dir.join("bin/python");
        let done = dir.join("done");
        // Test programs may run beside each other.
        let lock = std::fs::File::create(dir.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        if !done.exists() {
            output(
                Command::new("python3")
                    .args(["-m", "venv", "--clear"])
                    .arg(&dir),
            );
            output(Command::new(&python).args(["-m", "pip", "install", "--quiet", ASYNCSSH]));
            std::fs::write(done, "").unwrap();
        }
        python
    })
}

/// A server of `tests/servers/*.py`.
pub(crate) struct Asyncssh {
    child: Child,
    _out: BufReader<ChildStdout>,
    words: Vec<String>,
    place: Place,
}

impl Asyncssh {
    /// Starts `script` with the places of the host key and of authorized_keys; it prints its port, and
    /// further words for the test.
    pub(crate) fn start(script: &str) -> Self {
        let mut place = Place::new();
        let mut child = Command::new(python())
            .arg(Path::new("tests/servers").join(script))
            .arg(place.path("host_key"))
            .arg(place.path("home/.ssh/authorized_keys"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(place.log_file())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        let port = words.next().and_then(|port| port.parse().ok());
        place.port = port.unwrap_or_else(|| panic!("{line:?} {}", place.log()));
        Self {
            child,
            words: words.collect(),
            _out: out,
            place,
        }
    }

    /// What it printed after its port.
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    pub(crate) fn plan(&self) -> SshPlan {
        let public = std::fs::read_to_string(self.place.path("host_key.pub"));
        self.place.plan(public.unwrap().trim())
    }
}

impl Drop for Asyncssh {
    fn drop(&mut self) {
        rig::kill(&self.child.id().to_string());
        let _ = self.child.wait();
    }
}
