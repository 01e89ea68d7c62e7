//! The log: short lines for people, or JSON for machines, on stderr.
//!
//! Where stderr leads to systemd's journal, its own protocol is spoken, so that levels and fields stay what they are. A daemon
//! that leaves its terminal logs to the journal too, else to syslog(3), else to a file in its run directory; and to stderr
//! where that is a file.

mod kept;
mod syslog;

use std::fmt;
use std::io::{self, IsTerminal, Write, stderr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

use nix::sys::stat::fstat;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use self::kept::Kept;
use self::syslog::Syslog;
use crate::carrier::TO_PERSON;
use crate::cli::{LogArgs, LogFormat};
use crate::os::daemon::stderr_is_file;

/// What comes through the filter.
type Filtered = Layered<Targets, Registry>;
/// Where it goes, and in which form.
type Output = Box<dyn Layer<Filtered> + Send + Sync>;

/// The output, to be changed when the terminal is left, and the form that was asked for.
static STARTED: OnceLock<(reload::Handle<Output, Filtered>, LogFormat)> = OnceLock::new();

/// Whether the log goes elsewhere than to stderr by now.
static HAS_LEFT: AtomicBool = AtomicBool::new(false);

/// The file of this run's log, where it has one.
static KEPT: OnceLock<PathBuf> = OnceLock::new();

/// Of each line on stderr.
const PREFIX: &str = "underpass: ";

/// The name in the journal and in syslog.
const IDENTIFIER: &str = "underpass";

/// What is told of a command that has its own words for the terminal.
pub const WARNINGS: LevelFilter = LevelFilter::WARN;
/// What is told otherwise.
pub const USUAL: LevelFilter = LevelFilter::INFO;

/// Starts the log, at level `usual` unless `args` say otherwise. A second call changes nothing.
pub fn start(args: LogArgs, usual: LevelFilter) {
    start_with(args, usual, wants_colour());
}

/// The same, in `colour` or not.
pub(super) fn start_with(args: LogArgs, usual: LevelFilter, colour: bool) {
    let (output, handle) = reload::Layer::new(first_output(args.log_format, colour));
    let registry = tracing_subscriber::registry().with(filter(args, usual));
    if registry.with(output).try_init().is_ok() {
        // The first call is the only one that comes here.
        let _ = STARTED.set((handle, args.log_format));
    } else {
        tracing::debug!("the log was started already");
    }
}

/// To where a daemon logs, from here on: where there are no services for that to `file`, and the last line on the terminal says
/// so.
pub fn leave_terminal(file: Option<&Path>) {
    if stderr_is_file() {
        return;
    }
    let Some((handle, format)) = STARTED.get() else {
        return;
    };
    let output = match (journal(), Syslog::connect()) {
        (Ok(journal), _) => journal,
        (_, Ok(syslog)) => written(*format, syslog, "", false),
        (Err(_), Err(_)) => kept(*format, file),
    };
    match handle.reload(output) {
        Ok(()) => HAS_LEFT.store(true, Relaxed),
        Err(error) => tracing::warn!("the log stays on the terminal: {error}"),
    }
}

fn kept(format: LogFormat, file: Option<&Path>) -> Output {
    let none = || io::Error::from(io::ErrorKind::NotFound);
    let opened = file.ok_or_else(none).and_then(|path| {
        let kept = Kept::open(path, format == LogFormat::Human)?;
        Ok((path, kept))
    });
    match opened {
        Ok((path, kept)) => {
            tracing::info!(
                "there is no journald and no syslog: the log goes to {}, its last {} MiB; 2>>FILE has it written elsewhere",
                path.display(),
                kept::MOST >> 20
            );
            // One run leaves its terminal once.
            let _ = KEPT.set(path.to_owned());
            written(format, Mutex::new(kept), "", false)
        }
        Err(error) => {
            tracing::warn!(
                "there is no journald, no syslog, and no run directory for a file ({error}): the log ends here; 2>>FILE has it written to a file"
            );
            written(format, io::sink, "", false)
        }
    }
}

/// Removes the file of this run's log, where it has one: nobody will ask how it has ended.
pub fn forget() {
    if let Some(path) = KEPT.get() {
        kept::remove(path);
    }
}

/// A line that a child of ours has written for stderr.
pub(super) fn pass_on(line: &str) {
    if !HAS_LEFT.load(Relaxed) {
        // A terminal that is gone hears nothing more.
        let _ = writeln!(stderr(), "{line}");
        return;
    }
    let text = line.strip_prefix(PREFIX).unwrap_or(line);
    if let Some(text) = text.strip_prefix("error: ") {
        tracing::error!("{text}");
    } else if let Some(text) = text.strip_prefix("warning: ") {
        tracing::warn!("{text}");
    } else {
        tracing::info!("{text}");
    }
}

fn first_output(format: LogFormat, colour: bool) -> Output {
    if format == LogFormat::Human
        && is_journal(std::env::var("JOURNAL_STREAM").ok())
        && let Ok(journal) = journal()
    {
        return journal;
    }
    written(format, stderr, PREFIX, colour)
}

/// The journal's own protocol: levels as priorities, fields with their names.
fn journal() -> io::Result<Output> {
    let layer = tracing_journald::layer()?;
    let layer = layer.with_syslog_identifier(IDENTIFIER.to_owned());
    Ok(Box::new(
        layer.with_field_prefix(Some("UNDERPASS".to_owned())),
    ))
}

fn written<W>(format: LogFormat, writer: W, prefix: &'static str, colour: bool) -> Output
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    // Nobody is told that nobody hears: stderr, too, may be gone.
    let layer = layer.log_internal_errors(false);
    match format {
        LogFormat::Json => Box::new(layer.json().flatten_event(true)),
        LogFormat::Human => Box::new(layer.with_ansi(colour).event_format(Human { prefix })),
    }
}

/// Whether stderr is what systemd.exec(5) says of `$JOURNAL_STREAM`: device and inode of the journal's stream.
fn is_journal(variable: Option<String>) -> bool {
    let Some((device, inode)) = variable.as_deref().and_then(|text| text.split_once(':')) else {
        return false;
    };
    fstat(stderr().as_fd()).is_ok_and(|status| {
        let own = (status.st_dev.to_string(), status.st_ino.to_string());
        (own.0.as_str(), own.1.as_str()) == (device, inode)
    })
}

/// `-q` errors, default `usual`, `-v` debug and `-vv` trace of underpass, `-vvv` everything of everybody.
fn filter(args: LogArgs, usual: LevelFilter) -> Targets {
    let (ours, others) = match (args.quiet, args.verbose) {
        (true, _) => (LevelFilter::ERROR, LevelFilter::OFF),
        (false, 0) => (usual, LevelFilter::OFF),
        (false, 1) => (LevelFilter::DEBUG, LevelFilter::WARN),
        (false, 2) => (LevelFilter::TRACE, LevelFilter::WARN),
        (false, _) => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    // Whoever may log in only after doing what is said has to see it, also where the terminal is a command's.
    let to_person = match args.quiet {
        true => ours,
        false => ours.max(USUAL),
    };
    Targets::new()
        .with_default(others)
        .with_target("underpass", ours)
        .with_target(TO_PERSON, to_person)
}

/// <https://no-color.org>: set and not empty means none.
pub(super) fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::stderr().is_terminal()
}

/// `underpass: text`, with the level only where somebody should look up.
struct Human {
    prefix: &'static str,
}

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let (label, colour) = label(*event.metadata().level());
        writer.write_str(self.prefix)?;
        if writer.has_ansi_escapes() && !label.is_empty() {
            write!(writer, "\x1b[{colour}m{label}\x1b[0m")?;
        } else {
            writer.write_str(label)?;
        }
        writeln!(writer, "{}{}", line.message, line.fields)
    }
}

