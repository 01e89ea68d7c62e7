//! Where arguments come from: config.toml, the environment, files; and what is said about mistakes in them.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A home with nothing in it but what a test writes.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("underpass")).unwrap();
        Self(home)
    }

    fn with(config: &str) -> Self {
        let home = Self::new();
        home.write("underpass/config.toml", config);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn underpass(&self, args: &[&str], variables: &[(&str, &str)]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_underpass"))
            .args(args)
            .env("NO_COLOR", "1")
            .env("XDG_CONFIG_HOME", self.0.path())
            .envs(variables.iter().copied())
            .current_dir(self.0.path())
            .output()
            .unwrap();
        Said::from(output)
    }

    /// The one line that a mistake gets.
    fn mistake(&self, args: &[&str], variables: &[(&str, &str)]) -> String {
        let said = self.underpass(args, variables);
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.errors);
        assert_eq!(said.errors.lines().count(), 1, "{args:?}: {}", said.errors);
        let line = said.errors.trim_end();
        let line = line.strip_prefix("underpass: error: ");
        line.unwrap_or_else(|| panic!("{args:?}: {}", said.errors))
            .to_owned()
    }
}

struct Said {
    code: Option<i32>,
    text: String,
    errors: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            text: String::from_utf8(output.stdout).unwrap(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const PROD: &str = "\
[defaults]
mtu = 1400

[profile.prod]
remote = \"127.0.0.1\"
subnets = [
    \"198.51.100.0/24\",
    \"203.0.113.0/24\",
]
exclude = [\"198.51.100.128/25\"]
";

#[test]
fn a_profile_is_all_that_is_typed() {
    let home = Home::with(PROD);
    for args in [
        &["up", "prod", "--dry-run"][..],
        &["up", "--profile", "prod", "--dry-run"],
    ] {
        let said = home.underpass(args, &[]);
        assert_eq!(said.code, Some(0), "{}", said.errors);
        for part in [
            "ip route add 198.51.100.0/24 ",
            "ip route add 203.0.113.0/24 ",
            "throw 198.51.100.128/25",
            "mtu 1400",
        ] {
            assert!(said.text.contains(part), "{part}\n{}", said.text);
        }
        let config = home.path("underpass/config.toml");
        for line in [
            format!("subnets 203.0.113.0/24 comes from {}:8", config.display()),
            format!("mtu 1400 comes from {}:2", config.display()),
        ] {
            assert!(said.errors.contains(&line), "{line}\n{}", said.errors);
        }
    }
}

#[test]
fn what_is_typed_goes_before_the_environment_and_that_before_the_profile() {
    let home = Home::with(PROD);
    let variables = [
        ("UNDERPASS_SUBNETS", "192.0.2.0/24"),
        ("UNDERPASS_MTU", "1300"),
        ("UNDERPASS_PROFILE", "prod"),
        ("UNDERPASS_SUBNET", "x"),
    ];
    let said = home.underpass(&["up", "--dry-run"], &variables);
    assert_eq!(said.code, Some(0), "{}", said.errors);
    assert!(said.text.contains("ip route add 192.0.2.0/24 "));
    assert!(said.text.contains("mtu 1300"));
    assert!(!said.text.contains("203.0.113"));
    assert!(said.errors.contains("mtu 1300 comes from UNDERPASS_MTU"));
    assert!(said.errors.contains("did you mean UNDERPASS_SUBNETS?"));
    let typed = ["up", "198.18.9.0/24", "--mtu", "1350", "--dry-run", "-q"];
    let said = home.underpass(&typed, &variables);
    assert!(
        said.text.contains("ip route add 198.18.9.0/24 "),
        "{}",
        said.errors
    );
    assert!(said.text.contains("mtu 1350") && !said.text.contains("192.0.2.0"));
    assert_eq!(said.errors, "");
}

/// What is set and cannot be done is not passed over: it may say that nothing shall be changed, or nothing else reached.
#[test]
fn a_variable_is_heeded_or_a_mistake() {
    let home = Home::new();
    let up = ["up", "-r", "127.0.0.1", "198.51.100.0/24"];
    for (name, words) in [
        (
            "UNDERPASS_DRY_RUN",
            "type it there, and: unset UNDERPASS_DRY_RUN",
        ),
        (
            "UNDERPASS_NETNS",
            "--netns is an option of the command line alone",
        ),
        ("UNDERPASS_ISOLATE", "is for run and shell"),
        ("UNDERPASS_ALL", "unset UNDERPASS_ALL"),
    ] {
        let said = home.mistake(&up, &[(name, "1")]);
        assert!(said.contains(words), "{said}");
    }
    let run = ["run", "-r", "127.0.0.1", "198.51.100.0/24", "--", "true"];
    for (name, value, words) in [
        ("UNDERPASS_FOR", "1h", "UNDERPASS_FOR is for up"),
        ("UNDERPASS_ISOLATE", "maybe", "isolate takes true or false"),
        ("UNDERPASS_PUBLISH", "x", "a port is missing"),
    ] {
        let said = home.underpass(&run, &[(name, value)]);
        assert_eq!(said.code, Some(125), "{}", said.errors);
        assert!(said.errors.contains(words), "{}", said.errors);
        assert_eq!(said.errors.lines().count(), 1, "{}", said.errors);
    }
}

/// A message shows what is in a file, and a rule of sudoers may permit `underpass up` and nothing else.
#[test]
fn behind_sudo_a_file_is_read_as_its_caller() {
    let home = Home::new();
    let mode = |path: &Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    };
    mode(home.0.path(), 0o755);
    let secret = home.write("secret", "the secret of root\n");
    let sudo = [
        ("SUDO_USER", "nobody"),
        ("SUDO_UID", "65534"),
        ("SUDO_GID", "65534"),
    ];
    // Root's group may read it, and root is in that.
    mode(&secret, 0o640);
    let said = || {
        let mut command = Command::new("setpriv");
        command
            .args(["--groups", "0", env!("CARGO_BIN_EXE_underpass")])
            .args(["up", "-r", "h", "@secret", "--dry-run"])
            .envs(sudo)
            .env("XDG_CONFIG_HOME", home.0.path())
            .current_dir(home.0.path());
        Said::from(command.output().unwrap()).errors
    };
    assert!(said().contains("cannot read secret: Permission denied"));
    std::os::unix::fs::chown(&secret, None, Some(65534)).unwrap();
    assert!(said().contains("the secret of root"), "{}", said());
}

#[test]
fn files_of_networks_and_of_arguments() {
    let home = Home::new();
    home.write("nets", "# ours\n198.51.100.0/24\n203.0.113.0/24 # theirs\n");
    home.write("not", "198.51.100.128/25\n");
    home.write(
        "args",
        "# all of it\n-r\n127.0.0.1\n-s\nnets\n--exclude-from=not\n",
    );
    let said = home.underpass(&["up", "@args", "--dry-run"], &[]);
    assert_eq!(said.code, Some(0), "{}", said.errors);
    for part in [
        "add 198.51.100.0/24",
        "add 203.0.113.0/24",
        "throw 198.51.100.128/25",
    ] {
        assert!(said.text.contains(part), "{part}\n{}", said.text);
    }
}

#[test]
fn a_mapping_may_stand_wherever_a_network_may() {
    let mapping = "198.51.100.0/24=203.0.113.0/24";
    let profile = format!("[profile.prod]\nremote = \"127.0.0.1\"\nsubnets = [\"{mapping}\"]\n");
    let home = Home::with(&profile);
    home.write("nets", &format!("{mapping} # theirs\n"));
    home.write("args", &format!("-r\n127.0.0.1\n{mapping}\n"));
    let variable = [("UNDERPASS_SUBNETS", mapping)];
    for (args, variables) in [
        (&["prod"][..], &[][..]),
        (&["@args"], &[]),
        (&["-r", "127.0.0.1", "-s", "nets"], &[]),
        (&["-r", "127.0.0.1"], &variable),
        (&["-r", "127.0.0.1", mapping], &[]),
    ] {
        let said = home.underpass(&[&["up", "--dry-run"], args].concat(), variables);
        assert_eq!(said.code, Some(0), "{args:?}: {}", said.errors);
        for part in [
            "# 203.0.113.0/24 here is 198.51.100.0/24 behind the server\n",
            "ip route add 203.0.113.0/24 ",
        ] {
            assert!(said.text.contains(part), "{args:?}: {part}\n{}", said.text);
        }
    }
}

#[test]
fn a_mistake_in_a_file_or_variable_has_its_place() {
    let home = Home::with("[profile.p]\nremote = \"h\"\nsubnet = []\n");
    home.write("nets", "\n10.0.0.0/33\n");
    home.write("args", "up\n-r host\n");
    home.write("nested", "@args\n");
    let config = home.path("underpass/config.toml");
    let said = home.mistake(&["up", "p"], &[]);
    let wanted = format!(
        "{}:3: there is no key \"subnet\"; did you mean subnets?",
        text(&config)
    );
    assert_eq!(said, wanted);
    std::fs::remove_file(config).unwrap();
    for (args, variables, words) in [
        (
            &["up", "-s", "nets"][..],
            &[][..],
            "nets:2: subnet \"10.0.0.0/33\": the width",
        ),
        (
            &["up", "-X", "nets"],
            &[],
            "nets:2: -x \"10.0.0.0/33\": the width",
        ),
        (&["up", "-s", "none"], &[], "cannot read none: No such file"),
        (
            &["@args"],
            &[],
            "args:2: one argument per line: put host on a line",
        ),
        (&["@nested"], &[], "nested:1: @args is a file in a file"),
        (&["up", "@none"], &[], "cannot read none: No such file"),
        (
            &["up"],
            &[("UNDERPASS_PORT", "no")],
            "UNDERPASS_PORT: port takes a number",
        ),
        (
            &["up", "prod"],
            &[],
            "\"prod\" is no network and no profile: there is no config.toml",
        ),
        (
            &["up", "--profile", "prod"],
            &[],
            "there is no profile \"prod\": there is no config.toml",
        ),
    ] {
        let said = home.mistake(args, variables);
        assert!(said.starts_with(words), "{args:?}: {said}");
    }
}

#[test]
fn a_configuration_that_others_can_write_is_refused() {
    let home = Home::with(PROD);
    let config = home.path("underpass/config.toml");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o620)).unwrap();
    let said = home.mistake(&["up", "prod"], &[]);
    assert!(said.contains("can be written by others"), "{said}");
    assert!(
        said.ends_with(&format!("chmod go-w {}", text(&config))),
        "{said}"
    );
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&config, Some(65534), None).unwrap();
    let said = home.mistake(&["up", "prod"], &[]);
    assert!(said.contains("belongs to somebody else"), "{said}");
}

