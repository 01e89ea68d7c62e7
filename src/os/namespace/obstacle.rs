//! Why namespaces cannot be made here, and what to do about it.

use std::io;

use nix::libc;

use crate::plan::quoted;

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A user namespace.
    User,
    /// Mapping the user into it.
    Map,
    /// The network and the mount namespace.
    Network,
}

/// What is known about a failure.
#[derive(Clone, Debug, Default)]
pub(super) struct Obstacle {
    step: Option<Step>,
    errno: i32,
    /// Debian's switch, `kernel.unprivileged_userns_clone`.
    debian: Option<i64>,
    /// Ubuntu's switch, `kernel.apparmor_restrict_unprivileged_userns`.
    ubuntu: Option<i64>,
    /// `user.max_user_namespaces`, `user.max_net_namespaces`, `user.max_mnt_namespaces`.
    most: [Option<i64>; 3],
    /// Whether a seccomp filter is on (`Seccomp: 2` in proc_pid_status(5)): a container's, most likely.
    filtered: bool,
    /// Where this program is.
    program: String,
}

const MOST: [&str; 3] = [
    "user.max_user_namespaces",
    "user.max_net_namespaces",
    "user.max_mnt_namespaces",
];

impl Obstacle {
    /// Looks at this host after `error` of `step`.
    pub(super) fn found(step: Step, error: &io::Error) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let program = std::env::current_exe().unwrap_or_default();
        Self {
            step: Some(step),
            errno: error.raw_os_error().unwrap_or_default(),
            debian: number("kernel.unprivileged_userns_clone"),
            ubuntu: number("kernel.apparmor_restrict_unprivileged_userns"),
            most: MOST.map(number),
            filtered: is_filtered(&status),
            program: program.display().to_string(),
        }
    }
}

fn number(name: &str) -> Option<i64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn is_filtered(status: &str) -> bool {
    let mut lines = status.lines();
    lines.any(|line| line.strip_prefix("Seccomp:").map(str::trim) == Some("2"))
}

/// One line: what failed, why, and what to do.
pub(super) fn line(obstacle: &Obstacle) -> String {
    format!("a private network is not permitted here: {}", why(obstacle))
}

fn why(obstacle: &Obstacle) -> String {
    let refused = matches!(obstacle.errno, libc::EPERM | libc::EACCES);
    let exhausted = matches!(obstacle.errno, libc::ENOSPC | libc::EUSERS);
    let spent = MOST
        .iter()
        .zip(obstacle.most)
        .find(|(_, most)| *most == Some(0));
    match (spent, obstacle) {
        (Some((name, _)), _) if refused || exhausted => {
            format!("{name} is 0; run: sudo sysctl -w {name}=15000")
        }
        (_, Obstacle { debian: Some(0), .. }) if refused => {
            "kernel.unprivileged_userns_clone is 0; run: sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned()
        }
        (_, Obstacle { ubuntu: Some(most), program, .. }) if refused && *most != 0 => format!(
            "Ubuntu's AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is {most}); allow \
             them to this program, once: {}",
            profile(program)
        ),
        (_, Obstacle { filtered: true, .. }) if refused => {
            "a seccomp filter forbids it, a container's most likely; start the container with: docker run --security-opt \
             seccomp=unconfined --device /dev/net/tun, or with podman"
                .to_owned()
        }
        _ if refused => {
            "the kernel refuses user namespaces to this process, perhaps because it is in a chroot; run it outside of it, or \
             use: underpass up"
                .to_owned()
        }
        _ if exhausted => {
            "there are as many namespaces as may be, or they are 32 deep; end some, or run: sudo sysctl -w \
             user.max_user_namespaces=100000"
                .to_owned()
        }
        (_, Obstacle { errno: libc::EINVAL, step: Some(Step::User), .. }) => {
            "this kernel has no user namespaces (CONFIG_USER_NS); use: underpass up".to_owned()
        }
        _ => {
            let what = match obstacle.step {
                Some(Step::Map) => "mapping the user",
                Some(Step::Network) => "making the network namespace",
                _ => "making the user namespace",
            };
            format!("{what}: {}", io::Error::from_raw_os_error(obstacle.errno))
        }
    }
}

