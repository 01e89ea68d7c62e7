//! `-s FILE` and `-X FILE`: one network per line, `#` begins a comment.

use std::path::Path;

use super::super::{PlanError, capture};
use super::{Origin, SourceError};

/// The networks of a file of `-s`, as typed there.
///
/// # Errors
/// [`SourceError`] with the line that is no network.
pub fn subnets(path: &Path, text: &str) -> Result<Vec<String>, SourceError> {
    networks(path, text, capture::check_target)
}

/// The networks of a file of `-X`, as typed there.
///
/// # Errors
/// [`SourceError`] with the line that is no network.
pub fn excludes(path: &Path, text: &str) -> Result<Vec<String>, SourceError> {
    networks(path, text, capture::check_exclude)
}

fn networks(
    path: &Path,
    text: &str,
    check: fn(&str) -> Result<(), PlanError>,
) -> Result<Vec<String>, SourceError> {
    let mut networks = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let network = line.split('#').next().unwrap_or_default().trim();
        if network.is_empty() {
            continue;
        }
        check(network).map_err(|source| {
            let (path, line) = (path.to_owned(), index + 1);
            SourceError::Value {
                place: Origin::File { path, line }.to_string(),
                source: Box::new(source),
            }
        })?;
        networks.push(network.to_owned());
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comments_and_blank_lines_are_none() {
        let text = "# ours\n10.0/16 # all\r\n\n  [fd00::/64]:443\n0/0#";
        let read = subnets(Path::new("s"), text).unwrap();
        assert_eq!(read, ["10.0/16", "[fd00::/64]:443", "0/0"]);
    }

    #[test]
    fn a_mistake_has_its_line() {
        let error = subnets(Path::new("/a/s"), "10/8\n\n10/33\n").unwrap_err();
        assert!(error.to_string().starts_with("/a/s:3: subnet \"10/33\": "));
        let error = excludes(Path::new("x"), "10/8:80").unwrap_err();
        assert!(error.to_string().starts_with("x:1: -x \"10/8:80\": ports"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|\n)*") {
            let _ = subnets(Path::new("f"), &text);
            let _ = excludes(Path::new("f"), &text);
        }

        #[test]
        fn what_is_a_network_comes_out(lines in prop::collection::vec((any::<[u8; 4]>(), 0..=32u8), 0..50)) {
            let networks: Vec<_> = lines
                .iter()
                .map(|(octets, width)| format!("{}/{width}", std::net::Ipv4Addr::from(*octets)))
                .collect();
            prop_assert_eq!(excludes(Path::new("f"), &networks.join("\n")).unwrap(), networks);
        }
    }
}
