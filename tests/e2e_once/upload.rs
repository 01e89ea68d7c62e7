//! A helper that is uploaded: to a server where nothing of what UDP takes is installed, and of which nothing is left there.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::{Lab, V4, V6, Value, eventually, finished};
use crate::e2e::datagrams::{answers, ask};

const PORT: u16 = 2215;

/// What `status --json` says of UDP.
fn udp(lab: &Lab) -> String {
    let status = lab.ask("status --json");
    let reports: Value = serde_json::from_slice(&status.stdout).unwrap();
    reports[0]["beside"]["udp"].as_str().unwrap().to_owned()
}

/// A directory that no program can be run from, until it is dropped.
struct NoExec(String);

impl NoExec {
    fn mount(dir: String) -> Self {
        std::fs::create_dir(&dir).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "noexec,size=1m", "none", &dir]);
        assert!(finished(mount).status.success());
        Self(dir)
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for NoExec {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        finished({
            umount.args(["-l", &self.0]);
            umount
        });
    }
}

/// An sshd whose logins find no more than POSIX has, and `$TMPDIR` as given.
fn bare_sshd(lab: &Lab, tmpdir: &str) {
    let bin = lab.file("bare");
    std::fs::create_dir(&bin).unwrap();
    for program in [
        "chmod", "dd", "head", "mktemp", "od", "rm", "sh", "tr", "uname", "wc",
    ] {
        let from = Path::new("/bin").join(program);
        let from = [from, Path::new("/usr/bin").join(program)];
        let from = from.iter().find(|file| file.exists()).unwrap();
        symlink(from, Path::new(&bin).join(program)).unwrap();
    }
    let force = format!(
        "ForceCommand PATH={bin} TMPDIR={tmpdir} exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\""
    );
    lab.further_sshd(PORT, "authorized_keys", &force);
}

/// Files that have the name of an upload, where one may be.
fn left() -> Vec<String> {
    let names = ["/tmp", "/var/tmp", "/dev/shm"].map(|dir| {
        let entries = std::fs::read_dir(dir).unwrap();
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_upload = |path: &std::path::PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            path.is_file() && name.starts_with("underpass.") && name.len() == 16
        };
        let found = paths.filter(is_upload);
        found.map(|path| path.display().to_string()).collect()
    });
    let names: Vec<Vec<String>> = names.into();
    names.concat()
}

fn up(lab: &Lab, more: &str) -> crate::common::Underpass {
    lab.underpass(&format!(
        "-r root@192.168.77.1:{PORT} --udp {more} {} {}",
        V4.subnet, V6.subnet
    ))
}

#[test]
fn datagrams_go_by_an_uploaded_helper_of_which_nothing_is_left() {
    let lab = Lab::up();
    let noexec = NoExec::mount(lab.file("noexec"));
    bare_sshd(&lab, &noexec.0);
    let idle = lab.processes("bastion").len();
    let _v4 = answers(&lab, "vpc", V4.host, 7777);
    let _v6 = answers(&lab, "vpc", V6.host, 7777);
    // Not without being told to.
    let mut underpass = up(&lab, "");
    eventually("it is known that nothing carries them", || {
        ask(&lab, "client", V4.host, 7777, "1") == "1 Connection refused\n"
    });
    let said = udp(&lab);
    assert!(said.contains("add --upload-helper"), "{said}");
    assert!(underpass.stop(Signal::SIGTERM).success());

    let mut underpass = up(&lab, "--upload-helper");
    eventually("datagrams go", || {
        ask(&lab, "client", V4.host, 7777, "9") == "9 same\n"
    });
    assert_eq!(udp(&lab), "by the uploaded helper");
    let passed_over = format!("/tmp; no program can be run from {}", noexec.0);
    underpass.wait_for_line(&passed_over);
    for host in [V4.host, V6.host] {
        let said = ask(&lab, "client", host, 7777, "0 1 1400");
        assert_eq!(said, "0 same\n1 same\n1400 same\n");
        let said = ask(&lab, "client", host, 7778, "1");
        assert_eq!(said, "1 Connection refused\n");
    }
    eventually("nothing is left while it runs", || left().is_empty());
    assert!(noexec.is_empty());
    // A connection that is lost, and is made again.
    lab.kill_sshd_at(PORT);
    underpass.wait_for_line("connection lost");
    eventually("the helper has ended", || {
        lab.processes("bastion").len() < idle
    });
    lab.start_further_sshd_at(PORT);
    eventually("it is sent again before anybody asks", || {
        udp(&lab) == "by the uploaded helper"
    });
    eventually("datagrams go again", || {
        ask(&lab, "client", V4.host, 7777, "9") == "9 same\n"
    });
    assert!(underpass.stop(Signal::SIGTERM).success());
    eventually("nothing stays on the server", || {
        lab.processes("bastion").len() == idle && left().is_empty()
    });
    assert!(noexec.is_empty());
}

#[test]
fn a_file_that_is_no_program_is_refused_at_once() {
    let lab = Lab::up();
    let args = format!("--udp --upload-helper=/etc/passwd {}", V4.subnet);
    let refused = finished(lab.up_command(&args));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--upload-helper: it is no program"), "{said}");
    let refused = finished(lab.up_command(&format!("--upload-helper {}", V4.subnet)));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("add --udp"), "{said}");
}
