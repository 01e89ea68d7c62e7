//! JSON for scripts, which a person may look at on a terminal.

use std::fmt::Write;

use serde::Serialize;

/// `value` on several lines, with the end of the last one. Control characters are escaped, also those that JSON does not ask for (DEL
/// and U+0080 to U+009F): another's text must not steer a terminal.
///
/// # Errors
/// Those of the serializer.
pub(super) fn pretty(value: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string_pretty(value)?;
    let mut text = String::with_capacity(json.len() + 1);
    // Outside of strings there are none but line breaks.
    for c in json.chars() {
        if c.is_control() && c != '\n' {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_steers_a_terminal_and_each_comes_back() {
        let texts = ["\u{9b}2J", "\x7f\x1b[31m\r\n\t\x00", "b\u{fc}ro \"x\" \\"];
        let json = pretty(&texts).unwrap();
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!json.contains(steers), "{json:?}");
        assert!(json.contains("b\u{fc}ro"), "{json}");
        assert_eq!(json.lines().count(), 2 + texts.len());
        assert_eq!(serde_json::from_str::<[String; 3]>(&json).unwrap(), texts);
    }
}
