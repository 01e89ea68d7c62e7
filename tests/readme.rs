//! Every command of README.md, and every example of the help, is one.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use clap::Parser;
use underpass::cli::{Cli, EXAMPLES};

/// The lines of the blocks that a person pastes into a shell, without what is said beside them.
fn pasted(readme: &str) -> Vec<String> {
    let blocks = readme.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    commands(lines)
}

/// Each command of these lines.
fn commands<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let code = lines.map(|line| line.split("  #").next().unwrap());
    code.flat_map(|line| line.split("&&"))
        .map(|command| command.trim().to_owned())
        .filter(|command| !command.is_empty())
        .collect()
}

/// The words behind `sudo`, up to a pipe.
fn words(command: &str) -> Vec<&str> {
    let words = command.split_whitespace().take_while(|word| *word != "|");
    let words = words.skip_while(|word| *word == "sudo");
    words.map(|word| word.trim_matches('\'')).collect()
}

/// `up` says what it would do, where the profile and the alias of the texts are configured; the rest is understood.
fn holds(home: &Path, words: &[&str]) {
    if let Err(error) = Cli::try_parse_from(words) {
        panic!("{words:?}: {error}");
    }
    // With a tunnel, the server is asked what it would be.
    if words[1] != "up" || words.contains(&"--tunnel") {
        return;
    }
    let words: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| *word != "--dry-run")
        .collect();
    let output = Command::new(env!("CARGO_BIN_EXE_underpass"))
        .args(&words[1..])
        // Its name is looked up, which asks the network.
        .args(["--dry-run", "-o", "HostName=192.0.2.1"])
        .current_dir(home)
        .env_clear()
        .env("XDG_CONFIG_HOME", home.join(".config"))
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join(".config/underpass");
    std::fs::create_dir_all(&config).unwrap();
    let profile = "[profile.prod]\nremote = \"bastion\"\nsubnets = [\"10.0.0.0/16\"]\n";
    std::fs::write(config.join("config.toml"), profile).unwrap();
    std::fs::write(home.path().join("work.txt"), "-r\nbastion\n10.0.1.0/24\n").unwrap();
    home
}

#[test]
fn every_command_of_the_readme_is_one() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(top.join("README.md")).unwrap();
    let home = home();
    let mut count = 0;
    for command in pasted(&readme) {
        let words = words(&command);
        match words[0] {
            "underpass" => {
                holds(home.path(), &words);
                count += 1;
            }
            // The compiler's, and this host's.
            "cargo" | "install" => {}
            script => {
                let mode =
                    std::fs::metadata(top.join(script)).map(|file| file.permissions().mode());
                assert!(mode.is_ok_and(|mode| mode & 0o111 != 0), "{command}");
            }
        }
    }
    assert!(count > 10, "only {count} were found");
}

#[test]
fn every_example_of_the_help_is_one() {
    let home = home();
    let lines = EXAMPLES.lines().map(str::trim);
    let commands = commands(lines.filter(|line| words(line).first() == Some(&"underpass")));
    for command in &commands {
        holds(home.path(), &words(command));
    }
    assert!(commands.len() > 3, "{commands:?}");
}

/// `up` asks sudo itself: with sudo in front it would still work, and nobody is told to type it.
#[test]
fn nobody_is_told_to_type_sudo_in_front_of_up() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let mut texts = vec![std::fs::read_to_string(readme).unwrap()];
    let mut definition = underpass::cli::definition();
    definition.build();
    for command in definition.get_subcommands() {
        texts.push(command.clone().render_long_help().to_string());
    }
    texts.push(definition.render_long_help().to_string());
    for arguments in ["man", "doctor"] {
        let output = Command::new(env!("CARGO_BIN_EXE_underpass"))
            .arg(arguments)
            .output()
            .unwrap();
        texts.push(String::from_utf8(output.stdout).unwrap());
    }
    for text in texts {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for wrong in ["sudo underpass up", "sudo underpass run", "needs root"] {
            assert!(!words.contains(wrong), "{wrong:?} in {text}");
        }
    }
}
