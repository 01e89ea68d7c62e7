//! What is no TCP, for a person.

use super::super::control::report::{Beside, Tunnel};
use super::super::table::Size;
use super::list;

/// The lines: what each is of, and its text. What is refused as ever needs none.
pub(super) fn lines(beside: &Beside) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(tunnel) = &beside.tunnel {
        lines.push(("tunnel", of(tunnel)));
        return lines;
    }
    if let Some(why) = &beside.no_tunnel {
        lines.push(("tunnel", format!("none: {why}")));
    }
    for (name, text) in [("udp", &beside.udp), ("ping", &beside.ping)] {
        if !text.is_empty() {
            lines.push((name, text.clone()));
        }
    }
    lines
}

fn of(tunnel: &Tunnel) -> String {
    let Tunnel {
        mode,
        device,
        ours,
        far,
        dropped,
        ..
    } = tunnel;
    let state = match (&tunnel.why, tunnel.is_up) {
        (_, true) => match tunnel.warnings.first() {
            None => "up".to_owned(),
            Some(warning) => format!("up, but {}", problem(warning)),
        },
        (Some(why), false) => format!("down: {why}"),
        (None, false) => "down, and being opened again".to_owned(),
    };
    let (ours, far) = (list(ours, usize::MAX), list(far, usize::MAX));
    let dropped = match dropped {
        0 => String::new(),
        some => format!("; {some} packets dropped"),
    };
    let (up, down) = (Size(tunnel.up.bytes), Size(tunnel.down.bytes));
    format!("{mode}, {state}: {ours} here, {far} by {device} there; {up} up, {down} down{dropped}")
}

/// Without what to do about it, which the log and the JSON form have.
fn problem(warning: &str) -> &str {
    let (problem, _) = warning.split_once("; ").unwrap_or((warning, ""));
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_says_all() {
        let mut tunnel = Tunnel {
            mode: "hybrid".to_owned(),
            is_up: true,
            device: "tun64".to_owned(),
            ours: vec!["198.19.128.1".to_owned(), "fd75::1".to_owned()],
            far: vec!["198.19.128.2".to_owned(), "fd75::2".to_owned()],
            ..Tunnel::default()
        };
        tunnel.down.bytes = 84_000;
        assert_eq!(
            of(&tunnel),
            "hybrid, up: 198.19.128.1, fd75::1 here, 198.19.128.2, fd75::2 by tun64 there; 0 B up, 84.0 kB down"
        );
        tunnel.warnings = vec!["the server's firewall drops; let it pass".to_owned()];
        assert!(of(&tunnel).starts_with("hybrid, up, but the server's firewall drops: "));
        tunnel.is_up = false;
        tunnel.dropped = 3;
        assert!(of(&tunnel).starts_with("hybrid, down, and being opened again: "));
        tunnel.why = Some("the server permits no tunnel".to_owned());
        let text = of(&tunnel);
        assert!(
            text.starts_with("hybrid, down: the server permits no tunnel: "),
            "{text}"
        );
        assert!(text.ends_with("; 3 packets dropped"), "{text}");
    }

    #[test]
    fn what_is_refused_is_not_said() {
        let mut beside = Beside::default();
        assert!(lines(&beside).is_empty());
        beside.no_tunnel = Some("the server permits no tunnel".to_owned());
        let text = "none: the server permits no tunnel".to_owned();
        assert_eq!(lines(&beside), [("tunnel", text)]);
        beside.no_tunnel = None;
        beside.udp = "by python3".to_owned();
        assert_eq!(lines(&beside), [("udp", "by python3".to_owned())]);
    }
}
