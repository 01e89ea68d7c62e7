//! A login that is not root's, on the bastion alone: its sshd sees users of its own.

use std::fs;

use crate::common::{Lab, eventually, finished};
use crate::e2e::datagrams::shell;

/// What `tester` may.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// Nothing but what is theirs.
    Plain,
    /// Everything, with sudo and without a password.
    Sudoer,
}

/// An sshd at `port` that knows the user `tester`, with the lines `more` in its configuration.
pub(crate) fn sshd_for(lab: &Lab, port: u16, account: Account, more: &str) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    fs::write(
        lab.file("passwd"),
        format!("{users}tester:x:4321:4321::/tmp:/bin/sh\n"),
    )
    .unwrap();
    let shadow = "root:*:19000:0:99999:7:::\ntester:*:19000:0:99999:7:::\n";
    fs::write(lab.file("shadow"), shadow).unwrap();
    let rule = match account {
        Account::Plain => "",
        Account::Sudoer => "tester ALL=(ALL) NOPASSWD: ALL\n",
    };
    fs::write(lab.file("sudoers"), format!("Defaults !requiretty\n{rule}")).unwrap();
    let config = fs::read_to_string(lab.file("sshd-22.conf")).unwrap();
    let config = config
        .replace("Port 22\n", &format!("Port {port}\n"))
        .replace("sshd-22.pid", &format!("sshd-{port}.pid"))
        .replace("SetEnv HOME", "#SetEnv HOME");
    fs::write(
        lab.file(&format!("sshd-{port}.conf")),
        format!("{config}{more}\n"),
    )
    .unwrap();
    let state = lab.file("");
    let script = format!(
        "set -e; chmod 440 {state}sudoers; chmod 755 {state}\n\
         for file in passwd shadow sudoers; do mount --bind {state}$file /etc/$file; done\n\
         mkdir {state}dev; mount -t tmpfs none {state}dev; mknod -m 666 {state}dev/tun c 10 200\n\
         mount --bind {state}dev/tun /dev/net/tun; mount -t sysfs sysfs /sys\n\
         exec /usr/sbin/sshd -f {state}sshd-{port}.conf -E {state}sshd-{port}.log"
    );
    let mut sshd = lab.command("bastion", "unshare");
    let output = finished({
        sshd.args(["--mount", "sh", "-c", &script]);
        sshd
    });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let pid_file = lab.state.join(format!("sshd-{port}.pid"));
    eventually("sshd listens", || pid_file.exists());
    let known = fs::read_to_string(lab.file("known_hosts")).unwrap();
    let own = known.replace("[192.168.77.1]:2201", &format!("[192.168.77.1]:{port}"));
    fs::write(lab.file("known_hosts"), format!("{known}{own}")).unwrap();
}

/// What a command of root's says there, where those users are known.
pub(crate) fn as_root(lab: &Lab, port: u16, command: &str) -> String {
    let pid = fs::read_to_string(lab.file(&format!("sshd-{port}.pid"))).unwrap();
    let mounts = format!("--mount=/proc/{}/ns/mnt", pid.trim());
    shell(
        lab,
        "bastion",
        &format!("nsenter {mounts} sh -c {command:?}"),
    )
}