#[test]
fn run_by_sudo_no_file_is_shown_that_the_caller_could_not_read() {
    let home = Home::new();
    let secret = home.write("secret", "root:hash\n");
    std::fs::set_permissions(home.0.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // A user that every system has, and no group of it reads the file.
    let by_sudo = [
        ("SUDO_USER", "daemon"),
        ("SUDO_UID", "1"),
        ("SUDO_GID", "1"),
    ];
    for args in [["up", "-s", text(&secret)], ["up", "-X", text(&secret)]] {
        let said = home.mistake(&args, &by_sudo);
        assert!(said.contains("Permission denied"), "{said}");
        assert!(!said.contains("hash"), "{said}");
    }
    let config = home.write("underpass/config.toml", "root:hash\n");
    let said = home.mistake(&["up", "prod"], &by_sudo);
    assert!(said.contains("Permission denied"), "{said}");
    assert!(
        said.contains(text(&config)) && !said.contains("hash"),
        "{said}"
    );
}

#[test]
fn the_habits_of_sshuttle_get_a_line_that_says_what_to_do() {
    let home = Home::new();
    for (args, words) in [
        (&["up", "--method=nft"][..], "nothing to choose"),
        (&["up", "-e", "ssh -F x"], "-F FILE"),
        (&["up", "--ssh-cmd", "ssh -F x"], "-F FILE"),
        (&["up", "--python", "python3"], "nothing runs on the server"),
        (&["up", "-H"], "/etc/hosts is never written"),
        (&["up", "--seed-hosts=a,b"], "/etc/hosts is never written"),
        (&["up", "--no-latency-control"], "a window of its own"),
        (&["up", "--wrap", "5"], "numbered by SSH itself"),
        (&["up", "-t", "0x01"], "no packet is marked"),
        (&["up", "--to-ns"], "--dns-server IP"),
        (
            &["up", "-l", "0.0.0.0:0", "-r", "h", "10/8"],
            "nothing listens",
        ),
        (
            &["up", "-r", "me:secret@h", "10/8"],
            "a password cannot be given here",
        ),
        (&["-r", "h", "10/8"], "write: underpass up -r ..."),
        (
            &["10.0.0.0/8", "-r", "h"],
            "write: underpass up 10.0.0.0/8 ...",
        ),
    ] {
        let said = home.mistake(args, &[]);
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn ipv6_is_left_out_when_asked_for() {
    let home = Home::new();
    let args = [
        "up",
        "-r",
        "127.0.0.1",
        "198.51.100.0/24",
        "fd00::/64",
        "--disable-ipv6",
        "--dry-run",
    ];
    let said = home.underpass(&args, &[]);
    assert!(
        said.errors
            .contains("fd00::/64 is not captured: --disable-ipv6")
    );
    assert!(!said.text.contains("fd00::"), "{}", said.text);
    let said = home.mistake(&["up", "-r", "h", "::/0", "--disable-ipv6"], &[]);
    assert!(said.starts_with("every subnet is IPv6"), "{said}");
}

#[test]
fn profiles_are_listed() {
    let home = Home::with(PROD);
    let said = home.underpass(&["profiles"], &[]);
    assert_eq!(
        said.text,
        "prod  127.0.0.1  198.51.100.0/24 203.0.113.0/24\n"
    );
    let said = home.underpass(&["profiles", "--names"], &[]);
    assert_eq!(said.text, "prod\n");
    let said = Home::new().underpass(&["profiles"], &[]);
    assert!(
        said.errors.contains("write [profile.NAME] into"),
        "{}",
        said.errors
    );
}
