//! Ways to log in that only ssh knows, where one of them is likely to be the one that works.

use super::Effective;
use crate::plan::Environment;

/// The option that asks for such a way, for the log: HostbasedAuthentication; GSSAPIAuthentication, which whole
/// distributions switch on, only with a Kerberos ticket at hand, or preferred to all others.
pub(super) fn only_by_ssh(effective: &Effective, environment: &Environment) -> Option<String> {
    let preferred: Option<Vec<&str>> = effective
        .value("preferredauthentications")
        .map(|list| list.split(',').map(str::trim).collect());
    let is_on = |option: &str, method: &str| {
        let is_wanted = preferred.as_ref().is_none_or(|list| list.contains(&method));
        is_wanted && matches!(effective.value(option), Some("yes" | "true"))
    };
    if is_on("hostbasedauthentication", "hostbased") {
        return Some("HostbasedAuthentication".to_owned());
    }
    if !is_on("gssapiauthentication", "gssapi-with-mic") {
        return None;
    }
    let first = preferred.as_ref().and_then(|list| list.first());
    if first == Some(&"gssapi-with-mic") {
        return Some("PreferredAuthentications gssapi-with-mic".to_owned());
    }
    has_ticket(environment)
        .then(|| "GSSAPIAuthentication, and there is a Kerberos ticket".to_owned())
}

/// Whether there is likely a Kerberos ticket: kerberos(7), `KRB5CCNAME`, and the usual file where it is not set.
fn has_ticket(environment: &Environment) -> bool {
    let named = (environment.variable)("KRB5CCNAME").is_some_and(|name| !name.is_empty());
    let usual = format!("/tmp/krb5cc_{}", environment.uid);
    named || (environment.exists)(usual.as_ref())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Settings, Source};
    use super::*;

    const NOTHING: Environment = Environment {
        user: None,
        uid: 1000,
        host_name: String::new(),
        home: None,
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

    fn only(text: &str, environment: &Environment) -> Option<String> {
        let effective = Effective {
            settings: Settings::parse(text),
            defaults: Settings::default(),
            source: Source::Ssh,
        };
        only_by_ssh(&effective, environment)
    }

    #[test]
    fn kerberos_counts_with_a_ticket_or_in_front() {
        let file = Environment {
            exists: |path| path == Path::new("/tmp/krb5cc_1000"),
            ..NOTHING
        };
        let named = Environment {
            variable: |name| (name == "KRB5CCNAME").then(|| "KCM:".to_owned()),
            ..NOTHING
        };
        for environment in [&file, &named] {
            let ticket = only("gssapiauthentication yes", environment);
            assert!(ticket.unwrap().contains("ticket"));
            assert_eq!(only("gssapiauthentication no", environment), None);
            let keys = "gssapiauthentication yes\npreferredauthentications publickey";
            assert_eq!(only(keys, environment), None);
        }
        // As Debian has it for everybody.
        assert_eq!(only("gssapiauthentication yes", &NOTHING), None);
        let first = "gssapiauthentication yes\npreferredauthentications gssapi-with-mic,publickey";
        assert!(only(first, &NOTHING).unwrap().contains("Preferred"));
        let later = "gssapiauthentication yes\npreferredauthentications publickey,gssapi-with-mic";
        assert_eq!(only(later, &NOTHING), None);
    }

    #[test]
    fn the_hosts_own_key_counts() {
        let said = only("hostbasedauthentication yes", &NOTHING);
        assert_eq!(said.unwrap(), "HostbasedAuthentication");
        assert_eq!(only("hostbasedauthentication no", &NOTHING), None);
    }
}
