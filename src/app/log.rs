//! The log on stderr: short lines for people, or JSON for machines.

use std::fmt;
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogArgs, LogFormat};

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
    let registry = tracing_subscriber::registry().with(filter(args, usual));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match args.log_format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Human => registry
            .with(layer.with_ansi(colour).event_format(Human))
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("the log was started already");
    }
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
    Targets::new()
        .with_default(others)
        .with_target("underpass", ours)
}

/// <https://no-color.org>: set and not empty means none.
pub(super) fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::stderr().is_terminal()
}

/// `underpass: text`, with the level only where somebody should look up.
struct Human;

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
        writer.write_str("underpass: ")?;
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
        let sink = Sink::default();
        let to = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || to.clone())
            .with_ansi(false)
            .event_format(Human);
        let subscriber = tracing_subscriber::registry()
            .with(filter(args, USUAL))
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
    fn lines_are_short_and_harmless() {
        let text = logged(LogArgs::default(), everything);
        assert_eq!(
            text,
            "underpass: error: e\nunderpass: warning: w \\u{1b}[2J port=22\nunderpass: i\n"
        );
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
