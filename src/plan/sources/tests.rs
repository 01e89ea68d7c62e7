//! The order of the places, and what a configuration file may say.

use std::path::Path;

use proptest::prelude::*;

use super::key::find;
use super::*;
use crate::cli::CarrierArg;

const FILE: &str = "/home/me/.config/underpass/config.toml";

fn file(text: &str) -> ConfigFile {
    ConfigFile::parse(Path::new(FILE), text).unwrap()
}

fn said(text: &str) -> String {
    ConfigFile::parse(Path::new("c"), text)
        .unwrap_err()
        .to_string()
}

/// What is meant by `words` among the networks, with these variables and this file.
fn meant(typed: UpArgs, variables: &[(&str, &str)], text: &str) -> Result<UpArgs, SourceError> {
    let owned = variables
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    let variables = Variables::parse(owned)?;
    let mut args = typed;
    let mut layers = vec![variables.layer];
    layers.extend(take_profile(&mut args, variables.profile, &[file(text)])?);
    fill(&mut args, &layers)?;
    Ok(args)
}

fn words(words: &[&str]) -> UpArgs {
    UpArgs {
        subnets: words.iter().map(|&word| word.into()).collect(),
        ..UpArgs::default()
    }
}

const PROD: &str = r#"
[defaults]
exclude = ["192.168.0.0/16"]
carrier = "openssh"
connections = 3

[profile.prod]
remote = "me@bastion:2222"
subnets = ["10.0.0.0/16", "10.1.0.0/16:5432"]
subnets-from = "nets"
exclude = "10.0.5.0/24"
option = ["Compression=yes"]
for = "2h"
disable-ipv6 = true
"#;

#[test]
fn a_profile_gives_what_was_not_typed() {
    let args = meant(words(&["prod"]), &[], PROD).unwrap();
    assert_eq!(args.profile.as_deref(), Some("prod"));
    assert_eq!(args.remote.as_deref(), Some("me@bastion:2222"));
    assert_eq!(args.subnets, ["10.0.0.0/16", "10.1.0.0/16:5432"]);
    assert_eq!(
        args.subnet_files,
        [Path::new("/home/me/.config/underpass/nets")]
    );
    assert_eq!(args.excludes, ["10.0.5.0/24", "192.168.0.0/16"]);
    assert_eq!(args.carrier, Some(CarrierArg::Openssh));
    assert_eq!(args.limit.as_deref(), Some("2h"));
    assert!(args.disable_ipv6);
}

#[test]
fn names_are_no_switch() {
    for (text, words) in [
        ("dns = true", "c:2: --dns \"true\": write all for all names"),
        (
            "dns-names = true",
            "c:2: --dns-names \"true\": it is no network; write default",
        ),
    ] {
        let said = said(&format!("[defaults]\n{text}\n"));
        assert!(said.starts_with(words), "{said}");
    }
}

#[test]
fn the_higher_place_counts_and_exclusions_add_up() {
    let typed = UpArgs {
        excludes: vec!["10.9.0.0/16".into()],
        connections: Some(1),
        ..words(&["10.2.0.0/16", "prod"])
    };
    let variables = [
        ("UNDERPASS_CONNECTIONS", "2"),
        ("UNDERPASS_FOR", "1h"),
        ("UNDERPASS_PROFILE", "other"),
        ("UNDERPASS_DISABLE_IPV6", "false"),
    ];
    let args = meant(typed, &variables, PROD).unwrap();
    assert_eq!(args.subnets, ["10.2.0.0/16"]);
    assert!(args.subnet_files.is_empty());
    assert_eq!(
        args.excludes,
        ["10.9.0.0/16", "10.0.5.0/24", "192.168.0.0/16"]
    );
    assert_eq!(args.connections, Some(1));
    assert_eq!(args.limit.as_deref(), Some("1h"));
    assert!(!args.disable_ipv6);
}

/// Who is typed is meant alone, whatever a lower place adds by the other word.
#[test]
fn users_and_groups_come_from_one_place() {
    let text = "[profile.p]\nuser = [\"a\", \"b\"]\ngroup = [\"g\"]";
    let of = |users: &[&str], variables: &[(&str, &str)]| {
        let typed = UpArgs {
            users: users.iter().map(|&user| user.into()).collect(),
            ..words(&["p"])
        };
        let args = meant(typed, variables, text).unwrap();
        (args.users.join(" "), args.groups.join(" "))
    };
    let pair = |users: &str, groups: &str| (users.to_owned(), groups.to_owned());
    assert_eq!(of(&[], &[]), pair("a b", "g"));
    assert_eq!(of(&["c"], &[]), pair("c", ""));
    assert_eq!(of(&[], &[("UNDERPASS_GROUP", "h")]), pair("", "h"));
}

#[test]
fn port_and_login_go_with_the_server_that_names_them() {
    let of = |remote: Option<&str>, port, login: Option<&str>, text| {
        let typed = UpArgs {
            remote: remote.map(Into::into),
            port,
            login: login.map(Into::into),
            ..words(&["p"])
        };
        let args = meant(typed, &[], text).unwrap();
        (args.remote.unwrap(), args.port, args.login)
    };
    let split = "[profile.p]\nremote = \"h\"\nport = 22\nlogin = \"me\"";
    let whole = "[profile.p]\nremote = \"me@h:22\"";
    assert_eq!(
        of(None, Some(23), None, whole),
        ("me@h".into(), Some(23), None)
    );
    assert_eq!(
        of(None, None, Some("you"), whole),
        ("h:22".into(), None, Some("you".into()))
    );
    assert_eq!(
        of(Some("a@b:1"), None, None, split),
        ("a@b:1".into(), None, None)
    );
    assert_eq!(
        of(Some("b"), None, None, split),
        ("b".into(), Some(22), Some("me".into()))
    );
}

