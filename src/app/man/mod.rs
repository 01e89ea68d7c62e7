//! The manual page: what the one definition of the arguments says, and what stands in no option.

mod options;
mod page;
mod privileges;

use crate::cli;
use crate::plan::sources;
use page::Page;

/// When the words below were last changed.
const DATE: &str = "2026-11-28";

const RULES: &[&str] = &[
    "A value that is not typed is taken from the environment, then from the profile, then from the \
     defaults: the highest place counts.",
    "Exclusions, keys and options of ssh add up instead, and the networks of one place (subnets and subnets-from \
     together) replace those of the lower ones, as users and groups together do.",
    "all, isolate and publish count for run and shell alone; user, group, gateway, name, pidfile, for and idle-timeout \
     for up alone. A profile may have both.",
    "With --dry-run, or with -v, it is said where each such value comes from.",
];

const CONFIG: &str = "\
[defaults]
exclude = [\"192.168.0.0/16\"]

[profile.prod]
remote = \"me@bastion\"
subnets = [\"10.0.0.0/16\", \"10.1.0.7:5432\"]
";

/// Other variables than our own.
const VARIABLES: &[(&str, &str)] = &[
    ("UNDERPASS_PROFILE", "The profile, where none is typed."),
    (
        "UNDERPASS_RUNTIME_DIR",
        "Where control sockets are, instead of /run/underpass (root), or underpass below XDG_RUNTIME_DIR.",
    ),
    ("NO_COLOR", "Not empty: no colour in the log."),
    (
        "XDG_CONFIG_HOME",
        "Where underpass/config.toml is, instead of ~/.config.",
    ),
    (
        "SSH_AUTH_SOCK",
        "The agent with the keys, as for ssh. sudo removes the variable; started by sudo, underpass looks for it in what sudo and the programs before it were started with, as far as they are the caller's. Where it is in none of them: leave sudo away, name the socket as IdentityAgent in ssh_config(5), or sudo --preserve-env=SSH_AUTH_SOCK.",
    ),
    (
        "SSH_ASKPASS, SSH_ASKPASS_REQUIRE, DISPLAY",
        "What asks where there is no terminal, as for ssh.",
    ),
    (
        "TMPDIR",
        "Where what a program does not read is kept, instead of /var/tmp.",
    ),
];

/// The whole page, in roff.
pub(super) fn page() -> String {
    let mut definition = cli::definition();
    definition.build();
    let mut page = Page::new("underpass", DATE, env!("CARGO_PKG_VERSION"));
    start(&mut page, &definition);
    commands(&mut page, &definition);
    page.section("OPTIONS");
    options::list(&mut page, &definition, options::is_of_every_command);
    privileges::section(&mut page);
    files(&mut page);
    environment(&mut page);
    end(&mut page);
    page.finish()
}

fn visible(definition: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    definition
        .get_subcommands()
        .filter(|command| command.get_name() != "help" && !command.is_hide_set())
}

fn start(page: &mut Page, definition: &clap::Command) {
    let about = definition.get_about().map(ToString::to_string);
    let about = about.unwrap_or_default();
    page.section("NAME");
    page.text(&format!("underpass - {}", about.trim_end_matches('.')));
    page.section("SYNOPSIS");
    let usages = visible(definition).map(options::usage);
    page.literal(&usages.collect::<Vec<_>>().join("\n"));
    page.section("DESCRIPTION");
    let long = definition.get_long_about().map(ToString::to_string);
    page.paragraphs(&long.unwrap_or(about));
}

fn commands(page: &mut Page, definition: &clap::Command) {
    page.section("COMMANDS");
    for command in visible(definition) {
        page.subsection(&options::usage(command));
        let about = command.get_long_about().or_else(|| command.get_about());
        page.paragraphs(&about.map(ToString::to_string).unwrap_or_default());
        options::list(page, command, |argument| {
            !options::is_of_every_command(argument)
        });
    }
}

fn files(page: &mut Page) {
    page.section("FILES");
    page.item("~/.config/underpass/config.toml", "Defaults and profiles, in TOML. Refused when others can write it, for it can name a command to run. Run by sudo, it is the caller's.");
    page.item(
        "/etc/underpass/config.toml",
        "The same for all users. The profiles and defaults of a user go before it.",
    );
    page.literal(CONFIG);
    page.paragraph();
    page.text("The keys are long options without their dashes:");
    for (keys, takes) in keys() {
        page.item(&keys.join(", "), takes);
    }
    for rule in RULES {
        page.paragraph();
        page.text(rule);
    }
    page.item(
        "@FILE",
        "In place of arguments: those of the file, one per line. A line that begins with # is none.",
    );
}

/// The keys of config.toml, those together that take the same.
fn keys() -> Vec<(Vec<&'static str>, &'static str)> {
    let mut groups: Vec<(Vec<&str>, &str)> = Vec::new();
    for (key, takes) in sources::keys() {
        match groups.iter_mut().find(|(_, of_group)| *of_group == takes) {
            Some((keys, _)) => keys.push(key),
            None => groups.push((vec![key], takes)),
        }
    }
    groups
}

fn environment(page: &mut Page) {
    page.section("ENVIRONMENT");
    page.text("A variable for every key of config.toml, in capitals: UNDERPASS_REMOTE for remote, UNDERPASS_IDLE_TIMEOUT for idle-timeout. Networks are separated by blanks or commas; of other lists there is one value. An empty variable counts as none. One for an option that is no key, or that is of no use to the command, is an error. sudo removes them, unless told: sudo --preserve-env=UNDERPASS_REMOTE.");
    for (variable, meaning) in VARIABLES {
        page.item(variable, meaning);
    }
}

fn end(page: &mut Page) {
    page.section("EXIT STATUS");
    for line in cli::EXIT_CODES.lines().skip(1) {
        if let Some((code, meaning)) = line.trim().split_once(' ') {
            page.item(code, meaning.trim());
        }
    }
    page.section("EXAMPLES");
    page.literal(cli::EXAMPLES);
    page.section("SEE ALSO");
    page.text("ssh(1), ssh_config(5), sshd_config(5), ip(8), ip-rule(8)");
}
