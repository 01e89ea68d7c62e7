//! Debian's sshd that takes one kind of login only.

#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::process::Command;

use underpass::plan::SshPlan;

use crate::place::{Daemon, Place, output};

/// root's password where passwords count.
pub(crate) const PASSWORD: &str = "open sesame";
/// What it is to be from now on.
pub(crate) const NEW_PASSWORD: &str = "correct horse 7";
/// What `openssl passwd -6 -salt underpass 'open sesame'` makes of it.
const HASH: &str = "$6$underpass$dUMdb2lDH25w2h0aytI5P9jB9U5L7bm0Lww3AnIcVQaERux/M0P1Vs7fQ5RWcrImPr1XEbUrT1UKxqClKqKsE0";

/// An sshd in a mount namespace of its own, with its own shadow(5) and PAM stack.
pub(crate) struct Openssh {
    _daemon: Daemon,
    place: Place,
}

impl Openssh {
    /// User certificates of a CA; keys count for nothing.
    pub(crate) fn of_certificates() -> Self {
        let place = Place::new();
        let (ca, public) = (place.path("ca"), place.path("id_ed25519.pub"));
        crate::rig::keygen(&ca, "ed25519", "");
        let mut sign = Command::new("ssh-keygen");
        sign.args(["-q", "-I", "me", "-n", "root", "-V", "-1h:+1h", "-s"]);
        output(sign.arg(ca).arg(public));
        let trusted = place.path("ca.pub").display().to_string();
        let config = format!("TrustedUserCAKeys {trusted}\nAuthorizedKeysFile none\nUsePAM no");
        Self::start(place, &config, &[])
    }

    /// Passwords, which sshd itself looks up.
    pub(crate) fn of_passwords() -> Self {
        let place = Place::new();
        let config = "PasswordAuthentication yes\nPubkeyAuthentication no\nUsePAM no";
        let shadow = shadow(&place);
        Self::start(place, config, &[shadow])
    }

    /// As [`of_passwords`](Self::of_passwords), with a banner, and without an end of tries.
    pub(crate) fn of_patience() -> Self {
        let place = Place::new();
        let banner = place.path("banner");
        fs::write(&banner, "Property of the lab\n").unwrap();
        let config = format!(
            "PasswordAuthentication yes\nPubkeyAuthentication no\nUsePAM no\nMaxAuthTries 100\nBanner {}",
            banner.display()
        );
        let shadow = shadow(&place);
        Self::start(place, &config, &[shadow])
    }

    /// Keyboard-interactive: PAM asks.
    pub(crate) fn of_questions() -> Self {
        let place = Place::new();
        let stack = "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
        fs::write(place.path("pam"), stack).unwrap();
        let config = "KbdInteractiveAuthentication yes\nPubkeyAuthentication no\nUsePAM yes";
        let laid_over = [shadow(&place), ("pam", "/etc/pam.d/sshd")];
        Self::start(place, config, &laid_over)
    }

    /// As [`of_questions`](Self::of_questions), with a password that has expired; PAM can change it.
    pub(crate) fn of_expired_questions() -> Self {
        let place = Place::new();
        let config = "KbdInteractiveAuthentication yes\nPubkeyAuthentication no\nUsePAM yes";
        let etc = etc_where_it_has_expired(&place);
        Self::start(place, config, &[etc])
    }

    /// As [`of_passwords`](Self::of_passwords), with a password that has expired; a key counts, too. PAM knows.
    pub(crate) fn of_expired_passwords() -> Self {
        let place = Place::new();
        let keys = place.path("home/.ssh/authorized_keys");
        let config = format!(
            "PasswordAuthentication yes\nUsePAM yes\nAuthorizedKeysFile {}",
            keys.display()
        );
        let etc = etc_where_it_has_expired(&place);
        Self::start(place, &config, &[etc])
    }

    fn start(place: Place, config: &str, laid_over: &[(&str, &str)]) -> Self {
        // sshd wants its privilege separation directory.
        let _ = fs::create_dir_all("/run/sshd");
        let file = place.path("sshd_config");
        // The first value of a setting counts.
        let text = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nStrictModes no\nPermitRootLogin yes\n{config}\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            place.port,
            place.path("host_key").display()
        );
        fs::write(&file, text).unwrap();
        let mut command = place.within(laid_over, "/usr/sbin/sshd");
        let daemon = Daemon::spawn(command.args(["-D", "-e", "-f"]).arg(file));
        place.wait();
        Self {
            _daemon: daemon,
            place,
        }
    }

    pub(crate) fn plan(&self) -> SshPlan {
        let public = fs::read_to_string(self.place.path("host_key.pub"));
        self.place.plan(public.unwrap().trim())
    }
}

/// All of /etc, to lie over the machine's: who changes a password replaces the file. root's last change was never.
fn etc_where_it_has_expired(place: &Place) -> (&'static str, &'static str) {
    let etc = place.path("etc");
    output(Command::new("cp").arg("-a").arg("/etc").arg(&etc));
    fs::write(etc.join("shadow"), format!("root:{HASH}:0:0:99999:7:::\n")).unwrap();
    let stack = "auth required pam_unix.so\naccount required pam_unix.so\npassword required pam_unix.so\n\
                 session required pam_permit.so\n";
    fs::write(etc.join("pam.d/sshd"), stack).unwrap();
    ("etc", "/etc")
}

/// root's line, to lie over the machine's.
fn shadow(place: &Place) -> (&'static str, &'static str) {
    let line = format!("root:{HASH}:19000:0:99999:7:::\n");
    fs::write(place.path("shadow"), line).unwrap();
    ("shadow", "/etc/shadow")
}
