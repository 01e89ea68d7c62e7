//! What let us in, and lets a further connection in.

use super::candidates::Candidate;

/// One part of a login that the server took.
#[derive(Clone)]
pub(in super::super) enum Step {
    /// The server asks for nothing.
    Nothing,
    /// A key or certificate.
    Key(Box<Candidate>),
    /// What a person has typed, by this method; it is not kept.
    Person(&'static str),
}

impl Step {
    /// For the ready line.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Nothing => "no authentication".to_owned(),
            Self::Key(candidate) => candidate.describe(),
            Self::Person(method) => (*method).to_owned(),
        }
    }

    /// `SHA256:...` of the key.
    fn key(&self) -> Option<String> {
        match self {
            Self::Key(candidate) => candidate.fingerprint(),
            Self::Nothing | Self::Person(_) => None,
        }
    }

    fn is_silent(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Key(candidate) => candidate.is_silent(),
            Self::Person(_) => false,
        }
    }
}

/// A whole login: one part, or several that the server wants one after the other.
#[derive(Clone)]
pub(in super::super) struct Credential {
    steps: Vec<Step>,
    /// What the server told who had shown nothing yet.
    methods: Vec<String>,
}

impl Credential {
    /// `methods`: what the server told who had shown nothing yet.
    pub(super) fn new(steps: Vec<Step>, methods: Vec<String>) -> Self {
        Self { steps, methods }
    }

    /// The methods that the server takes.
    pub(in super::super) fn methods(&self) -> &[String] {
        &self.methods
    }

    /// `SHA256:...` of the first key that was taken.
    pub(in super::super) fn key(&self) -> Option<String> {
        self.steps.iter().find_map(Step::key)
    }

    /// `SHA256:...` of each key that was taken.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.steps.iter().filter_map(Step::key)
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether it can be used again with nobody there.
    pub(in super::super) fn is_silent(&self) -> bool {
        self.steps.iter().all(Step::is_silent)
    }

    /// For the ready line.
    pub(in super::super) fn describe(&self) -> String {
        let steps: Vec<String> = self.steps.iter().map(Step::describe).collect();
        steps.join(", then ")
    }
}
