//! Names that are looked up through the server, for a person.

use super::super::control::report::{NamePool, Names};
use super::list;

/// The lines: what each is of, and its text.
pub(super) fn lines(names: &Names) -> Vec<(&'static str, String)> {
    let mut lines = vec![("names", whom(names))];
    if !names.hosts.is_empty() {
        lines.push(("hosts", list(&names.hosts, usize::MAX)));
    }
    if let Some(pool) = &names.pool {
        let NamePool {
            networks,
            used,
            room,
            ..
        } = pool;
        let networks = list(networks, usize::MAX);
        lines.push((
            "addresses",
            format!("{networks}: {used} of {room} in use for names"),
        ));
    }
    lines.push(("questions", questions(names)));
    lines
}

fn whom(names: &Names) -> String {
    let which = match names.domains.as_slice() {
        [] if names.is_all => "all names".to_owned(),
        [] => "those of hosts".to_owned(),
        some => list(some, usize::MAX),
    };
    let whom = match names.servers.as_slice() {
        [] => "looked up by the server, when connected to".to_owned(),
        some => format!("asked of {}", list(some, usize::MAX)),
    };
    format!("{which}: {whom}; programs ask by {}", names.by)
}

fn questions(names: &Names) -> String {
    let counts = [
        (names.remembered, "answered from memory"),
        (names.failed, "failed"),
        (names.mismatched, "mismatched"),
        (names.trailing, "cut"),
        (names.noise, "noise"),
    ];
    let some = counts.into_iter().filter(|(count, _)| *count > 0);
    let words = some.map(|(count, word)| format!(", {count} {word}"));
    names.questions.to_string() + &words.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_server_looks_names_up_nobody_is_asked() {
        let names = Names {
            is_all: true,
            by: "/etc/resolv.conf".to_owned(),
            pool: Some(NamePool {
                networks: vec!["198.19.0.0/20".to_owned()],
                is_for_all: true,
                used: 4094,
                room: 4094,
            }),
            questions: 9,
            failed: 2,
            noise: 1,
            ..Names::default()
        };
        let lines = lines(&names);
        let lines: Vec<String> = lines
            .into_iter()
            .map(|(of, text)| format!("{of}: {text}"))
            .collect();
        assert_eq!(
            lines,
            [
                "names: all names: looked up by the server, when connected to; programs ask by /etc/resolv.conf",
                "addresses: 198.19.0.0/20: 4094 of 4094 in use for names",
                "questions: 9, 2 failed, 1 noise",
            ]
        );
    }
}
