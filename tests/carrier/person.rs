//! A person at the terminal.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use underpass::carrier::Prompter;
use zeroize::Zeroizing;

/// Answers in order, and remembers what it was asked, with a star where nothing is to be seen.
#[derive(Default)]
pub(crate) struct Person {
    answers: Mutex<VecDeque<&'static str>>,
    asked: Mutex<Vec<String>>,
}

impl Person {
    /// Says these, and nothing more.
    pub(crate) fn saying(answers: &[&'static str]) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.iter().copied().collect()),
            asked: Mutex::default(),
        })
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.questions().len()
    }

    /// What it was asked.
    pub(crate) fn questions(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Prompter for Person {
    fn secret(&self, prompt: &str) -> Option<Zeroizing<String>> {
        self.line(&format!("{prompt}*")).map(Zeroizing::new)
    }

    fn line(&self, prompt: &str) -> Option<String> {
        self.asked.lock().unwrap().push(prompt.to_owned());
        self.answers.lock().unwrap().pop_front().map(str::to_owned)
    }
}
