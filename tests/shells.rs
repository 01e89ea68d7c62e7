//! Completion scripts, manual page and help where they are used: in bash, zsh and fish, by man and mandoc, on a screen.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");

fn underpass(args: &[&str]) -> String {
    let output = Command::new(UNDERPASS).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A directory with the script, and a config.toml with two profiles.
struct Place(TempDir);

impl Place {
    fn new(shell: &str, name: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(name), underpass(&["completions", shell])).unwrap();
        std::fs::create_dir(place.path().join("underpass")).unwrap();
        let profiles = "[profile.prod]\nremote = \"h\"\n[profile.stage]\nremote = \"h\"\n";
        std::fs::write(place.path().join("underpass/config.toml"), profiles).unwrap();
        Self(place)
    }

    /// What a shell says, with our program in its path.
    fn run(&self, shell: &str, args: &[&str], lines: &str) -> String {
        let programs = Path::new(UNDERPASS).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut child = Command::new(shell)
            .args(args)
            .env("PATH", path)
            .env("HOME", self.0.path())
            .env("XDG_CONFIG_HOME", self.0.path())
            .env("TERM", "dumb")
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(lines.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shell}: {errors}");
        assert_eq!(errors, "", "{shell}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn bash_completes_options_and_profiles() {
    let place = Place::new("bash", "script");
    let complete = |words: &str, at: usize| {
        let lines = format!(
            "compopt() {{ :; }}; source ./script\nCOMP_WORDS=({words}); COMP_CWORD={at}\n\
             f=$(complete -p underpass | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n\
             $f underpass \"${{COMP_WORDS[{at}]}}\" \"${{COMP_WORDS[{at}-1]}}\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        place.run("bash", &["--norc", "-s"], &lines)
    };
    assert!(complete("underpass up --dry", 2).contains("--dry-run\n"));
    assert_eq!(complete("underpass up pr", 2), "prod\n");
    assert!(complete("underpass up --profile st", 3).contains("stage\n"));
    assert!(complete("underpass up -r h ''", 4).contains("prod\nstage\n"));
    assert!(!complete("underpass up -r ''", 3).contains("prod"));
}

#[test]
fn fish_completes_options_and_profiles() {
    let place = Place::new("fish", "script");
    let complete = |line: &str| {
        let lines = format!("source ./script; complete -C '{line}'\n");
        place.run("fish", &["--no-config", "--private"], &lines)
    };
    assert!(complete("underpass up --dry").contains("--dry-run"));
    assert!(complete("underpass up pr").contains("prod"));
    assert!(complete("underpass up --profile st").contains("stage"));
}

#[test]
fn zsh_loads_the_script_and_knows_the_profiles() {
    let place = Place::new("zsh", "_underpass");
    // What _underpass_profiles would add is shown instead.
    let lines = "fpath=($PWD $fpath); autoload -Uz compinit && compinit -D -u\n\
                 print -- ${_comps[underpass]}\nautoload -Uz +X _underpass\n\
                 compadd() { shift; print -l -- $@ }\n_arguments() { print -l -- $@ }\n\
                 source ./_underpass; _underpass_profiles\n";
    let said = place.run("zsh", &["-f", "-s"], lines);
    assert!(said.contains("_underpass\n"), "{said}");
    assert!(said.ends_with("prod\nstage\n"), "{said}");
    let script = underpass(&["completions", "zsh"]);
    for line in ["'*::subnets -- ", "'--profile=["] {
        let entry = script.lines().find(|text| text.starts_with(line)).unwrap();
        assert!(entry.ends_with(":_underpass_profiles' \\"), "{entry}");
    }
}

#[test]
fn man_and_mandoc_have_nothing_to_say_about_the_page() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("underpass.1");
    std::fs::write(&path, underpass(&["man"])).unwrap();
    let mut lint = Command::new("mandoc");
    lint.args(["-T", "lint", "-W", "style"]).arg(&path);
    let output = lint.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
    let man = Command::new("man")
        .args(["--warnings", "-E", "UTF-8", "-l"])
        .arg(&path)
        .env("MANWIDTH", "80")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&man.stderr), "");
    let shown = String::from_utf8(man.stdout).unwrap();
    for section in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "COMMANDS",
        "OPTIONS",
        "PRIVILEGES",
        "FILES",
        "ENVIRONMENT",
        "EXIT STATUS",
        "EXAMPLES",
        "SEE ALSO",
    ] {
        assert!(
            shown.lines().any(|line| line == section),
            "{section}\n{shown}"
        );
    }
    for part in [
        "-r, --remote HOST",
        "--dry-run",
        "/etc/underpass/config.toml",
        "idle-timeout",
        "UNDERPASS_REMOTE",
        "ssh_config(5)",
        "[profile.prod]",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    // What root types is there, and what it allows.
    let rule = underpass(&["sudoers", "--user", "alice", "--force"]);
    let allows = rule.lines().take_while(|line| line.starts_with('#'));
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        allows.collect::<Vec<_>>().join(" ").as_str(),
        "alice ALL=(root) NOPASSWD: /usr/local/bin/underpass helper",
        "sudo setcap cap_net_admin+ep /usr/local/bin/underpass",
        "'profile underpass /usr/local/bin/underpass flags=(unconfined) { userns, }' | sudo tee /etc/apparmor.d/underpass",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn help_fits_a_screen() {
    let all = underpass::cli::definition();
    let mut all: Vec<_> = all
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| (Some(command.get_name().to_owned()), 50))
        .collect();
    all.push((None, 24));
    for (command, lines) in all {
        let mut definition = underpass::cli::definition().term_width(80);
        definition.build();
        let wanted = match &command {
            None => &mut definition,
            Some(name) => definition.find_subcommand_mut(name).unwrap(),
        };
        let help = wanted.clone().term_width(80).render_help().to_string();
        assert!(
            help.lines().count() <= lines,
            "{}\n{help}",
            help.lines().count()
        );
        assert!(
            help.lines().all(|line| line.chars().count() <= 80),
            "{help}"
        );
        assert!(help.contains("Example"), "{help}");
    }
}

#[test]
fn everything_is_installed_below_a_prefix() {
    let prefix = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/share");
    let status = Command::new(script)
        .arg(prefix.path())
        .arg(UNDERPASS)
        .status();
    assert!(status.unwrap().success());
    for file in [
        "man/man1/underpass.1.gz",
        "bash-completion/completions/underpass",
        "zsh/site-functions/_underpass",
        "fish/vendor_completions.d/underpass.fish",
    ] {
        let length = std::fs::metadata(prefix.path().join("share").join(file))
            .unwrap()
            .len();
        assert!(length > 500, "{file}");
    }
}

/// The rule would make root of who owns the program.
#[test]
fn no_rule_is_printed_for_a_program_that_others_can_replace() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("underpass");
    // By a process of its own: a child of another test that had the file open for writing would make it a busy one.
    let made = Command::new("cp").arg(UNDERPASS).arg(&copy).status();
    assert!(made.unwrap().success());
    let sudoers = |force: &[&str]| {
        let mut command = Command::new(&copy);
        command.args(["sudoers", "--user", "alice"]).args(force);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    // Below the directory for temporary files, which is everybody's.
    let (code, rule, said) = sudoers(&[]);
    assert_eq!((code, rule.as_str()), (Some(1), ""));
    assert!(
        said.contains("become root; install underpass where root alone can write: sudo install"),
        "{said}"
    );
    let (code, rule, said) = sudoers(&["--force"]);
    assert_eq!(code, Some(0));
    assert!(
        rule.contains("alice ALL=(root) NOPASSWD: ") && said.contains("become root"),
        "{said}"
    );
}
