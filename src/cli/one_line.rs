//! What clap has to say about a line that makes no sense, in one line.

use clap::error::ErrorKind;

/// Whether it is an answer and no mistake. Nothing typed at all is answered too.
pub(super) fn is_help(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::DisplayVersion
    )
}

/// What is wrong, and what says more. clap's own words have what is wrong in the first paragraphs, then the usage.
pub(super) fn of(error: &clap::Error, command: Option<&str>) -> String {
    // Else every command is listed, those too that nobody types.
    let wrong = match error.kind() {
        ErrorKind::MissingSubcommand => "a command is missing".to_owned(),
        _ => first_paragraphs(&error.render().to_string()),
    };
    let instead = match (error.kind(), command) {
        (ErrorKind::MissingRequiredArgument, Some("run")) => {
            " underpass run -r me@bastion 10.0.0.0/16 -- psql is one that has it;"
        }
        _ => "",
    };
    let command = command.map_or_else(String::new, |command| format!(" {command}"));
    format!("{wrong};{instead} underpass{command} -h says more")
}

fn first_paragraphs(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_wrong =
        |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more information");
    let mut all = String::new();
    for line in lines.take_while(is_wrong) {
        let between = match line.starts_with('[') || all.ends_with(':') {
            _ if all.is_empty() => "",
            true => " ",
            false => "; ",
        };
        all.push_str(between);
        all.push_str(line);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::cli::{Unparsed, parse};

    fn said(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect::<Vec<_>>();
        match parse(&words).unwrap_err() {
            Unparsed::Nonsense(text) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn one_line_with_what_is_wrong_and_what_says_more() {
        for (line, expected) in [
            (
                "underpass up --log-format xml",
                "invalid value 'xml' for '--log-format <FORMAT>' [possible values: human, json]; underpass up -h says more",
            ),
            (
                "underpass run 10/8",
                "the following required arguments were not provided: <COMMAND>...; underpass run -r me@bastion 10.0.0.0/16 -- psql is one that has it; underpass run -h says more",
            ),
            (
                "underpass -v",
                "a command is missing; underpass -h says more",
            ),
            (
                "underpass up --excludes 10/8",
                "unexpected argument '--excludes' found; tip: a similar argument exists: '--exclude'; underpass up -h says more",
            ),
        ] {
            assert_eq!(said(line), expected);
        }
    }

    #[test]
    fn every_mistake_is_one_line() {
        for line in [
            "up -p x",
            "up -p",
            "up -q -v",
            "down a -a",
            "bogus",
            "status --bogus",
            "completions tcsh-of-mine",
            "up --mtu -1",
            "up -r a -r b",
        ] {
            let text = said(&format!("underpass {line}"));
            assert_eq!(text.lines().count(), 1, "{line}: {text}");
            assert!(!text.contains("Usage:"), "{line}: {text}");
        }
    }
}
