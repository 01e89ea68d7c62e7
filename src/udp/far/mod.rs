//! The far ends: programs that a server may have, and what each is told to do. Their text goes over the stream, before the first
//! frame; nothing is written to the server's disk, and each ends with its input.
//!
//! The command itself is one line that every login's shell reads the same, csh and fish too: all of it stands in single
//! quotes, without an exclamation mark or a single quote inside.

use super::table::MOST;

const PYTHON: &str = include_str!("helper.py");
const PERL: &str = include_str!("helper.pl");
const QUESTIONS: &str = include_str!("questions.sh");
const SOCAT: &str = r#"ask() {
    case $1 in *:*) to="UDP6:[$1]:$2" ;; *) to="UDP4:$1:$2" ;; esac
    socat -T 3 -t 3 -b 65536 - "$to"
}
"#;
const NC: &str = "ask() { nc -u -w 3 \"$1\" \"$2\"; }\n";
/// OpenBSD's ends with the answer then.
const NC_LIMITED: &str = "ask() { nc -u -w 3 -W 1 \"$1\" \"$2\"; }\n";

/// What stands before what [`Found::read`] looks for.
const MARK: &str = "underpass-has ";

/// Says which of the programs there are, and whether `ping` may send; for [`Found::read`].
pub const PROBE: &str = concat!(
    "exec sh -c 'LC_ALL=C; export LC_ALL; has() { command -v \"$1\" >/dev/null 2>&1; }; say() { echo \"underpass-has $1\"; }; ",
    "if has python3 && python3 -c \"import os, selectors; os.set_blocking\" 2>/dev/null; then say python3; ",
    "elif has perl && perl -MFcntl -MSocket=inet_pton,MSG_DONTWAIT -e 1 2>/dev/null; then say perl; ",
    "elif has dd && has od && has tr; then ",
    "if has socat; then say socat; ",
    // Ncat ends with its input, and Debian's busybox has no -u.
    "elif has nc; then case $(nc -h 2>&1) in *Ncat*) ;; *recvlimit*) say nc-limited ;; *UDP*) say nc ;; esac; fi; fi; ",
    "if has ping && ping -q -c 1 -W 1 127.0.0.1 >/dev/null 2>&1; then say ping; fi; :'",
);

/// What a far end can carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carries {
    /// Whatever goes over UDP: one socket for each flow.
    #[default]
    Everything,
    /// One answer to each datagram: one process for each of them.
    Questions,
}

/// A program that becomes the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Python 3.5 or later.
    Python,
    /// Perl 5.14 or later; no module beyond those of perl-base.
    Perl,
    /// socat and a shell.
    Socat,
    /// nc and a shell.
    Nc {
        /// It knows `-W`.
        is_limited: bool,
    },
}

impl Means {
    /// What it can carry.
    pub fn carries(self) -> Carries {
        match self {
            Self::Python | Self::Perl => Carries::Everything,
            Self::Socat | Self::Nc { .. } => Carries::Questions,
        }
    }

    /// What a server has it as.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python3",
            Self::Perl => "perl",
            Self::Socat => "socat",
            Self::Nc { .. } => "nc",
        }
    }

    /// What it has to be told first.
    pub fn program(self) -> String {
        match self {
            Self::Python => PYTHON.to_owned(),
            Self::Perl => PERL.to_owned(),
            Self::Socat => format!("{SOCAT}{QUESTIONS}"),
            Self::Nc { is_limited: false } => format!("{NC}{QUESTIONS}"),
            Self::Nc { is_limited: true } => format!("{NC_LIMITED}{QUESTIONS}"),
        }
    }

    /// The command that takes the program from its input, and becomes it. The rest of the input is the program's.
    pub fn command(self) -> String {
        let run = match self {
            Self::Python => "exec python3 -c",
            Self::Perl => "exec perl -e",
            Self::Socat | Self::Nc { .. } => "eval",
        };
        let len = self.program().len();
        // One socket for each flow, and what a program has open anyway.
        let files = MOST + 64;
        format!(
            "exec sh -c 'LC_ALL=C; export LC_ALL; ulimit -n {files} 2>/dev/null || ulimit -n $(ulimit -Hn) 2>/dev/null; \
             {run} \"$(dd bs=1 count={len} 2>/dev/null)\"'"
        )
    }
}

impl std::fmt::Display for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        match self.carries() {
            Carries::Everything => Ok(()),
            Carries::Questions => f.write_str(
                ": one answer of up to 4,000 bytes to each datagram, for DNS, NTP and SNMP; QUIC and WireGuard need python3 or \
                 perl there",
            ),
        }
    }
}

/// What a server has, as [`PROBE`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The best of the programs that there are.
    pub means: Option<Means>,
    /// `ping` may send.
    pub pings: bool,
}

impl Found {
    /// Reads it, between whatever else a login says.
    pub fn read(output: &[u8]) -> Self {
        let mut found = Self::default();
        for line in String::from_utf8_lossy(output).lines() {
            let means = match line.trim_end().strip_prefix(MARK) {
                Some("python3") => Means::Python,
                Some("perl") => Means::Perl,
                Some("socat") => Means::Socat,
                Some("nc") => Means::Nc { is_limited: false },
                Some("nc-limited") => Means::Nc { is_limited: true },
                Some("ping") => {
                    found.pings = true;
                    continue;
                }
                _ => continue,
            };
            found.means.get_or_insert(means);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Means; 5] = [
        Means::Python,
        Means::Perl,
        Means::Socat,
        Means::Nc { is_limited: false },
        Means::Nc { is_limited: true },
    ];

    #[test]
    fn every_shell_reads_the_commands_the_same() {
        let commands = ALL.map(Means::command);
        for command in commands.iter().map(String::as_str).chain([PROBE]) {
            let inner = command.strip_prefix("exec sh -c '").unwrap();
            let inner = inner.strip_suffix('\'').unwrap();
            assert!(
                !inner.contains(['\'', '!', '\n', '\\']) && inner.is_ascii(),
                "{command}"
            );
        }
    }

    #[test]
    fn programs_are_plain_text() {
        for means in ALL {
            let program = means.program();
            let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) || byte == b'\n';
            assert!(program.bytes().all(is_plain), "{means:?}");
        }
    }

    #[test]
    fn what_a_server_has() {
        let read = |text: &str| Found::read(text.as_bytes());
        assert_eq!(read(""), Found::default());
        assert_eq!(
            read("Welcome!\r\nunderpass-has perl\r\nunderpass-has ping\r\n"),
            Found {
                means: Some(Means::Perl),
                pings: true
            }
        );
        assert_eq!(read("underpass-has nc").means.unwrap().name(), "nc");
        assert_eq!(read("xunderpass-has nc\nunderpass-has tcl").means, None);
    }

    proptest! {
        #[test]
        fn no_output_panics(output in prop::collection::vec(any::<u8>(), 0..200)) {
            Found::read(&output);
        }
    }
}
