//! What a doctor asks of a server over ssh's own channels: a session, and one request of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BufMut;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::OpensshCarrier;
use super::connection::Connection;
use super::shared::Owner;
use crate::carrier::channels::{Budget, ChannelType};
use crate::carrier::examine::{Answer, MOST_OUTPUT, PATIENCE, Request, TERMINAL};
use crate::carrier::sftp::{End, Reading, SFTP};

/// A session that somebody asks something of.
pub(super) struct Question {
    name: &'static str,
    specific: Vec<u8>,
    /// What follows the answer is wanted too, to its end.
    wants_output: bool,
    is_granted: bool,
    output: Vec<u8>,
    /// The file that is read, and what is to be said first for that.
    file: Option<Reading>,
    first: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

impl Question {
    /// The request (RFC 4254 sections 6.2 and 6.5).
    fn new(request: Request<'_>, answer: oneshot::Sender<Answer>) -> Self {
        let mut specific = Vec::new();
        let begun = match request {
            Request::File(path) => Some(Reading::begin(path)),
            _ => None,
        };
        let (file, first) = begun.unzip();
        let name = match request {
            Request::Exec(command) => {
                put_text(&mut specific, command);
                "exec"
            }
            Request::Subsystem(subsystem) => {
                put_text(&mut specific, subsystem);
                "subsystem"
            }
            Request::File(_) => {
                put_text(&mut specific, SFTP);
                "subsystem"
            }
            Request::Terminal => {
                put_text(&mut specific, "vt100");
                let (columns, rows) = TERMINAL;
                for number in [columns, rows, 0, 0] {
                    specific.put_u32(number);
                }
                put_text(&mut specific, "");
                "pty-req"
            }
        };
        Self {
            name,
            specific,
            wants_output: matches!(request, Request::Exec(_)),
            is_granted: false,
            output: Vec::new(),
            file,
            first: first.unwrap_or_default(),
            answer,
        }
    }

    pub(super) fn request(&self) -> (&'static str, &[u8]) {
        (self.name, &self.specific)
    }

    /// No session is opened.
    pub(super) fn refused(self) {
        self.tell(Answer::NoSession);
    }

    /// The request is answered: what is to be said to that, and whether nothing more is wanted.
    pub(super) fn answered(&mut self, success: bool) -> (Vec<u8>, bool) {
        self.is_granted = success;
        if success && (self.wants_output || self.file.is_some()) {
            return (std::mem::take(&mut self.first), false);
        }
        self.end(match success {
            true => Answer::Granted(Vec::new()),
            false => Answer::Refused,
        });
        (Vec::new(), true)
    }

    /// What the server says: what is to be said to that, and whether nothing more is wanted.
    pub(super) fn hear(&mut self, data: &[u8]) -> (Vec<u8>, bool) {
        let Some(file) = &mut self.file else {
            let room = MOST_OUTPUT.saturating_sub(self.output.len());
            self.output.extend_from_slice(&data[..data.len().min(room)]);
            return (Vec::new(), false);
        };
        let (reply, end) = file.hear(data);
        match end {
            None => (reply, false),
            // The file is closed with the channel.
            Some(End::File(file)) => {
                self.end(Answer::Granted(file));
                (Vec::new(), true)
            }
            Some(End::Failed) => {
                self.end(Answer::Refused);
                (Vec::new(), true)
            }
        }
    }

    fn end(&mut self, with: Answer) {
        let (nobody, _) = oneshot::channel();
        // Who has asked may have stopped waiting.
        let _ = std::mem::replace(&mut self.answer, nobody).send(with);
    }

    /// The server has closed the session.
    pub(super) fn closed(mut self) {
        // A file has an end of its own.
        let answer = match self.is_granted && self.file.is_none() {
            true => Answer::Granted(std::mem::take(&mut self.output)),
            false => Answer::Refused,
        };
        self.tell(answer);
    }

    fn tell(self, answer: Answer) {
        // Who has asked may have stopped waiting.
        let _ = self.answer.send(answer);
    }
}

fn put_text(specific: &mut Vec<u8>, text: &str) {
    specific.put_u32(u32::try_from(text.len()).unwrap_or_default());
    specific.put_slice(text.as_bytes());
}

impl Connection {
    async fn question(self: &Arc<Self>, request: Request<'_>) -> Answer {
        let (sender, answer) = oneshot::channel();
        let question = Question::new(request, sender);
        let asked = self.with(|shared, _| {
            // Nobody would answer, nor say so.
            if shared.is_lost {
                return Err(Answer::Silent);
            }
            let opened = shared.channels.open(ChannelType::session());
            let id = opened.map_err(|_| Answer::NoSession)?;
            shared.owners.insert(id, Owner::Question(question));
            Ok(id)
        });
        let id = match asked {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        let answer = timeout(PATIENCE, answer).await;
        self.with(|shared, _| {
            if shared.remove(id).is_some() {
                shared.channels.abort(id);
            }
        });
        match answer {
            Ok(Ok(answer)) => answer,
            _ => Answer::Silent,
        }
    }
}

impl OpensshCarrier {
    /// Whether none of its connections carries anything any more; why not is known when their ssh has ended.
    pub fn is_over(&self) -> bool {
        let connections = self.pool.all();
        connections
            .iter()
            .all(|connection| connection.burden().is_none())
    }

    /// Asks the server for something of a session, which is closed again.
    pub async fn ask(&self, request: Request<'_>) -> Answer {
        match self.pool.all().first() {
            Some(connection) => connection.question(request).await,
            None => Answer::Silent,
        }
    }

    /// How long a question to the server itself takes to be answered. `None` where it is not, within a few seconds.
    pub async fn round_trip(&self) -> Option<Duration> {
        let connection = self.pool.all().into_iter().next()?;
        let began = Instant::now();
        let answer = connection.ask()?;
        // It resolves with the answer, to whatever.
        let _ = timeout(PATIENCE, answer).await.ok()?;
        Some(began.elapsed())
    }

    /// How many bytes the server may send ahead for one flow on a path of this round trip.
    pub fn window(&self, round_trip: Duration) -> u32 {
        Budget::window(round_trip)
    }
}
