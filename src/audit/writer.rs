//! The thread that writes: batches, the flows that are open, and the end of a loss.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::event::{Event, Flow, Login};
use super::line::{self, Body, EndFields, FlowFields};
use super::owner::{Finder, Lookup, Owner};
use super::queue::Queue;
use super::sink::Sink;

/// Events that are written together at most.
const BATCH: usize = 4_096;
/// Flows whose owners are kept for their last lines: more than there can be (the engine's bound, and those beside TCP).
const MAX_OPEN: usize = 131_072;
/// Between two looks whether a loss is over.
const LOOK: Duration = Duration::from_secs(1);
/// A wait without an end in sight.
const LONG: Duration = Duration::from_secs(3600);

/// What the thread has.
pub(super) struct Writer {
    sink: Sink,
    events: Receiver<Event>,
    queue: Arc<Queue>,
    finder: Finder,
    login: Option<Login>,
    open: HashMap<u64, Open>,
    loss: Option<Loss>,
    /// Lines lost that stand in the log.
    told: u64,
    buffer: Vec<u8>,
    /// Sockets in the batch whose processes are to be looked for.
    questions: usize,
}

/// A flow that has begun.
struct Open {
    flow: Arc<Flow>,
    owner: Owner,
}

/// Lines are being lost.
struct Loss {
    look: Instant,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub(super) fn start(
        sink: Sink,
        events: Receiver<Event>,
        queue: Arc<Queue>,
        lookup: Lookup,
    ) -> io::Result<()> {
        let thread = thread::Builder::new().name("underpass-audit".to_owned());
        thread.spawn(move || {
            let writer = Self {
                sink,
                events,
                queue: Arc::clone(&queue),
                finder: Finder::new(lookup),
                login: None,
                open: HashMap::new(),
                loss: None,
                told: 0,
                buffer: Vec::new(),
                questions: 0,
            };
            // Also when it panics, nobody is to wait for its end.
            let _end = Ended(queue);
            writer.run();
        })?;
        Ok(())
    }

    fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            match self.events.recv_timeout(self.patience()) {
                Ok(event) => self.take(event, &mut batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.fill(&mut batch);
            let is_over = self.write(std::mem::take(&mut batch));
            self.look_at_loss();
            if is_over {
                return;
            }
        }
    }

