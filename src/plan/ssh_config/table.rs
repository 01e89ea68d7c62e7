//! Every option of ssh_config(5), and what becomes of it here: an option that matters and is not honoured is said,
//! never silently dropped.

use thiserror::Error;

use super::{Effective, Source};

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The embedded carrier does what it says.
    Honoured,
    /// It says nothing about a carrier's connection.
    Harmless,
    /// `ssh -G` has done what it says; without ssh nobody does.
    BySsh(&'static str),
    /// The embedded carrier does not do what it says, but this.
    Unheeded(&'static str),
    /// No carrier does, but this.
    Nowhere(&'static str),
    /// The same as `Unheeded`, for a way to log in: it matters where there is no other.
    Method(&'static str),
}

use Standing::{BySsh, Harmless, Honoured, Method, Nowhere, Unheeded as Not};

/// An option: its name as ssh_config(5) spells it, ssh's default, and its standing here.
type Row = (&'static str, &'static str, Standing);

const NOT_BY_LOGIN: &str = "the embedded SSH logs in by public key, password and keyboard-interactive; use --carrier openssh";

/// OpenSSH 6.5 to 10.2, readconf.c `keywords`; options that ssh itself no longer knows are left out.
#[rustfmt::skip]
const TABLE: [Row; 110] = [
    // Where to, and by which way.
    ("Host", "", Harmless),
    ("Match", "", Harmless),
    ("HostName", "", Honoured),
    ("Port", "22", Honoured),
    ("User", "", Honoured),
    ("AddressFamily", "any", Honoured),
    ("BindAddress", "", Honoured),
    ("BindInterface", "", Not("the routing table chooses the interface; name an address with BindAddress")),
    ("ConnectTimeout", "none", Honoured),
    ("ConnectionAttempts", "1", Honoured),
    ("ProxyJump", "none", Honoured),
    ("ProxyCommand", "none", Honoured),
    ("ProxyUseFdpass", "no", Not("the command's stdin and stdout are used")),
    ("RefuseConnection", "none", Honoured),
    ("TCPKeepAlive", "yes", Harmless),
    ("IPQoS", "", Harmless),
    ("ServerAliveInterval", "0", Honoured),
    ("ServerAliveCountMax", "3", Honoured),
    // Logging in.
    ("IdentityFile", "", Honoured),
    ("IdentitiesOnly", "no", Honoured),
    ("IdentityAgent", "", Honoured),
    ("CertificateFile", "", Honoured),
    ("PreferredAuthentications", "", Honoured),
    ("PubkeyAuthentication", "yes", Honoured),
    ("PasswordAuthentication", "yes", Honoured),
    ("KbdInteractiveAuthentication", "yes", Honoured),
    ("KbdInteractiveDevices", "", Harmless),
    ("GSSAPIAuthentication", "no", Method(NOT_BY_LOGIN)),
    ("HostbasedAuthentication", "no", Method(NOT_BY_LOGIN)),
    ("NumberOfPasswordPrompts", "3", Honoured),
    ("BatchMode", "no", Honoured),
    ("PubkeyAcceptedAlgorithms", "", Honoured),
    ("PKCS11Provider", "none", Not("the token's keys are not tried; load them into the agent with ssh-add -s")),
    ("SecurityKeyProvider", "internal", Not("hardware keys are reached through the agent only; load them with ssh-add")),
    ("AddKeysToAgent", "no", Harmless),
    ("ForwardAgent", "no", Harmless),
    // Host keys.
    ("StrictHostKeyChecking", "ask", Honoured),
    ("UserKnownHostsFile", "~/.ssh/known_hosts ~/.ssh/known_hosts2", Honoured),
    ("GlobalKnownHostsFile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2", Honoured),
    ("HashKnownHosts", "no", Honoured),
    ("HostKeyAlias", "", Honoured),
    ("CheckHostIP", "no", Honoured),
    ("HostKeyAlgorithms", "", Honoured),
    ("CASignatureAlgorithms", "", Honoured),
    ("KnownHostsCommand", "none", Not("host keys are looked for in files only")),
    ("RevokedHostKeys", "none", Honoured),
    ("VerifyHostKeyDNS", "no", Not("host keys are looked for in files only")),
    ("NoHostAuthenticationForLocalhost", "no", Honoured),
    ("RequiredRSASize", "1024", Honoured),
    // Neither carrier learns further keys.
    ("UpdateHostKeys", "", Harmless),
    ("FingerprintHash", "SHA256", Harmless),
    ("VisualHostKey", "no", Harmless),
    // The connection.
    ("Ciphers", "", Honoured),
    ("MACs", "", Honoured),
    ("KexAlgorithms", "", Honoured),
    ("Compression", "no", Honoured),
    ("RekeyLimit", "default none", Not("keys are changed when the server asks, and with each new connection")),
    ("VersionAddendum", "none", Harmless),
    ("WarnWeakCrypto", "yes", Harmless),
    ("ObscureKeystrokeTiming", "yes", Harmless),
    ("ChannelTimeout", "none", Harmless),
    // What ssh -G has applied.
    ("Include", "", Harmless),
    ("IgnoreUnknown", "", Harmless),
    ("Tag", "", Harmless),
    ("CanonicalDomains", "none", BySsh("names are taken as they are")),
    ("CanonicalizeFallbackLocal", "yes", Harmless),
    ("CanonicalizeHostname", "no", BySsh("names are taken as they are")),
    ("CanonicalizeMaxDots", "1", Harmless),
    ("CanonicalizePermittedCNAMEs", "none", Harmless),
    // For shells, other forwardings and other programs.
    ("ClearAllForwardings", "no", Harmless),
    ("ControlMaster", "no", Harmless),
    ("ControlPath", "none", Harmless),
    ("ControlPersist", "no", Harmless),
    ("DynamicForward", "", Harmless),
    ("EnableEscapeCommandline", "no", Harmless),
    ("EnableSSHKeysign", "no", Harmless),
    ("EscapeChar", "~", Harmless),
    ("ExitOnForwardFailure", "no", Harmless),
    ("ForkAfterAuthentication", "no", Harmless),
    ("ForwardX11", "no", Harmless),
    ("ForwardX11Timeout", "1200", Harmless),
    ("ForwardX11Trusted", "no", Harmless),
    ("GatewayPorts", "no", Harmless),
    ("GSSAPIClientIdentity", "", Harmless),
    ("GSSAPIDelegateCredentials", "no", Harmless),
    ("GSSAPIKexAlgorithms", "", Harmless),
    ("GSSAPIKeyExchange", "no", Harmless),
    ("GSSAPIRenewalForcesRekey", "no", Harmless),
    ("GSSAPIServerIdentity", "", Harmless),
    ("GSSAPITrustDNS", "no", Harmless),
    ("HostbasedAcceptedAlgorithms", "", Harmless),
    ("LocalCommand", "", Harmless),
    ("PermitLocalCommand", "no", Nowhere("no local command is run")),
    ("LocalForward", "", Harmless),
    ("LogLevel", "INFO", Harmless),
    ("LogVerbose", "none", Harmless),
    ("PermitRemoteOpen", "any", Harmless),
    ("RemoteCommand", "none", Harmless),
    ("RemoteForward", "", Harmless),
    ("RequestTTY", "auto", Harmless),
    ("SendEnv", "", Harmless),
    ("SessionType", "default", Harmless),
    ("SetEnv", "", Harmless),
    ("StdinNull", "no", Harmless),
    ("StreamLocalBindMask", "0177", Harmless),
    ("StreamLocalBindUnlink", "no", Harmless),
    ("SyslogFacility", "USER", Harmless),
    ("Tunnel", "no", Nowhere("no tunnel of ssh's own is made")),
    ("TunnelDevice", "any:any", Harmless),
    ("XAuthLocation", "/usr/bin/xauth", Harmless),
];

/// A value longer than this, or one with blanks, is not repeated in a warning: it is a list or a command.
const SHORT: usize = 40;

/// An option of ssh's configuration that matters and that the embedded carrier, or none, does not honour.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{option}{} is not honoured: {instead}", shown(value))]
pub struct Unheeded {
    /// Its name, as ssh_config(5) spells it where that is known.
    pub option: String,
    /// Its value, as `ssh -G` prints it.
    pub value: String,
    /// What happens instead.
    pub instead: &'static str,
    /// Whether the user's own ssh honours it, run as a carrier.
    pub is_by_ssh: bool,
}

fn shown(value: &str) -> String {
    if value.is_empty() || value.len() > SHORT || value.contains(' ') {
        String::new()
    } else {
        format!(" {value}")
    }
}

/// The name of an option as ssh_config(5) spells it.
pub(super) fn spelled(key: &str) -> Option<&'static str> {
    row(key).map(|row| row.0)
}

/// ssh's default, where it can be told in general; what depends on ssh's version is left out.
pub(super) fn default(key: &str) -> Option<&'static str> {
    row(key).map(|row| row.1).filter(|value| !value.is_empty())
}

fn row(key: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.0.eq_ignore_ascii_case(key))
}

