//! Who may name whom: the table of the design, checked against the sources.
//!
//! A room is a top directory or file of `src`. It may name the rooms and the crates of its line, and what the
//! whole house may name. Names point rightwards and down: inlet and carrier never name each other,
//! and the engine knows neither clock nor socket.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A line of the table: what a room may name.
struct Room {
    name: &'static str,
    /// Other rooms, or a module of one.
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
    /// Paths that it may not name although their crate is open to it.
    never: &'static [&'static str],
}

/// What every room may name.
const EVERYWHERE: [&str; 4] = ["std", "core", "thiserror", "tracing"];

/// What code without I/O and without a clock never names.
const SANS_IO: &[&str] = &[
    "std::fs",
    "std::env",
    "std::os",
    "std::thread",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "Instant::now",
    "SystemTime",
];

const TABLE: [Room; 16] = [
    Room {
        name: "lib",
        rooms: &[],
        crates: &[],
        never: &[],
    },
    Room {
        name: "main",
        rooms: &["app"],
        crates: &[],
        never: &[],
    },
    Room {
        name: "cli",
        rooms: &[],
        crates: &["clap", "clap_complete"],
        never: &["std::fs", "std::net", "std::io"],
    },
    Room {
        name: "plan",
        rooms: &["cli"],
        // clap for the values of its enumerations.
        crates: &["clap", "idna", "ipnet", "sha1", "strsim", "toml"],
        never: &["std::fs", "std::env", "std::process"],
    },
    Room {
        name: "app",
        rooms: &[
            "audit", "carrier", "cli", "inlet", "net", "os", "ping", "plan", "relay", "resolve",
            "stats", "udp",
        ],
        crates: &[
            "anyhow",
            "clap",
            "clap_complete",
            "clap_mangen",
            "humantime",
            "ipnet",
            "nix",
            "serde",
            "serde_json",
            "ssh2_config",
            "tokio",
            "tracing_journald",
            "tracing_subscriber",
        ],
        never: &["smoltcp", "russh", "rtnetlink"],
    },
    Room {
        name: "net",
        rooms: &[],
        crates: &["bytes"],
        never: &["std::fs", "std::time"],
    },
    Room {
        name: "engine",
        // Of the host nothing but memory: a socket's ring, which takes `unsafe` to get at.
        rooms: &["net", "os::ring"],
        crates: &["bytes", "smoltcp"],
        never: SANS_IO,
    },
    Room {
        name: "inlet",
        rooms: &["engine", "net", "os"],
        // smoltcp for the engine's time, which the inlet tells it.
        crates: &["bytes", "nix", "smoltcp", "tokio"],
        never: &["smoltcp::socket", "smoltcp::iface"],
    },
    Room {
        name: "relay",
        rooms: &["net"],
        crates: &["bytes", "tokio"],
        never: &["tokio::net", "tokio::fs"],
    },
    Room {
        name: "carrier",
        rooms: &["net", "os", "plan"],
        crates: &[
            "bytes",
            "data_encoding",
            "futures_util",
            "hmac",
            "nix",
            "russh",
            "sha1",
            "socket2",
            "tempfile",
            "tokio",
            "zeroize",
        ],
        never: &[],
    },
    Room {
        name: "resolve",
        rooms: &["net"],
        crates: &["bytes", "futures_util", "hickory_proto", "ipnet", "tokio"],
        never: &["std::fs", "std::env", "tokio::net", "tokio::fs"],
    },
    Room {
        name: "udp",
        rooms: &["net"],
        crates: &["bytes", "tokio"],
        never: &["std::fs", "std::env", "tokio::net", "tokio::fs"],
    },
    Room {
        name: "ping",
        // How a far end begins.
        rooms: &["net", "udp"],
        crates: &["futures_util", "tokio"],
        never: &["std::fs", "std::env", "tokio::net", "tokio::fs"],
    },
    Room {
        name: "stats",
        rooms: &["net", "relay"],
        crates: &[],
        never: &["std::fs"],
    },
    Room {
        name: "audit",
        rooms: &["net", "os", "plan", "relay"],
        crates: &["humantime", "nix", "serde", "serde_json"],
        never: &["tokio"],
    },
    Room {
        name: "os",
        rooms: &["plan"],
        crates: &[
            "caps",
            "futures_util",
            "ipnet",
            "landlock",
            "nix",
            "rtnetlink",
            "sd_notify",
            "seccompiler",
            "serde",
            "serde_json",
            "smoltcp",
            "tokio",
            "tun_tap",
            "zbus",
        ],
        never: &[],
    },
];