    fn patience(&self) -> Duration {
        let look = self.loss.as_ref().map(|loss| loss.look);
        look.map_or(LONG, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Takes what is there; and what comes until processes may be looked for, where one is wanted.
    fn fill(&mut self, batch: &mut Vec<Event>) {
        while batch.len() < BATCH && !matches!(batch.last(), Some(Event::Stop(..))) {
            let rest = self
                .finder
                .not_before()
                .saturating_duration_since(Instant::now());
            let wait = if self.questions > 0 {
                rest
            } else {
                Duration::ZERO
            };
            match self.events.recv_timeout(wait) {
                Ok(event) => self.take(event, batch),
                Err(_) => return,
            }
        }
    }

    /// The socket whose process is looked for.
    fn question(&self, event: &Event) -> Option<u64> {
        let Event::FlowStart(flow) = event else {
            return None;
        };
        self.open.get(&flow.number)?.owner.inode
    }

    /// An event into the batch. The user behind a new flow is asked for at once: its socket may soon be gone.
    fn take(&mut self, event: Event, batch: &mut Vec<Event>) {
        if let Event::FlowStart(flow) = &event
            && self.open.len() < MAX_OPEN
        {
            let open = Open {
                flow: Arc::clone(flow),
                owner: self.finder.user(flow),
            };
            self.questions += usize::from(open.owner.inode.is_some());
            self.open.insert(flow.number, open);
        }
        batch.push(event);
    }

    /// Whether that was the last.
    fn write(&mut self, batch: Vec<Event>) -> bool {
        if batch.is_empty() {
            return false;
        }
        self.find_processes(&batch);
        let is_over = matches!(batch.last(), Some(Event::Stop(..)));
        for event in batch {
            self.spell(event);
        }
        self.flush();
        is_over
    }

    fn find_processes(&mut self, batch: &[Event]) {
        self.questions = 0;
        let wanted: HashSet<u64> = batch.iter().filter_map(|e| self.question(e)).collect();
        if wanted.is_empty() {
            return;
        }
        let found = self.finder.processes(wanted);
        for event in batch {
            if let Event::FlowStart(flow) = event
                && let Some(open) = self.open.get_mut(&flow.number)
                && let Some(inode) = open.owner.inode.take()
            {
                open.owner.process = found.get(&inode).cloned();
            }
        }
    }

    fn spell(&mut self, event: Event) {
        match event {
            Event::Session(time, session) => {
                self.line(time, Body::SessionStart(&session));
                self.login = Some(session.login);
            }
            Event::Lost(time, reason) => self.line(time, Body::SessionLost { reason: &reason }),
            Event::Back(time, login) => {
                self.line(time, Body::SessionBack(&login));
                self.login = Some(*login);
            }
            Event::FlowStart(flow) => self.flow_start(&flow),
            Event::FlowEnd(time, flow, outcome) => {
                let known = self.open.remove(&flow.number);
                let owner = known.map(|open| open.owner).unwrap_or_default();
                self.flow_end(time, &flow, &owner, outcome.as_ref());
            }
            Event::Reopen => {
                self.flush();
                self.sink.reopen();
            }
            Event::Stop(time, reason, totals) => {
                for open in std::mem::take(&mut self.open).into_values() {
                    self.flow_end(time, &open.flow, &open.owner, None);
                }
                let count = self.queue.lost() - self.told;
                if count > 0 {
                    self.line(time, Body::LinesLost { count });
                }
                let reason = &reason;
                self.line(time, Body::SessionStop { reason, totals });
            }
        }
    }

    fn line(&mut self, time: SystemTime, body: Body<'_>) {
        line::write(&mut self.buffer, time, body);
    }

    fn flow_start(&mut self, flow: &Flow) {
        let nobody = Owner::default();
        let owner = self.open.get(&flow.number).map(|open| &open.owner);
        let fields = FlowFields::new(flow, owner.unwrap_or(&nobody), self.login.as_ref());
        line::write(&mut self.buffer, flow.start, Body::FlowStart(fields));
    }

    fn flow_end(
        &mut self,
        time: SystemTime,
        flow: &Flow,
        owner: &Owner,
        outcome: Option<&crate::relay::Outcome>,
    ) {
        let body = Body::FlowEnd {
            flow: FlowFields::new(flow, owner, self.login.as_ref()),
            end: EndFields::new(flow, time, outcome),
        };
        line::write(&mut self.buffer, time, body);
    }

    /// Writes the buffer out; what does not go is lost.
    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if let Err(failure) = self.sink.write(&self.buffer) {
            self.queue.lose(failure.lines);
            self.begin_loss(&failure.error.to_string());
        }
        self.buffer.clear();
    }

    fn begin_loss(&mut self, why: &str) {
        if self.loss.is_none() {
            tracing::warn!("the audit log loses lines: {why}; connections go on");
            let look = Instant::now() + LOOK;
            self.loss = Some(Loss { look });
        }
    }

    /// A loss is over when its number could be written.
    fn look_at_loss(&mut self) {
        let lost = self.queue.lost();
        if lost > self.told {
            self.begin_loss("it cannot keep up");
        }
        let now = Instant::now();
        let Some(loss) = self.loss.as_mut().filter(|loss| now >= loss.look) else {
            return;
        };
        loss.look = now + LOOK;
        let count = lost - self.told;
        let mut line = Vec::new();
        line::write(&mut line, SystemTime::now(), Body::LinesLost { count });
        if self.sink.write(&line).is_ok() {
            tracing::warn!("the audit log is written again; {count} lines were lost");
            self.told = lost;
            self.loss = None;
        }
    }
}

/// Tells that the writer has ended, however it did.
struct Ended(Arc<Queue>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.set_ended();
    }
}
