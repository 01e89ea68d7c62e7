//! What asks for the privileges: sudo with a password, doas, pkexec.

use std::io::Read;

use nix::pty::openpty;

use super::*;

/// A user with a /etc of their own, in which `$SETUP` is done, and with `$BIN` as their `PATH`.
const SURROUNDINGS: &str = r#"
set -e
cp -a /etc "$RIG/etc"
mount --bind "$RIG/etc" /etc
mount -t tmpfs none /run
eval "$SETUP"
exec setpriv --reuid=65534 --regid=65534 --clear-groups env "PATH=$BIN" "$@"
"#;

struct Rig {
    lab: Lab,
    key: String,
    dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let lab = Lab::up();
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let rig = Self {
            key: nobody_may_enter(&lab),
            lab,
            dir,
        };
        fs::create_dir(rig.file("bin")).unwrap();
        rig
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn link(&self, program: &str) {
        std::os::unix::fs::symlink(
            program,
            self.file("bin")
                .join(Path::new(program).file_name().unwrap()),
        )
        .unwrap();
    }

    /// `underpass up` as nobody; `options` are of setsid(1).
    fn command(&self, options: &[&str], setup: &str) -> Command {
        let wrapper = [options, &["unshare", "-m", "sh", "-c", SURROUNDINGS, "sh"]].concat();
        let args = format!("-i {} {}", self.key, V4.subnet);
        let mut command = self.lab.wrapped_up_command(&wrapper, &args);
        command
            .env("RIG", self.dir.path())
            .env("BIN", self.file("bin"))
            .env("SETUP", setup);
        command
    }

    fn works(&self, setup: &str) {
        let before = self.lab.network_state("client");
        let mut underpass = Underpass::start(self.command(&[], setup));
        assert_eq!(
            self.lab
                .result("client", &format!("connect {} 80", V4.host)),
            "open"
        );
        assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
        assert_eq!(self.lab.network_state("client"), before);
    }
}

/// A rule that allows the privileged part alone, as the manual page of doas.conf(5) has them.
#[test]
fn by_doas_packets_flow() {
    let rig = Rig::new();
    rig.link("/usr/bin/doas");
    let rule = format!("permit nopass nobody as root cmd {UNDERPASS} args helper");
    rig.works(&format!(
        "echo '{rule}' >/etc/doas.conf; chmod 600 /etc/doas.conf"
    ));
    // Without it, a word.
    let output = finished(rig.command(&[], "echo 'deny nobody' >/etc/doas.conf"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("allow it in doas.conf"), "{said}");
}

/// Where nobody can be asked. Stand-ins write down how they are called, and have sudo do it.
#[test]
fn each_is_called_as_its_manual_says() {
    for (name, options) in [
        ("sudo", &["-n", "--"][..]),
        ("doas", &["-n"]),
        ("pkexec", &[]),
    ] {
        let rig = Rig::new();
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >{}\nexec /usr/bin/sudo -n -- {UNDERPASS} helper\n",
            rig.file("argv").display()
        );
        let program = rig.file("bin").join(name);
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let rule = sudoers_rule(&rig.dir);
        rig.works(&format!("cat {} >/etc/sudoers", rule.display()));
        let argv = fs::read_to_string(rig.file("argv")).unwrap();
        let expected = [options, &[UNDERPASS, "helper"]].concat();
        assert_eq!(argv.lines().collect::<Vec<_>>(), expected, "{name}");
    }
}

/// What a terminal shows, and the keys of it.
struct Terminal {
    keys: fs::File,
    chunks: std::sync::mpsc::Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    /// Until `text` is there.
    fn shows(&mut self, text: &str) {
        while !self.shown.contains(text) {
            match self.chunks.recv_timeout(Duration::from_secs(30)) {
                Ok(chunk) => self.shown += &String::from_utf8_lossy(&chunk),
                Err(_) => panic!("no {text:?} in {}", self.shown),
            }
        }
    }
}

#[test]
fn sudo_asks_for_the_password_on_the_terminal_once() {
    let rig = Rig::new();
    let before = rig.lab.network_state("client");
    rig.link("/usr/bin/sudo");
    // A password that was typed before does not count.
    let sudoers = format!(
        "Defaults lecture=never, timestamp_timeout=0\nnobody ALL=(root) {UNDERPASS} helper\n"
    );
    fs::write(rig.file("sudoers"), sudoers).unwrap();
    let setup = "cat \"$RIG/sudoers\" >/etc/sudoers; echo nobody:open-sesame | chpasswd";
    let pty = openpty(None, None).unwrap();
    let mut command = rig.command(&["--ctty"], setup);
    command
        .stdin(pty.slave.try_clone().unwrap())
        .stdout(pty.slave.try_clone().unwrap())
        .stderr(pty.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let keys = fs::File::from(pty.master.try_clone().unwrap());
    let mut screen = fs::File::from(pty.master);
    let (sender, chunks) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        // At its end the terminal gives EIO.
        while let Ok(length) = screen.read(&mut chunk) {
            let _ = sender.send(chunk[..length].to_vec());
        }
    });
    let mut terminal = Terminal {
        keys,
        chunks,
        shown: String::new(),
    };
    terminal.shows("asking sudo");
    terminal.shows("password for nobody:");
    terminal.keys.write_all(b"open-sesame\n").unwrap();
    terminal.shows("ready");
    assert_eq!(
        rig.lab.result("client", &format!("connect {} 80", V4.host)),
        "open"
    );
    terminal.keys.write_all(b"\x03").unwrap();
    terminal.shows("stopped");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", terminal.shown);
    assert_eq!(
        terminal.shown.matches("password").count(),
        1,
        "{}",
        terminal.shown
    );
    assert!(
        !terminal.shown.contains("open-sesame"),
        "{}",
        terminal.shown
    );
    assert_eq!(rig.lab.network_state("client"), before);
}
