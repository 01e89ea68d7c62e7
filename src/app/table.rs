//! Rows under a head line, times and sizes, for a person.

use std::fmt::{self, Display, Write};

/// Each row on a line, its cells under those of the first; [`plain`], wherever they are from.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{:<width$}  ", plain(cell));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Without control characters: another's text must not steer a terminal.
pub(super) fn plain(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(harmless).collect()
}

/// At most `some` of them, and how many more there are.
pub(super) fn list(items: &[String], some: usize) -> String {
    let mut text = items
        .iter()
        .take(some)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if items.len() > some {
        let _ = write!(text, " and {} more", items.len() - some);
    }
    text
}

/// A time in seconds, in its two largest units: `3h 12m`.
pub(super) struct Span(pub(super) u64);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (minutes, seconds) = (self.0 / 60, self.0 % 60);
        let (hours, days) = (minutes / 60, minutes / 60 / 24);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds}s"),
            (0, 0, _) => write!(f, "{minutes}m {seconds}s"),
            (0, ..) => write!(f, "{hours}h {}m", minutes % 60),
            _ => write!(f, "{days}d {}h", hours % 24),
        }
    }
}

/// Bytes, in units of 1000.
pub(super) struct Size(pub(super) u64);

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1000.0;
        let mut unit = 0;
        // What would be rounded up to 1000 is a unit further.
        while value >= 999.95 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        let times = [5, 65, 3600, 90_000].map(|time| Span(time).to_string());
        assert_eq!(times, ["5s", "1m 5s", "1h 0m", "1d 1h"]);
        let sizes = [0, 999, 1000, 999_999, u64::MAX].map(|size| Size(size).to_string());
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "1.0 MB", "18.4 EB"]);
    }
}
