//! The far ends: programs that a server may have, and what each is told to do. Their text goes over the stream, before the first
//! frame; nothing is written to the server's disk, and each ends with its input. One is no text: this program itself, which
//! `upload.sh` takes into a file without a name.
//!
//! The command itself is one line that every login's shell reads the same, csh and fish too: all of it stands in single
//! quotes, without an exclamation mark or a single quote inside.

mod elf;

pub use elf::{LOOKED_AT, NoProgram};
pub(super) use elf::{Program, target};

use super::table::MOST;

const PYTHON: &str = include_str!("helper.py");
const PERL: &str = include_str!("helper.pl");
const QUESTIONS: &str = include_str!("questions.sh");
const UPLOAD: &str = include_str!("upload.sh");
const SOCAT: &str = r#"ask() {
    case $1 in *:*) to="UDP6:[$1]:$2" ;; *) to="UDP4:$1:$2" ;; esac
    socat -T 3 -t 3 -b 65536 - "$to"
}
"#;
const NC: &str = "ask() { nc -u -w 3 \"$1\" \"$2\"; }\n";
/// OpenBSD's ends with the answer then.
const NC_LIMITED: &str = "ask() { nc -u -w 3 -W 1 \"$1\" \"$2\"; }\n";

/// So much of a program goes at a time, in bytes: what waits for it meanwhile waits for no more than this.
pub(super) const PIECE: u64 = 128 << 10;

/// What stands before what [`Found::read`] looks for.
const MARK: &str = "underpass-has ";
/// And before what the server is.
const IS_MARK: &str = "underpass-is ";
/// No kernel and no machine has a longer name.
const LONGEST_NAME: usize = 32;

/// Says which of the programs there are, and whether `ping` may send; for [`Found::read`].
pub const PROBE: &str = concat!(
    "exec sh -c 'LC_ALL=C; export LC_ALL; has() { command -v \"$1\" >/dev/null 2>&1; }; say() { echo \"underpass-has $1\"; }; ",
    "echo \"underpass-is $(uname -sm 2>/dev/null)\"; ",
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
    /// This program, or another one that is as this one, of so many bytes.
    Uploaded {
        /// Its size.
        size: u64,
    },
}

impl Means {
    /// What it can carry.
    pub fn carries(self) -> Carries {
        match self {
            Self::Python | Self::Perl | Self::Uploaded { .. } => Carries::Everything,
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
            Self::Uploaded { .. } => "the uploaded helper",
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
            Self::Uploaded { size } => format!("size={size} left={size} piece={PIECE}\n{UPLOAD}"),
        }
    }

    /// The command that takes the program from its input, and becomes it. The rest of the input is the program's.
    pub fn command(self) -> String {
        let run = match self {
            Self::Python => "exec python3 -c",
            Self::Perl => "exec perl -e",
            Self::Socat | Self::Nc { .. } | Self::Uploaded { .. } => "eval",
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
                 perl there, or --upload-helper",
            ),
        }
    }
}

/// What a server is, in the words of its uname(1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// Linux, mostly.
    pub kernel: String,
    /// x86_64, say.
    pub machine: String,
}

impl System {
    /// Whether it is one, as far as is known.
    pub(super) fn is_linux(&self) -> bool {
        matches!(self.kernel.as_str(), "Linux" | "")
    }

    /// Reads what `uname -sm` says.
    fn read(text: &str) -> Option<Self> {
        let is_name = |name: &&str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            name.len() <= LONGEST_NAME && name.bytes().all(is_plain)
        };
        let (kernel, machine) = text.split_once(' ')?;
        let mut names = [kernel, machine].into_iter().filter(is_name);
        Some(Self {
            kernel: names.next()?.to_owned(),
            machine: names.next()?.to_owned(),
        })
    }
}

impl std::fmt::Display for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kernel.is_empty() {
            true => f.write_str("no known system"),
            false => write!(f, "{} on {}", self.kernel, self.machine),
        }
    }
}

/// What a server has, as [`PROBE`] tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What it is; without names where it does not say so.
    pub system: System,
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
            if let Some(system) = line.trim_end().strip_prefix(IS_MARK) {
                found.system = System::read(system).unwrap_or_default();
            }
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

    const ALL: [Means; 6] = [
        Means::Python,
        Means::Perl,
        Means::Socat,
        Means::Nc { is_limited: false },
        Means::Nc { is_limited: true },
        Means::Uploaded { size: 12_345_678 },
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
                pings: true,
                ..Found::default()
            }
        );
        assert_eq!(read("underpass-has nc").means.unwrap().name(), "nc");
        assert_eq!(read("xunderpass-has nc\nunderpass-has tcl").means, None);
    }

    #[test]
    fn what_a_server_is() {
        let read = |text: &str| Found::read(text.as_bytes()).system;
        let system = read("Welcome!\nunderpass-is Linux aarch64\r\nunderpass-has perl\n");
        assert_eq!(system.to_string(), "Linux on aarch64");
        for nothing in [
            "",
            "underpass-is \n",
            "underpass-is Linux\n",
            "underpass-is a b c\n",
        ] {
            assert_eq!(read(nothing), System::default(), "{nothing}");
        }
        assert_eq!(read("underpass-is Linux \x1b[31m\n"), System::default());
    }

    proptest! {
        #[test]
        fn no_output_panics(output in prop::collection::vec(any::<u8>(), 0..200)) {
            Found::read(&output);
        }
    }
}