/// What allows user namespaces to `program`, as a line for a shell: Ubuntu takes the privileges from one that no profile
/// allows (apparmor.d(5), "userns"). Nothing else is confined by it.
pub fn profile(program: &str) -> String {
    let rule = format!(
        "profile underpass {} flags=(unconfined) {{ userns, }}",
        attached(program)
    );
    format!(
        "printf '%s\\n' 'abi <abi/4.0>,' {} | sudo tee /etc/apparmor.d/underpass && sudo apparmor_parser -r \
         /etc/apparmor.d/underpass",
        quoted(&rule)
    )
}

/// The path as apparmor.d(5) reads it: in quotes where it is more than one word, and what would match more than itself with
/// a backslash.
fn attached(program: &str) -> String {
    let mut path = String::new();
    for character in program.chars() {
        if "\\\"*?[]{}^@".contains(character) {
            path.push('\\');
        }
        path.push(character);
    }
    match path.contains(char::is_whitespace) {
        true => format!("\"{path}\""),
        false => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obstacle(step: Step, errno: i32) -> Obstacle {
        Obstacle {
            step: Some(step),
            errno,
            most: [Some(1000); 3],
            program: "/usr/bin/underpass".to_owned(),
            ..Obstacle::default()
        }
    }

    #[test]
    fn each_has_its_way_out() {
        let user = obstacle(Step::User, libc::EPERM);
        let table = [
            (
                Obstacle {
                    debian: Some(0),
                    ..user.clone()
                },
                "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                Obstacle {
                    most: [Some(0), Some(9), Some(9)],
                    ..obstacle(Step::User, libc::ENOSPC)
                },
                "sudo sysctl -w user.max_user_namespaces=15000",
            ),
            (
                Obstacle {
                    most: [Some(9), Some(0), Some(9)],
                    ..obstacle(Step::Network, libc::ENOSPC)
                },
                "sudo sysctl -w user.max_net_namespaces=15000",
            ),
            (
                Obstacle {
                    ubuntu: Some(1),
                    ..obstacle(Step::Network, libc::EPERM)
                },
                "profile underpass /usr/bin/underpass flags=(unconfined) { userns, }",
            ),
            (
                Obstacle {
                    ubuntu: Some(1),
                    ..obstacle(Step::Map, libc::EACCES)
                },
                "apparmor_parser -r",
            ),
            (
                Obstacle {
                    filtered: true,
                    ubuntu: Some(0),
                    debian: Some(1),
                    ..user.clone()
                },
                "seccomp=unconfined",
            ),
            (user, "chroot"),
            (obstacle(Step::User, libc::EINVAL), "CONFIG_USER_NS"),
            (obstacle(Step::User, libc::EUSERS), "32 deep"),
            (obstacle(Step::Map, libc::EIO), "mapping the user"),
        ];
        for (obstacle, words) in table {
            let line = line(&obstacle);
            assert!(line.contains(words), "{line}\nhas no {words:?}");
            assert_eq!(line.lines().count(), 1);
        }
    }

    /// What a shell makes of it is the profile: sudo stands in for tee, and loads nothing.
    #[test]
    fn the_profile_can_be_pasted() {
        for (program, attached) in [
            ("/usr/bin/underpass", "/usr/bin/underpass"),
            ("/opt/it's 100%/under*", r#""/opt/it's 100%/under\*""#),
        ] {
            let script = format!("sudo() {{ [ $1 = tee ] && cat; }}; {}", profile(program));
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            assert_eq!(
                text,
                format!(
                    "abi <abi/4.0>,\nprofile underpass {attached} flags=(unconfined) {{ userns, }}\n"
                )
            );
        }
    }

    #[test]
    fn a_filter_is_noticed() {
        assert!(is_filtered("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!is_filtered("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"));
    }
}
