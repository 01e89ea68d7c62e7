//! Small servers: dropbear and tinysshd.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use underpass::plan::SshPlan;

use crate::place::{Daemon, Place, output};

/// Debian's dropbear.
pub(crate) struct Dropbear {
    _daemon: Daemon,
    place: Place,
    host_key: String,
}

impl Dropbear {
    /// Starts it with further `options`.
    pub(crate) fn start(options: &[&str]) -> Self {
        let place = Place::new();
        let key = place.path("dropbear_key");
        let made = output(
            Command::new("dropbearkey")
                .args(["-t", "ed25519", "-f"])
                .arg(&key),
        );
        let mut command = place.at_home("dropbear");
        command
            .args(["-F", "-E", "-s", "-p"])
            .arg(format!("127.0.0.1:{}", place.port))
            .args(["-P", "/dev/null", "-r"])
            .arg(key)
            .args(options);
        let daemon = Daemon::spawn(&mut command);
        place.wait();
        let public = made.lines().find(|line| line.starts_with("ssh-ed25519 "));
        Self {
            host_key: public.unwrap().to_owned(),
            _daemon: daemon,
            place,
        }
    }

    pub(crate) fn plan(&self) -> SshPlan {
        self.place.plan(&self.host_key)
    }
}

/// Debian's tinysshd, which serves one connection on stdin and stdout: a thread accepts for it.
pub(crate) struct Tinysshd {
    place: Arc<Place>,
    host_key: String,
    ending: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
    serving: Arc<Mutex<Vec<Daemon>>>,
}

impl Tinysshd {
    pub(crate) fn start() -> Self {
        let mut place = Place::new();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        place.port = listener.local_addr().unwrap().port();
        let keys = place.path("keys");
        output(Command::new("tinysshd-makekey").arg(&keys));
        let host_key = output(Command::new("tinysshd-printkey").arg(&keys));
        let place = Arc::new(place);
        let ending = Arc::new(AtomicBool::new(false));
        let serving: Arc<Mutex<Vec<Daemon>>> = Arc::default();
        let shared = (
            Arc::clone(&place),
            Arc::clone(&ending),
            Arc::clone(&serving),
        );
        let accepting = std::thread::spawn(move || {
            let (place, ending, serving) = shared;
            while let Ok((stream, _)) = listener.accept()
                && !ending.load(Relaxed)
            {
                serving.lock().unwrap().push(Self::serve(&place, stream));
            }
        });
        Self {
            place,
            host_key: host_key.trim().to_owned(),
            ending,
            accepting: Some(accepting),
            serving,
        }
    }

    fn serve(place: &Place, stream: TcpStream) -> Daemon {
        let stream = OwnedFd::from(stream);
        let mut command = place.at_home("tinysshd");
        command
            .arg("-v")
            .arg(place.path("keys"))
            .stdin(Stdio::from(stream.try_clone().unwrap()))
            .stdout(Stdio::from(stream));
        Daemon::spawn(&mut command)
    }

    pub(crate) fn plan(&self) -> SshPlan {
        self.place.plan(&self.host_key)
    }
}

impl Drop for Tinysshd {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.place.port));
        let _ = self.accepting.take().map(JoinHandle::join);
        self.serving.lock().unwrap().clear();
    }
}