/// Crates whose names are looked for: all of Cargo.toml, and std.
fn known_crates() -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let names = dependencies
        .lines()
        .filter_map(|line| Some(line.split_once(" = ")?.0));
    names
        .map(|name| name.replace('-', "_"))
        .chain(["std".to_owned()])
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rooms_in_src() -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join("src")).unwrap();
    entries
        .map(|entry| room_of(&entry.unwrap().path()))
        .collect()
}

fn room_of(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

fn sources(under: &Path) -> Vec<PathBuf> {
    // Tests may name whom they like.
    if room_of(under) == "tests" {
        return Vec::new();
    }
    if under.is_file() {
        let is_code = under.extension().is_some_and(|extension| extension == "rs");
        return is_code.then(|| under.to_owned()).into_iter().collect();
    }
    let entries = std::fs::read_dir(under).unwrap();
    let files = entries.flat_map(|entry| sources(&entry.unwrap().path()));
    // Snapshots stand beside what they are of.
    files
        .filter(|file| file.extension().is_some_and(|end| end == "rs"))
        .collect()
}

/// The code of a file: without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let tests = text.find("mod tests {").unwrap_or(text.len());
    let end = text[..tests].rfind("#[cfg(test)]").unwrap_or(tests);
    let lines = text[..end].lines().map(|line| match line.split_once("//") {
        Some((code, _)) if !code.ends_with(':') => code,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Every path in the code, with the groups of `use` written out: `crate::{a, b::c}` is `crate::a`, `crate::b::c`.
fn paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut groups: Vec<String> = Vec::new();
    let mut path = String::new();
    for character in code.chars().chain(['\n']) {
        match character {
            c if c.is_alphanumeric() || matches!(c, '_' | ':') => path.push(c),
            '{' => {
                let prefix = if path.ends_with("::") {
                    path.clone()
                } else {
                    String::new()
                };
                let outer = groups.last().cloned().unwrap_or_default();
                groups.push(if prefix.is_empty() {
                    String::new()
                } else {
                    outer + &prefix
                });
                path.clear();
            }
            other => {
                if !path.is_empty() {
                    let prefix = groups.last().cloned().unwrap_or_default();
                    found.insert(prefix + &path);
                    path.clear();
                }
                if other == '}' {
                    groups.pop();
                }
            }
        }
    }
    found
}

/// Whether `path` is `outer`, or leads into it.
fn is_within(path: &str, outer: &str) -> bool {
    path == outer || path.starts_with(&format!("{outer}::"))
}

/// What `text`, a file of `room`, names against the table.
fn breaches(room: &Room, text: &str, crates: &BTreeSet<String>) -> Vec<String> {
    let code = code(text);
    let mut breaches = Vec::new();
    for path in paths(&code) {
        let mut parts = path.split("::");
        let first = parts.next().unwrap_or_default();
        let second = parts.next();
        let is_path = second.is_some();
        // No module within a room has the name of a room, so any number of steps up may lead out of it.
        let is_up = first == "super";
        let other = path.trim_start_matches("super::").split("::").next();
        let named = if is_up { other } else { second };
        let inner = match is_up {
            true => path.trim_start_matches("super::"),
            false => path.split_once("::").map_or("", |(_, inner)| inner),
        };
        let foreign_room = matches!(first, "crate" | "underpass" | "super")
            && named.is_some_and(|other| {
                other != room.name
                    && !room.rooms.iter().any(|allowed| is_within(inner, allowed))
                    && TABLE.iter().any(|line| line.name == other)
            });
        let foreign_crate = is_path
            && crates.contains(first)
            && !EVERYWHERE.contains(&first)
            && !room.crates.contains(&first);
        let never = room
            .never
            .iter()
            .any(|never| is_within(&path, never) || path.ends_with(&format!("::{never}")));
        if foreign_room || foreign_crate || never {
            breaches.push(format!("{} names {path}", room.name));
        }
    }
    breaches
}

#[test]
fn nobody_names_whom_they_may_not() {
    let crates = known_crates();
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let Some(room) = TABLE.iter().find(|room| room.name == room_of(&path)) else {
            continue;
        };
        for file in sources(&path) {
            let text = std::fs::read_to_string(&file).unwrap();
            let found = breaches(room, &text, &crates);
            all.extend(
                found
                    .into_iter()
                    .map(|breach| format!("{}: {breach}", file.display())),
            );
        }
    }
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

/// The connection protocol has no I/O and no clock, and needs none of SSH's libraries.
#[test]
fn the_channel_layer_is_sans_io() {
    let layer = Room {
        name: "carrier",
        rooms: &[],
        crates: &["bytes"],
        never: SANS_IO,
    };
    let crates = known_crates();
    for file in sources(&root().join("src/carrier/channels")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let found = breaches(&layer, &text, &crates);
        assert_eq!(found, Vec::<String>::new(), "{}", file.display());
    }
}

/// The questions' part of the name server has no I/O and no clock; `proxy.rs`, `clients.rs`, `datagrams.rs` and `upstream.rs` give it both.
#[test]
fn the_resolver_is_sans_io() {
    let layer = Room {
        name: "resolve",
        rooms: &[],
        crates: &["hickory_proto", "ipnet"],
        never: SANS_IO,
    };
    let crates = known_crates();
    let files = sources(&root().join("src/resolve"));
    let with_io = ["mod", "proxy", "clients", "datagrams", "upstream"];
    let pure = |file: &&PathBuf| !with_io.contains(&room_of(file).as_str());
    for file in files.iter().filter(pure) {
        let text = std::fs::read_to_string(file).unwrap();
        let found = breaches(&layer, &text, &crates);
        assert_eq!(found, Vec::<String>::new(), "{}", file.display());
    }
}

/// Flows over a far end, and whom to ask when, have no I/O and no clock.
#[test]
fn what_comes_beside_tcp_is_sans_io() {
    let crates = known_crates();
    for (name, files) in [
        (
            "udp",
            &[
                "far/elf", "far/mod", "far_end", "frame", "mux", "queue", "record", "table",
            ][..],
        ),
        ("ping", &["hosts"]),
    ] {
        let layer = Room {
            name,
            rooms: &["net"],
            crates: &["bytes"],
            never: SANS_IO,
        };
        for file in files {
            let file = root()
                .join("src")
                .join(name)
                .join(file)
                .with_extension("rs");
            let text = std::fs::read_to_string(&file).unwrap();
            let found = breaches(&layer, &text, &crates);
            assert_eq!(found, Vec::<String>::new(), "{}", file.display());
        }
    }
}

/// What nobody names needs no permission: a line says what its room is made of.
#[test]
fn no_line_allows_what_its_room_does_not_name() {
    let mut unused = Vec::new();
    for room in TABLE {
        let dir = root().join("src").join(room.name);
        let files = if dir.is_dir() {
            dir
        } else {
            dir.with_extension("rs")
        };
        let texts = sources(&files)
            .into_iter()
            .map(|file| std::fs::read_to_string(file).unwrap());
        let named: BTreeSet<String> = texts.flat_map(|text| paths(&code(&text))).collect();
        let is_named = |prefixes: &[String]| {
            named
                .iter()
                .any(|path| prefixes.iter().any(|p| path == p || path.starts_with(p)))
        };
        for other in room.rooms {
            if !is_named(&[format!("crate::{other}"), format!("underpass::{other}")]) {
                unused.push(format!("{}: {other}", room.name));
            }
        }
        for krate in room.crates {
            if !is_named(&[format!("{krate}::")]) {
                unused.push(format!("{}: {krate}", room.name));
            }
        }
    }
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn every_room_has_its_line() {
    let lines: BTreeSet<String> = TABLE.iter().map(|room| room.name.to_owned()).collect();
    let missing: Vec<_> = rooms_in_src().difference(&lines).cloned().collect();
    assert!(missing.is_empty(), "no line in the table for {missing:?}");
}

#[test]
fn unsafe_code_lives_in_os_only() {
    for file in sources(&root().join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        if ["allow(unsafe_code", "expect(unsafe_code"]
            .iter()
            .any(|lift| text.contains(lift))
        {
            assert!(
                file.starts_with(root().join("src/os")),
                "{}",
                file.display()
            );
        }
    }
}

#[test]
fn a_made_up_breach_is_found() {
    let crates = known_crates();
    let room = |name| TABLE.iter().find(|room| room.name == name).unwrap();
    for (name, text) in [
        ("engine", "use tokio::time::sleep;"),
        ("engine", "let now = std::time::Instant::now();"),
        ("engine", "use crate::carrier::russh;"),
        ("engine", "use std::{fmt, fs};"),
        ("inlet", "use crate::{net::Target, carrier::Pool};"),
        ("carrier", "use crate::{\n    inlet::{self, tun},\n};"),
        ("plan", "fn f() { tokio::spawn(async {}); }"),
        ("relay", "use smoltcp::wire::TcpRepr;"),
        ("main", "use underpass::os::Slot;"),
        ("engine", "use super::super::carrier::Pool;"),
        ("engine", "use crate::os::{memory, ring::RingSocket};"),
        ("engine", "use crate::os;"),
        ("engine", "use super::super::os::ringing;"),
        ("relay", "use super::carrier::Pool;"),
    ] {
        assert_ne!(
            breaches(room(name), text, &crates),
            Vec::<String>::new(),
            "{name}: {text}"
        );
    }
    for (name, text) in [
        (
            "engine",
            "// like crate::carrier::russh\nuse crate::net::{FlowKey, Target};",
        ),
        (
            "engine",
            "use smoltcp::time::Instant;\n#[cfg(test)]\nmod tests { use proptest::prelude::*; }",
        ),
        ("engine", "use crate::os::ring::RingSocket;"),
        ("engine", "use super::super::os::ring;"),
        ("plan", "let url = \"ssh://tokio\"; use std::net::IpAddr;"),
    ] {
        assert_eq!(
            breaches(room(name), text, &crates),
            Vec::<String>::new(),
            "{name}: {text}"
        );
    }
}

/// What runs with privileges and was written for that; what it calls besides, in `os/` and `plan/`, other parts use as well.
const PRIVILEGED: [&str; 6] = [
    "src/app/helper.rs",
    "src/os/helper/guard.rs",
    "src/os/helper/line.rs",
    "src/os/helper/mod.rs",
    "src/os/helper/serve.rs",
    "src/os/helper/wire.rs",
];
/// What of `os/` it calls: the kernel's language, what shall hold, and what was left.
const CALLED: [&str; 19] = [
    "src/os/apply.rs",
    "src/os/bridges.rs",
    "src/os/changes.rs",
    "src/os/confine/calls.rs",
    "src/os/confine/files.rs",
    "src/os/confine/mod.rs",
    "src/os/namespace/existing.rs",
    "src/os/netlink.rs",
    "src/os/orphan.rs",
    "src/os/privilege.rs",
    "src/os/resolv_conf.rs",
    "src/os/routes/mod.rs",
    "src/os/routes/rules.rs",
    "src/os/routes/words.rs",
    "src/os/signals.rs",
    "src/os/slot.rs",
    "src/os/source.rs",
    "src/os/stale.rs",
    "src/os/tun.rs",
];

/// And what it brings programs to our name server with, where that is asked for.
const NAMES: [&str; 8] = [
    "src/os/names/bus.rs",
    "src/os/names/domains.rs",
    "src/os/names/file.rs",
    "src/os/names/left.rs",
    "src/os/names/mod.rs",
    "src/os/names/patience.rs",
    "src/os/names/program.rs",
    "src/os/names/resolved.rs",
];

/// And in another network.
const NETNS: [&str; 5] = [
    "src/os/names/netns/left.rs",
    "src/os/names/netns/mod.rs",
    "src/os/names/netns/named.rs",
    "src/os/names/netns/process.rs",
    "src/os/names/netns/written.rs",
];

/// Lines of code, comments and tests apart.
fn lines_of_code(files: &[&str]) -> usize {
    let text = |file: &&str| std::fs::read_to_string(root().join(file)).unwrap();
    let count = |text: String| {
        let code = code(&text);
        code.lines().filter(|line| !line.trim().is_empty()).count()
    };
    files.iter().map(text).map(count).sum()
}

/// The manual says these numbers.
#[test]
fn the_privileged_part_is_small() {
    let own = lines_of_code(&PRIVILEGED);
    assert!(own < 1000, "{own} lines of its own");
    let called = lines_of_code(&CALLED);
    assert!(called < 2300, "{called} lines that it calls");
    let names = lines_of_code(&NAMES);
    assert!(names < 800, "{names} lines for names");
    let netns = lines_of_code(&NETNS);
    assert!(netns < 650, "{netns} lines for those of another network");
}
