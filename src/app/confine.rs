//! What the main process needs to do its work, and nothing else.

use std::io;
use std::path::PathBuf;

use crate::carrier::prompt;
use crate::os::confine::{self, Needs};
use crate::plan::{CarrierKind, Plan, Route};

/// Gives up what `plan` does not need. To be called before there is a second thread.
pub(super) fn main_process(plan: &Plan) -> io::Result<()> {
    confine::main_process(&needs(plan))
}

fn needs(plan: &Plan) -> Needs {
    let ssh = &plan.ssh;
    let has_command = ssh
        .servers()
        .any(|server| matches!(server.route, Route::Command(_)));
    let runs_ssh = plan.carrier.kind == CarrierKind::Openssh;
    let asks = || prompt::asks_by_program(ssh.login.batch, |name| std::env::var_os(name));
    if has_command || runs_ssh || asks() {
        return Needs::Programs;
    }
    // A new host key goes to the first file.
    let files = ssh
        .servers()
        .filter_map(|server| server.known_hosts.first());
    let directories = files.filter_map(|file| file.parent().map(PathBuf::from));
    Needs::Writes(directories.chain([std::env::temp_dir()]).collect())
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
            exists: |_| false,
            variable: |_| None,
        };
        let (plan, _) = resolve(&args, &environment, &mut |query| {
            Ok(Effective {
                settings: query.settings(),
                defaults: Settings::default(),
                source: Source::Files,
            })
        })
        .unwrap();
        needs(&plan)
    }

    #[test]
    fn programs_of_the_users_choice_are_left_alone() {
        assert_eq!(needs_with(&["ProxyCommand=nc %h %p"]), Needs::Programs);
    }

    #[test]
    fn new_host_keys_can_be_written_down() {
        let Needs::Writes(paths) =
            needs_with(&["UserKnownHostsFile=/home/me/k/hosts", "BatchMode=yes"])
        else {
            panic!("no program is run");
        };
        assert!(paths.contains(&PathBuf::from("/home/me/k")), "{paths:?}");
    }
}
