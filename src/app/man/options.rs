//! The arguments of a command as terms and meanings, under the headings of its help.

use clap::Arg;
use clap_mangen::roff::{Inline, bold, italic, roman};

use super::page::Page;

/// Options that every command takes, but for `--help` and `--version`.
const EVERYWHERE: [&str; 5] = ["verbose", "quiet", "log_format", "help", "version"];

/// Whether every command takes it: it is listed once.
pub(super) fn is_of_every_command(argument: &Arg) -> bool {
    EVERYWHERE.contains(&argument.get_id().as_str())
}

/// How a command is typed, on one line.
pub(super) fn usage(command: &clap::Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    usage.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every visible argument for which `wanted` holds.
pub(super) fn list(page: &mut Page, command: &clap::Command, wanted: impl Fn(&Arg) -> bool) {
    let mut heading = None;
    let arguments = command.get_arguments();
    for argument in arguments.filter(|argument| !argument.is_hide_set() && wanted(argument)) {
        let own = argument.get_help_heading();
        if own != heading
            && let Some(title) = own
        {
            page.heading(title);
        }
        heading = own;
        page.entry(term(argument), &meaning(argument));
    }
}

fn term(argument: &Arg) -> Vec<Inline> {
    let mut term = Vec::new();
    if let Some(short) = argument.get_short() {
        term.push(bold(format!("-{short}")));
    }
    if let Some(long) = argument.get_long() {
        if !term.is_empty() {
            term.push(roman(", "));
        }
        term.push(bold(format!("--{long}")));
    }
    if argument.get_action().takes_values()
        && let Some(names) = argument.get_value_names()
    {
        if !term.is_empty() {
            term.push(roman(" "));
        }
        term.push(italic(names.join(" ")));
    }
    term
}

fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut meaning = help.map(ToString::to_string).unwrap_or_default();
    let values = argument.get_possible_values();
    if argument.get_action().takes_values()
        && !values.is_empty()
        && !argument.is_hide_possible_values_set()
    {
        let names: Vec<_> = values
            .iter()
            .map(clap::builder::PossibleValue::get_name)
            .collect();
        meaning.push_str(&format!(": {}", names.join(", ")));
    }
    meaning
}
