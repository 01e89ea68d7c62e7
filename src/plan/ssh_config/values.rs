//! Values of ssh's configuration that are more than a word: lists of files, times, sizes.

/// The files of a line of `ssh -G`, which does not quote: a word that is the start of no path belongs to the path
/// before it, which had a blank.
pub(super) fn paths(value: &str) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for word in value.split(' ') {
        match paths.last_mut() {
            Some(path) if !word.starts_with(['/', '~']) => {
                path.push(' ');
                path.push_str(word);
            }
            _ => paths.push(word.to_owned()),
        }
    }
    paths.retain(|path| !path.is_empty());
    paths
}

/// A time in seconds: `90`, `1m30s` (misc.c `convtime`).
pub(in crate::plan) fn seconds(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (digits, unit) = rest.split_at(end);
        let scale = match unit.chars().next().map(|c| c.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 24 * 3600,
            Some('w') => 7 * 24 * 3600,
            Some(_) => return None,
        };
        let part = digits.parse::<u64>().ok()?.checked_mul(scale)?;
        total = total.checked_add(part)?;
        rest = unit.get(1..).unwrap_or_default();
    }
    (!text.is_empty()).then_some(total)
}

/// A size in bytes: `512K`, `1G` (misc.c `scan_scaled`).
pub(super) fn bytes(text: &str) -> Option<u64> {
    let scale = match text.chars().last()?.to_ascii_uppercase() {
        'K' => 1 << 10,
        'M' => 1 << 20,
        'G' => 1 << 30,
        _ => return text.parse().ok(),
    };
    let digits = text.get(..text.len() - 1)?;
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_and_sizes() {
        for (text, value) in [
            ("0", Some(0)),
            ("90", Some(90)),
            ("1m30s", Some(90)),
            ("1H", Some(3600)),
            ("2d1w", Some(9 * 24 * 3600)),
            ("", None),
            ("m", None),
            ("1y", None),
            ("-1", None),
            ("99999999999999999999", None),
            ("9999999999999999w", None),
        ] {
            assert_eq!(seconds(text), value, "{text}");
        }
        for (text, value) in [
            ("7", Some(7)),
            ("512k", Some(512 << 10)),
            ("1G", Some(1 << 30)),
            ("", None),
            ("G", None),
            ("1T", None),
            ("99999999999999999G", None),
            ("1\u{fc}", None),
        ] {
            assert_eq!(bytes(text), value, "{text}");
        }
    }

    #[test]
    fn a_path_with_blanks_stays_whole() {
        assert_eq!(
            paths("/g 1/kh /g2 ~/my files/kh"),
            ["/g 1/kh", "/g2", "~/my files/kh"]
        );
        assert_eq!(paths("kh"), ["kh"]);
        assert_eq!(paths(""), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", number in "[0-9a-zA-Z ]{0,12}") {
            for text in [text, number] {
                let _ = (paths(&text), seconds(&text), bytes(&text));
            }
        }
    }
}
