//! A password that has expired. sshd lets in who has the old one, or a key, forwards nothing, and says why on the
//! stderr of the first session (session.c `do_pwchange`).

use tracing::warn;

use crate::plan::SshPlan;

/// What sshd says there.
const SAID: &[u8] = b"Your password has expired";
/// As much as sshd says before it, and more.
const MOST: usize = 1024;

/// Listens to the first session of a login, and tells once what is to be done.
#[derive(Debug)]
pub(super) struct Expiry {
    line: String,
    heard: Vec<u8>,
}

impl Expiry {
    /// Of a login to the server of `plan`.
    pub(super) fn of(plan: &SshPlan) -> Self {
        let SshPlan {
            user,
            host,
            arguments,
            ..
        } = plan;
        Self {
            line: format!(
                "{user}@{host}: the password has expired, and the server forwards nothing until it is changed. Log in once \
                 to change it: ssh {arguments}"
            ),
            heard: Vec::new(),
        }
    }

    /// Takes what the session says on stderr.
    pub(super) fn hear(&mut self, data: &[u8]) {
        let room = MOST - self.heard.len();
        self.heard.extend_from_slice(&data[..data.len().min(room)]);
        if self.heard.windows(SAID.len()).any(|part| part == SAID) {
            warn!("{}", self.line);
            // Nothing more is taken: told once.
            self.heard = vec![0; MOST];
        }
    }
}
