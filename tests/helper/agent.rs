//! The caller's agent behind sudo: sudo hides its socket's variable, and underpass finds it, or says what to type.

use super::*;

/// An agent of nobody's with the key of the lab; it ends with this.
struct Agent {
    dir: TempDir,
    child: Child,
}

impl Agent {
    fn with_key(key: &str) -> Self {
        let dir = TempDir::new().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
        let socket = dir.path().join("agent");
        let nobody = |program: &str| {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", program])
                .env("SSH_AUTH_SOCK", &socket)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            command
        };
        let mut agent = nobody("ssh-agent");
        agent.args(["-D", "-a"]).arg(&socket);
        let child = agent.spawn().unwrap();
        let agent = Self { dir, child };
        eventually("the agent listens", || {
            UnixStream::connect(agent.socket()).is_ok()
        });
        let mut add = nobody("ssh-add");
        add.arg("-q").arg(key);
        assert!(finished(add).status.success());
        // Nothing but the agent has it from here on.
        fs::remove_file(key).unwrap();
        agent
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("agent")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A user of the lab who may do everything by sudo, and whose key is in an agent.
struct Rig {
    lab: Lab,
    agent: Agent,
    dir: TempDir,
}

impl Rig {
    fn new(sudoers: &str) -> Self {
        let lab = Lab::up();
        let agent = Agent::with_key(&nobody_may_enter(&lab));
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("sudoers");
        fs::write(&file, sudoers).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
        Self { lab, agent, dir }
    }

    /// A script of nobody's in the lab, in which `$UP` starts underpass, and `$AGENT` is the socket.
    fn script(&self, script: &str) -> Command {
        self.script_below("exec", script)
    }

    /// The same, started by root's shell with `starter`.
    fn script_below(&self, starter: &str, script: &str) -> Command {
        let sudoers = self.dir.path().join("sudoers");
        let wrapper = format!(
            "mount --bind {} /etc/sudoers && {starter} setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"",
            sudoers.display()
        );
        let up = format!(
            "UNDERPASS_RUNTIME_DIR={} {UNDERPASS} up -r root@192.168.77.1 -o UserKnownHostsFile={} {}",
            self.agent.dir.path().join("run").display(),
            self.lab.file("known_hosts"),
            V4.subnet
        );
        let mut command = self.lab.command("client", "setsid");
        command
            .args(["unshare", "-m", "sh", "-c", &wrapper, "sh"])
            .args(["sh", "-c", script])
            .env_remove("SSH_AUTH_SOCK")
            .env("AGENT", self.agent.socket())
            .env("UP", up)
            .env("NO_COLOR", "1");
        command
    }

    /// Packets flow, of a process that is nobody's; then all is as before.
    fn works(&self, script: &str) {
        let before = self.lab.network_state("client");
        let mut underpass = Underpass::start(self.script(script));
        let connected = self
            .lab
            .result("client", &format!("connect {} 80", V4.host));
        assert_eq!(connected, "open", "{script}");
        let main = *descendants(underpass.pid())
            .iter()
            .chain([&underpass.pid()])
            .find(|pid| {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                command.starts_with(UNDERPASS.as_bytes()) && !command.ends_with(b"helper\0")
            })
            .unwrap();
        let user = status(main, "Uid").unwrap();
        assert_eq!(user, "65534\t65534\t65534\t65534", "{script}");
        kill(Pid::from_raw(main), Signal::SIGTERM).unwrap();
        assert_eq!(underpass.wait().code(), Some(0), "{script}");
        assert_eq!(self.lab.network_state("client"), before, "{script}");
    }
}

/// sudo for everything, as the one user of a laptop has it.
const EVERYTHING: &str = "Defaults use_pty\nnobody ALL=(root) NOPASSWD:SETENV: ALL\n";

/// Each line leaves the variable with others: with sudo alone; with the shell that was started with it; with sudo, and root's
/// shell has it not; with underpass, as sudo was told to; with the configuration.
#[test]
fn behind_sudo_the_callers_agent_is_found() {
    let rig = Rig::new(EVERYTHING);
    // What sudo does, or the lines below prove nothing.
    let shows = "export SSH_AUTH_SOCK=$AGENT; sudo -n sh -c 'echo =$SSH_AUTH_SOCK='";
    assert_eq!(finished(rig.script(shows)).stdout, b"==\n");
    for script in [
        "export SSH_AUTH_SOCK=$AGENT; sudo -n $UP",
        "exec env SSH_AUTH_SOCK=$AGENT sh -c 'unset SSH_AUTH_SOCK; sudo -n $UP; exit $?'",
        "export SSH_AUTH_SOCK=$AGENT; sudo -n sh -c \"$UP; exit \\$?\"",
        "export SSH_AUTH_SOCK=$AGENT; sudo -n --preserve-env=SSH_AUTH_SOCK $UP",
        "sudo -n $UP -o IdentityAgent=$AGENT",
    ] {
        rig.works(script);
    }
}

#[test]
fn where_sudo_leaves_no_agent_it_is_said_what_to_type() {
    let rig = Rig::new(EVERYTHING);
    let refused = |command: Command| {
        let output = finished(command);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let typed = format!("no agent was found behind sudo, type it without: {UNDERPASS} up -r root@");
    let said = refused(rig.script("sudo -n $UP"));
    assert!(said.contains(&typed), "{said}");
    // Somebody else has one, in whose name nobody called sudo.
    let starter = "exec env SSH_AUTH_SOCK=$AGENT sh -c 'env -u SSH_AUTH_SOCK \"$@\"; exit $?' sh";
    let said = refused(rig.script_below(starter, "sudo -n $UP"));
    assert!(said.contains(&typed), "{said}");
    // There is to be none.
    let said = refused(rig.script("sudo -n $UP -o IdentityAgent=none"));
    assert!(!said.contains("behind sudo"), "{said}");
}

/// Where sudo is for the privileged part alone, nothing is hidden.
#[test]
fn with_sudo_for_the_helper_alone_the_agent_is_ones_own() {
    let dir = TempDir::new().unwrap();
    let rule = fs::read_to_string(sudoers_rule(&dir)).unwrap();
    Rig::new(&rule).works("exec env SSH_AUTH_SOCK=$AGENT $UP");
}
