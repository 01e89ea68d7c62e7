//! A page of man(7), line by line. mandoc's lint has nothing to say about what it makes.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Columns of a line in the source, which is not how it is shown; escapes make it longer.
const WIDTH: usize = 64;

/// The page as it grows.
pub(super) struct Page {
    roff: Roff,
    /// Nothing stands below the last heading yet: no paragraph begins there.
    is_fresh: bool,
}

impl Page {
    /// With its title: name, date and version.
    pub(super) fn new(name: &str, date: &str, version: &str) -> Self {
        let mut roff = Roff::new();
        let title = name.to_uppercase();
        let source = format!("{name} {version}");
        roff.control("TH", [title.as_str(), "1", date, &source]);
        let is_fresh = true;
        Self { roff, is_fresh }
    }

    pub(super) fn section(&mut self, title: &str) {
        self.roff.control("SH", [title]);
        self.is_fresh = true;
    }

    pub(super) fn subsection(&mut self, title: &str) {
        self.roff.control("SS", [title]);
        self.is_fresh = true;
    }

    pub(super) fn paragraph(&mut self) {
        if !std::mem::replace(&mut self.is_fresh, false) {
            self.roff.control("PP", []);
        }
    }

    /// Text that is filled; lines are broken at blanks.
    pub(super) fn text(&mut self, text: &str) {
        self.is_fresh = false;
        let mut line = String::new();
        for word in text.split_whitespace() {
            // A sentence ends its line (mandoc(1), -T lint).
            let is_sentence = line.ends_with(['.', ':', ';']) && line.len() > WIDTH / 2;
            if is_sentence || line.len() + word.len() >= WIDTH {
                self.roff.text([roman(std::mem::take(&mut line))]);
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.roff.text([roman(line)]);
        }
    }

    /// Texts with empty lines between.
    pub(super) fn paragraphs(&mut self, text: &str) {
        for (index, paragraph) in text.split("\n\n").enumerate() {
            if index > 0 {
                self.paragraph();
            }
            self.text(paragraph);
        }
    }

    /// A term and what it means.
    pub(super) fn item(&mut self, term: &str, meaning: &str) {
        self.entry([bold(term)], meaning);
    }

    /// A term in several fonts and what it means; paragraphs after the first keep the indent.
    pub(super) fn entry(&mut self, term: impl Into<Vec<Inline>>, meaning: &str) {
        self.is_fresh = false;
        self.roff.control("TP", []);
        self.roff.text(term.into());
        for (index, paragraph) in meaning.split("\n\n").enumerate() {
            if index > 0 {
                self.roff.control("IP", []);
            }
            self.text(paragraph);
        }
    }

    /// A heading among the terms.
    pub(super) fn heading(&mut self, title: &str) {
        self.paragraph();
        self.roff.text([bold(format!("{title}:"))]);
    }

    /// Lines as they are.
    pub(super) fn literal(&mut self, text: &str) {
        self.paragraph();
        self.roff.control("nf", []);
        for line in text.trim_end().lines() {
            // An empty line would end the block for some readers.
            let line = if line.is_empty() { "\u{a0}" } else { line };
            self.roff.text([roman(line)]);
        }
        self.roff.control("fi", []);
    }

    pub(super) fn finish(self) -> String {
        self.roff.render()
    }
}