const fn label(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::ERROR => ("error: ", "31"),
        Level::WARN => ("warning: ", "33"),
        Level::DEBUG => ("debug: ", "2"),
        Level::TRACE => ("trace: ", "2"),
        Level::INFO => ("", ""),
    }
}

/// The fields of one event. Control characters are escaped: a server's text must not steer a terminal.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn push(&mut self, field: &Field, text: &str) {
        let (to, prefix) = if field.name() == "message" {
            (&mut self.message, String::new())
        } else {
            (&mut self.fields, format!(" {}=", field.name()))
        };
        to.push_str(&prefix);
        for character in text.chars() {
            if character.is_control() {
                to.extend(character.escape_default());
            } else {
                to.push(character);
            }
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(args: LogArgs, emit: impl FnOnce()) -> String {
        logged_at(USUAL, args, emit)
    }

    fn logged_at(usual: LevelFilter, args: LogArgs, emit: impl FnOnce()) -> String {
        let sink = Sink::default();
        let to = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || to.clone())
            .with_ansi(false)
            .event_format(Human {
                prefix: "underpass: ",
            });
        let subscriber = tracing_subscriber::registry()
            .with(filter(args, usual))
            .with(layer);
        tracing::subscriber::with_default(subscriber, emit);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn everything() {
        tracing::error!("e");
        tracing::warn!(port = 22, "w \x1b[2J");
        tracing::info!("i");
        tracing::debug!("d");
        tracing::info!(target: "russh", "other");
    }

    #[test]
    fn the_journal_is_known_by_its_stream() {
        let status = fstat(stderr().as_fd()).unwrap();
        let ours = format!("{}:{}", status.st_dev, status.st_ino);
        assert!(is_journal(Some(ours)));
        assert!(!is_journal(Some(format!("{}:1", status.st_dev))));
        assert!(!is_journal(Some("nonsense".to_owned())));
        assert!(!is_journal(None));
    }

    #[test]
    fn lines_are_short_and_harmless() {
        let text = logged(LogArgs::default(), everything);
        assert_eq!(
            text,
            "underpass: error: e\nunderpass: warning: w \\u{1b}[2J port=22\nunderpass: i\n"
        );
    }

    #[test]
    fn what_a_person_is_to_do_is_shown_beside_a_command_as_well() {
        let ask = || {
            tracing::info!("i");
            tracing::info!(target: TO_PERSON, "log in at https://example.com");
        };
        let text = logged_at(WARNINGS, LogArgs::default(), ask);
        assert_eq!(text, "underpass: log in at https://example.com\n");
        let quiet = LogArgs {
            quiet: true,
            ..LogArgs::default()
        };
        assert_eq!(logged_at(WARNINGS, quiet, ask), "");
    }

    #[test]
    fn quiet_and_verbose() {
        let quiet = LogArgs {
            quiet: true,
            ..LogArgs::default()
        };
        assert_eq!(logged(quiet, everything), "underpass: error: e\n");
        let verbose = LogArgs {
            verbose: 3,
            ..LogArgs::default()
        };
        let text = logged(verbose, everything);
        assert!(
            text.contains("debug: d") && text.contains("other"),
            "{text}"
        );
    }
}
