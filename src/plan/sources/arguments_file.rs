//! `@FILE`: arguments from a file, one per line, as sshuttle has them.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::{Origin, SourceError};

/// More than this is no command line.
const MOST: usize = 10_000;

/// Puts the lines of each `@FILE` in its place, up to `--`. `read` gives the text of a file.
///
/// # Errors
/// Those of `read`; a line that holds more than one argument or names a further file.
pub fn expand(
    arguments: impl Iterator<Item = OsString>,
    read: &mut dyn FnMut(&Path) -> Result<String, SourceError>,
) -> Result<Vec<OsString>, SourceError> {
    let mut expanded = Vec::new();
    let mut is_over = false;
    for argument in arguments {
        is_over |= argument == "--";
        match file(&argument).filter(|_| !is_over) {
            Some(path) => {
                let text = read(path)?;
                expanded.extend(lines(path, &text)?.into_iter().map(OsString::from));
            }
            None => expanded.push(argument),
        }
    }
    Ok(expanded)
}

fn file(argument: &OsStr) -> Option<&Path> {
    let name = argument.to_str()?.strip_prefix('@')?;
    (!name.is_empty()).then(|| Path::new(name))
}

fn lines(path: &Path, text: &str) -> Result<Vec<String>, SourceError> {
    let mut arguments = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let argument = line.trim();
        if argument.is_empty() || argument.starts_with('#') {
            continue;
        }
        let said = if arguments.len() == MOST {
            Some(format!("more than {MOST} arguments"))
        } else {
            wrong(argument)
        };
        if let Some(said) = said {
            let (path, line) = (path.to_owned(), index + 1);
            let place = Origin::File { path, line }.to_string();
            return Err(SourceError::Arguments { place, said });
        }
        arguments.push(argument.to_owned());
    }
    Ok(arguments)
}

/// What is wrong with a line.
fn wrong(argument: &str) -> Option<String> {
    if argument.starts_with('@') {
        return Some(format!(
            "{argument} is a file in a file; name it on the command line"
        ));
    }
    let (option, value) = argument.split_once(char::is_whitespace)?;
    let is_short = option.starts_with('-') && option.len() == 2;
    let is_long = option.starts_with("--") && !option.contains('=');
    (is_short || is_long).then(|| {
        format!(
            "one argument per line: put {} on a line of its own",
            value.trim()
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expanded(typed: &[&str], text: &str) -> Result<Vec<String>, SourceError> {
        let typed = typed.iter().map(OsString::from);
        let mut read = |_: &Path| Ok(text.to_owned());
        let words = expand(typed, &mut read)?;
        Ok(words
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect())
    }

    #[test]
    fn lines_stand_where_the_file_stood() {
        let text = "# the bastion\n-r\nme@bastion\n\n  10/8 \n-oCompression yes\n--option=A b\n";
        assert_eq!(
            expanded(&["up", "@f", "-v", "--", "@g", "@"], text).unwrap(),
            [
                "up",
                "-r",
                "me@bastion",
                "10/8",
                "-oCompression yes",
                "--option=A b",
                "-v",
                "--",
                "@g",
                "@"
            ]
        );
        assert_eq!(expanded(&["@"], text).unwrap(), ["@"]);
    }

    #[test]
    fn a_mistake_has_its_line() {
        for (text, said) in [
            (
                "-r\n-r bastion",
                "f:2: one argument per line: put bastion on a line of its own",
            ),
            (
                "--remote  bastion",
                "f:1: one argument per line: put bastion on a line of its own",
            ),
            (
                "#\n@g",
                "f:2: @g is a file in a file; name it on the command line",
            ),
        ] {
            let error = expanded(&["@f"], text).unwrap_err();
            assert_eq!(error.to_string(), said);
        }
        let error = expanded(&["@f"], &"a\n".repeat(MOST + 1)).unwrap_err();
        assert!(error.to_string().contains("more than"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|[\n\r\t@# -])*") {
            if let Ok(words) = expanded(&["@f"], &text) {
                prop_assert!(words.iter().all(|word| !word.is_empty() && !word.starts_with(['@', '#'])));
            }
        }
    }
}