#[test]
fn a_word_is_a_profile_and_a_network_is_none() {
    for word in ["prod", "a", "eu-1", "X_y"] {
        assert!(is_profile_name(word), "{word}");
    }
    for word in [
        "",
        "10",
        "0/0",
        "10.0.0.1",
        "db.internal",
        "fd00::1",
        "-a",
        "1a",
        "é",
    ] {
        assert!(!is_profile_name(word), "{word}");
    }
}

#[test]
fn a_profile_that_is_not_there() {
    let error = meant(words(&["dev"]), &[], PROD).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "\"dev\" is no network and no profile: {FILE} has prod; a host is given by its address (getent ahosts dev shows it)"
        )
    );
    let error = meant(words(&["full"]), &[], PROD).unwrap_err().to_string();
    assert!(
        error.ends_with("; a value of --tunnel is given with a =: --tunnel=full"),
        "{error}"
    );
    let error = meant(words(&["prod", "dev"]), &[], PROD).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("two profiles are named, prod and dev")
    );
    let mut args = UpArgs {
        profile: Some("dev".into()),
        ..UpArgs::default()
    };
    let error = take_profile(&mut args, None, &[]).unwrap_err().to_string();
    assert!(error.contains("there is no config.toml"), "{error}");
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_line() {
    for (text, words) in [
        ("[profile.p]\nremote = h", "c:2: "),
        (
            "[profile.p]\n\nexcludes = []",
            "c:3: there is no key \"excludes\"; did you mean exclude?",
        ),
        (
            "[defaults]\nzzz = 1",
            "c:2: there is no key \"zzz\"; \"underpass man\"",
        ),
        (
            "remote = \"h\"",
            "c:1: remote stands in no table; put it below [defaults] or [profile.NAME]",
        ),
        (
            "\n[profiles.p]",
            "c:2: there is no \"profiles\" here; the tables are",
        ),
        (
            "[profile.p]\nport = \"x\"",
            "c:2: port takes a number from 1 to 65535",
        ),
        ("[profile.p]\nport = 65536", "c:2: port takes a number"),
        ("[profile.p]\nport = 1.5", "c:2: port takes a number"),
        (
            "[profile.p]\nremote = [\"a\",\n\"b\"]",
            "c:3: remote takes a text in quotes",
        ),
        (
            "[profile.p]\ncarrier = \"ssh\"",
            "c:2: carrier takes auto, russh or openssh",
        ),
        (
            "[profile.p]\ndisable-ipv6 = 3",
            "c:2: disable-ipv6 takes true or false",
        ),
        (
            "[profile.p]\nsubnets = [\n  \"10/8\",\n  \"10/33\",\n]",
            "c:4: subnet \"10/33\": the width is over 32",
        ),
        (
            "[profile.p]\nremote = \"me:secret@h\"",
            "c:2: -r \"me@h\": a password cannot",
        ),
        ("[profile.p]\nmtu = 5", "c:2: --mtu 5 is out of range"),
        (
            "[profile.p]\nfor = \"soon\"",
            "c:2: --for \"soon\" is no time",
        ),
        ("[profile.p]\noption = \"x\"", "c:2: -o \"x\" has no value"),
        ("[profile.\"a.b\"]", "c:1: \"a.b\" names no profile"),
        ("profile = 1", "c:1: write a profile as [profile.NAME]"),
        ("[profile]\np = 1", "c:2: [profile.p] is a table"),
        ("[profile.p]\nport = 1\nport = 2", "c:3: "),
    ] {
        let said = said(text);
        assert!(said.starts_with(words), "{text}\n{said}");
        assert_eq!(said.lines().count(), 1);
        assert!(!said.contains("secret"));
    }
}

#[test]
fn where_a_value_comes_from() {
    let layers = [file(PROD).profiles["prod"].clone()];
    let filled = fill(&mut UpArgs::default(), &layers).unwrap();
    assert_eq!(
        filled[0].to_string(),
        format!("disable-ipv6 true comes from {FILE}:14")
    );
    assert!(find("remote").is_some());
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\PC|\n)*") {
        let _ = ConfigFile::parse(Path::new("c"), &text);
    }

    #[test]
    fn no_value_panics(
        key in prop::sample::select(KEYS.iter().map(|key| key.name).collect::<Vec<_>>()),
        value in prop_oneof!["\"[ -~&&[^\"\\\\]]*\"", "-?[0-9_.e]{1,9}", "\\[[0-9\", ]*\\]", "\\{[a-z0-9=, ]*\\}", "[a-z0-9:-]*"],
    ) {
        let text = format!("[profile.p]\n{key} = {value}\n");
        if let Err(error) = ConfigFile::parse(Path::new("c"), &text) {
            let error = error.to_string();
            prop_assert!(error.starts_with("c:"), "{error}");
            prop_assert_eq!(error.lines().count(), 1);
        }
    }
}
