//! `up --netns` of an ordinary user: which namespaces are theirs to name, and what is said of the others.

use super::*;

/// A program that waits in the box of the lab; it ends with this.
struct Boxed(Child);

impl Boxed {
    fn start(lab: &Lab, words: &[&str]) -> Self {
        let mut command = lab.command("box", words[0]);
        command.args(&words[1..]).args(["sleep", "600"]);
        let boxed = Self(command.stdout(Stdio::null()).spawn().unwrap());
        let comm = format!("/proc/{}/comm", boxed.0.id());
        eventually("it is what it shall be", || {
            fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n")
        });
        boxed
    }

    fn name(&self) -> String {
        format!("pid:{}", self.0.id())
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const AS_NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// The name of a namespace of the lab, for ip-netns(8).
fn name(lab: &Lab, role: &str) -> String {
    lab.namespace(role).replace("/run/netns/", "")
}

#[test]
fn a_user_captures_in_the_namespace_of_their_process_and_in_a_named_one() {
    let lab = Lab::up();
    let before = ["box", "client"].map(|role| lab.network_state(role));
    let key = nobody_may_enter(&lab);
    let dir = TempDir::new().unwrap();
    let wrapper = as_nobody(&sudoers_rule(&dir));
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let boxed = Boxed::start(&lab, &AS_NOBODY);
    for netns in [boxed.name(), name(&lab, "box")] {
        let args = format!("-i {key} --netns {netns} {}", V4.subnet);
        let mut underpass = Underpass::start(lab.wrapped_up_command(&wrapper, &args));
        for (role, expected) in [("box", "open"), ("client", "ENETUNREACH")] {
            let result = lab.result(role, &format!("connect {} 80", V4.host));
            assert_eq!(result, expected, "{netns} {role}");
        }
        let main = underpass.pid();
        assert_eq!(status(main, "Uid").unwrap(), "65534\t65534\t65534\t65534");
        assert_eq!(underpass.stop(Signal::SIGTERM).code(), Some(0));
        let after = ["box", "client"].map(|role| lab.network_state(role));
        assert_eq!(after, before, "{netns}");
    }
}

/// That of somebody else's process is not a user's to name; with sudo in front it is.
#[test]
fn the_namespace_of_somebody_elses_process_takes_sudo_in_front() {
    let lab = Lab::up();
    let key = nobody_may_enter(&lab);
    let dir = TempDir::new().unwrap();
    let rule = fs::read_to_string(sudoers_rule(&dir)).unwrap();
    let sudoers = dir.path().join("all");
    fs::write(
        &sudoers,
        format!("{rule}nobody ALL=(root) NOPASSWD:SETENV: ALL\n"),
    )
    .unwrap();
    fs::set_permissions(&sudoers, fs::Permissions::from_mode(0o440)).unwrap();
    let wrapper = as_nobody(&sudoers);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let boxed = Boxed::start(&lab, &["env"]);
    let args = format!("-i {key} --netns {} {}", boxed.name(), V4.subnet);
    let output = finished(lab.wrapped_up_command(&wrapper, &args));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let hint = "it is not a process of yours; type it with sudo in front";
    assert!(said.contains(hint) && said.lines().count() == 1, "{said}");
    // sudo passes no signal on that its own child sends.
    let runtime = "--preserve-env=UNDERPASS_RUNTIME_DIR,NO_COLOR";
    let wrapper = [&wrapper[..], &["sudo", "-n", runtime, "--"]].concat();
    let underpass = Underpass::start(lab.wrapped_up_command(&wrapper, &args));
    let connected = lab.result("box", &format!("connect {} 80", V4.host));
    assert_eq!(connected, "open");
    drop(underpass);
}

/// A capability of the file is enough for a device, and not for another namespace.
#[test]
fn a_file_capability_enters_no_other_namespace() {
    let lab = Lab::up();
    let key = nobody_may_enter(&lab);
    let dir = TempDir::new().unwrap();
    let args = format!("-i {key} --netns {} {}", name(&lab, "box"), V4.subnet);
    let output = finished(with_capability(&lab, &dir, &args));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("takes CAP_SYS_ADMIN") && said.contains("sudo setcap -r "),
        "{said}"
    );
}
