//! What the main process needs to do its work, and nothing else.

use std::io;
use std::path::{Path, PathBuf};

use crate::carrier::prompt;
use crate::carrier::russh::backlog_directory;
use crate::os::confine::{self, Needs, Task, Writes};
use crate::plan::{AuditLog, CarrierKind, Plan, Route};

/// Gives up what `plan` does not need; the process keeps `more`, too. To be called before there is a second thread.
pub(super) fn main_process(plan: &Plan, more: Writes) -> io::Result<()> {
    confine::main_process(&needs(plan, more), Task::Capture)
}

/// The same for the process beside a command.
pub(super) fn beside_command(plan: &Plan) -> io::Result<()> {
    confine::main_process(&needs(plan, Writes::default()), Task::Command)
}

fn needs(plan: &Plan, mut more: Writes) -> Needs {
    let ssh = &plan.ssh;
    let has_command = ssh
        .servers()
        .any(|server| matches!(server.route, Route::Command(_)));
    // Beside the built-in one, too.
    let runs_ssh = plan.carrier.kind == CarrierKind::Openssh || plan.beside.tunnel.is_some();
    let asks = || prompt::asks_by_program(ssh.login.batch, |name| std::env::var_os(name));
    if has_command || runs_ssh || asks() {
        return Needs::Programs;
    }
    let audit = match &plan.audit {
        Some(AuditLog::File(file)) => Some(place(file)),
        Some(AuditLog::Journald | AuditLog::Syslog) | None => None,
    };
    // A new host key goes to the first file.
    let files = ssh
        .servers()
        .filter_map(|server| server.known_hosts.first());
    more.below.extend(files.map(|file| place(file)));
    // What a program does not read.
    more.below.push(backlog_directory());
    // A file that was renamed is made anew.
    more.below.extend(audit);
    Needs::Writes(more)
}

/// Where `file` is written, made or not: its directory; where it is no file but a device, as `/dev/null`, itself.
fn place(file: &Path) -> PathBuf {
    let file = file
        .canonicalize()
        .or_else(|_| std::path::absolute(file))
        .unwrap_or_else(|_| file.to_owned());
    let is_special = file.metadata().is_ok_and(|found| !found.is_file());
    match file.parent() {
        Some(directory) if !is_special => directory.to_owned(),
        _ => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::UpArgs;
    use crate::plan::ssh_config::{Effective, Settings, Source};
    use crate::plan::{Environment, resolve};

    fn needs_with(options: &[&str]) -> Needs {
        let args = UpArgs {
            remote: Some("me@h".into()),
            subnets: vec!["10.0.0.0/8".into()],
            options: options.iter().map(|&option| option.into()).collect(),
            ..UpArgs::default()
        };
        let environment = Environment {
            user: Some("me".into()),
            uid: 1000,
            host_name: "laptop".into(),
            home: Some("/home/me".into()),
            logged_in_from: None,
            is_krl: |_| false,
            is_hardware_key: |_| false,
            has_algorithm: |_, _| true,
            exists: |_| false,
            variable: |_| None,
            without_sudo: None,
            user_number: |_| None,
            group_users: |_| None,
        };
        let (plan, _) = resolve(&args, &environment, &mut |query| {
            Ok(Effective {
                settings: query.settings(),
                defaults: Settings::default(),
                source: Source::Files,
            })
        })
        .unwrap();
        needs(
            &plan,
            Writes {
                below: vec!["/var/run".into()],
                own: vec!["/run/user/1000/underpass".into()],
            },
        )
    }

    #[test]
    fn programs_of_the_users_choice_are_left_alone() {
        assert_eq!(needs_with(&["ProxyCommand=nc %h %p"]), Needs::Programs);
    }

    #[test]
    fn new_host_keys_can_be_written_down() {
        let Needs::Writes(Writes { below, own }) =
            needs_with(&["UserKnownHostsFile=/home/me/k/hosts", "BatchMode=yes"])
        else {
            panic!("no program is run");
        };
        assert!(below.contains(&PathBuf::from("/home/me/k")), "{below:?}");
        assert!(below.contains(&PathBuf::from("/var/run")), "{below:?}");
        assert_eq!(own, [PathBuf::from("/run/user/1000/underpass")]);
    }

    #[test]
    fn a_device_stands_for_itself_and_a_link_for_where_it_leads() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, target) = (dir.path().join("link"), elsewhere.path().join("hosts"));
        std::fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert_eq!(place(&link), elsewhere.path().canonicalize().unwrap());
        assert_eq!(place(&dir.path().join("new")), dir.path());
        assert_eq!(place(Path::new("/dev/null")), Path::new("/dev/null"));
    }
}
