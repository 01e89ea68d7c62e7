//! Words for a person to paste into a shell.

/// `word` as a shell reads it (POSIX.1 Shell Command Language, 2.2 Quoting): bare where nothing in it means something to a
/// shell, else in single quotes. Control characters are left out: what is pasted is one line.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let word: String = word.chars().filter(|c| !c.is_control()).collect();
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_that_need_no_quotes_have_none() {
        for word in [
            "-p", "me@h", "[::1]", "a b", "", "$x", "it's", "~/k", "a\nb",
        ] {
            let shown = quoted(word);
            let expected = match word {
                "-p" | "me@h" => word.to_owned(),
                "it's" => r"'it'\''s'".to_owned(),
                "a\nb" => "'ab'".to_owned(),
                _ => format!("'{word}'"),
            };
            assert_eq!(shown, expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_the_same(word in "\\PC*") {
            let script = format!("printf %s {}", quoted(&word));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