/// The options set to something else than ssh's default that are not honoured, in the order of `effective`.
pub(super) fn unheeded(effective: &Effective) -> Vec<Unheeded> {
    let set = effective
        .settings
        .keys()
        .filter(|key| effective.is_set(key));
    set.filter_map(|key| one(key, effective)).collect()
}

fn one(key: &str, effective: &Effective) -> Option<Unheeded> {
    let (option, instead) = match row(key) {
        None => (key, "underpass does not know it"),
        Some((name, _, Not(instead) | Nowhere(instead))) => (*name, *instead),
        Some((name, _, Method(instead))) if is_only_method(effective) => (*name, *instead),
        Some((name, _, BySsh(instead))) if effective.source == Source::Files => (*name, *instead),
        Some(_) => return None,
    };
    let values: Vec<_> = effective.settings.all(key).collect();
    Some(Unheeded {
        option: option.to_owned(),
        value: values.join(" "),
        instead,
        is_by_ssh: !matches!(row(key), Some((_, _, Nowhere(_)))),
    })
}

/// Whether no way to log in is left but those by Kerberos or by the client's host.
fn is_only_method(effective: &Effective) -> bool {
    let on = |key| !matches!(effective.value(key), Some("no" | "false"));
    !(on("pubkeyauthentication")
        || on("passwordauthentication")
        || on("kbdinteractiveauthentication"))
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    fn effective(source: Source, text: &str) -> Effective {
        Effective {
            settings: Settings::parse(text),
            defaults: Settings::parse("compression no\nciphers a,b\ngssapiauthentication no"),
            source,
        }
    }

    fn lines(source: Source, text: &str) -> Vec<String> {
        let unheeded = unheeded(&effective(source, text));
        unheeded.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_option_stands_once() {
        let mut names: Vec<_> = TABLE.iter().map(|row| row.0.to_lowercase()).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert_eq!(spelled("proxyjump"), Some("ProxyJump"));
    }

    #[test]
    fn what_matters_is_said() {
        assert_eq!(
            lines(
                Source::Ssh,
                "pkcs11provider /usr/lib/token.so\nknownhostscommand /x %H\nciphers b\nmadeup 7"
            ),
            [
                "PKCS11Provider /usr/lib/token.so is not honoured: the token's keys are not tried; load them into \
                 the agent with ssh-add -s",
                "KnownHostsCommand is not honoured: host keys are looked for in files only",
                "madeup 7 is not honoured: underpass does not know it",
            ]
        );
    }

    /// Where a master of ours runs none either, that is no reason to take ssh.
    #[test]
    fn a_local_command_is_run_by_nobody() {
        let text = "permitlocalcommand yes\ntunnel yes\nknownhostscommand /x";
        let unheeded = unheeded(&effective(Source::Ssh, text));
        let by_ssh: Vec<_> = unheeded.iter().map(|option| option.is_by_ssh).collect();
        assert_eq!(by_ssh, [false, false, true]);
    }

    #[test]
    fn defaults_and_what_does_not_matter_are_not() {
        let text = "compression no\nciphers a,b\nverifyhostkeydns no\ncontrolmaster auto\nsendenv LANG\nuser me";
        assert_eq!(lines(Source::Ssh, text), [""; 0]);
        // Debian's own configuration.
        assert_eq!(
            lines(Source::Ssh, "gssapiauthentication yes\nhashknownhosts yes"),
            [""; 0]
        );
    }

    #[test]
    fn kerberos_as_the_only_way_in_is_said() {
        let text = "gssapiauthentication yes\npubkeyauthentication no\npasswordauthentication no\n\
                    kbdinteractiveauthentication no";
        let lines = lines(Source::Ssh, text);
        assert!(
            lines[0].starts_with("GSSAPIAuthentication yes is not"),
            "{lines:?}"
        );
    }

    #[test]
    fn what_ssh_would_have_done_is_said_without_it() {
        let text = "canonicalizehostname yes";
        assert_eq!(lines(Source::Ssh, text), [""; 0]);
        assert_eq!(
            lines(Source::Files, text),
            ["CanonicalizeHostname yes is not honoured: names are taken as they are"]
        );
    }
}
