//! The thread that writes: batches, the flows that are open, and the end of a loss.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::event::{End, Event, Flow, Login};
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
            let writer = Self::new(sink, events, Arc::clone(&queue), lookup);
            // Also when it panics, nobody is to wait for its end.
            let _end = Ended(queue);
            writer.run();
        })?;
        Ok(())
    }

    fn new(sink: Sink, events: Receiver<Event>, queue: Arc<Queue>, lookup: Lookup) -> Self {
        Self {
            sink,
            events,
            queue,
            finder: Finder::new(lookup),
            login: None,
            open: HashMap::new(),
            loss: None,
            told: 0,
            buffer: Vec::new(),
            questions: 0,
        }
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
        if self.queue.take_reopen() {
            self.sink.reopen();
        }
        self.find_processes(&batch);
        let is_over = matches!(batch.last(), Some(Event::Stop(..)));
        for event in batch {
            self.spell(event);
        }
        self.flush();
        self.write_ends_beside();
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
            Event::FlowStart(flow) => {
                self.flow_start(&flow);
                self.end_beside(&flow);
            }
            Event::FlowEnd(flow, end) => {
                let known = self.open.remove(&flow.number);
                let owner = known.map(|open| open.owner).unwrap_or_default();
                self.flow_end(&flow, &owner, &end);
            }
            Event::Look => {}
            Event::Stop(time, reason, totals) => {
                self.write_ends_beside();
                let end = End {
                    time,
                    outcome: None,
                };
                for open in std::mem::take(&mut self.open).into_values() {
                    self.flow_end(&open.flow, &open.owner, &end);
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

    fn flow_end(&mut self, flow: &Flow, owner: &Owner, end: &End) {
        let body = Body::FlowEnd {
            flow: FlowFields::new(flow, owner, self.login.as_ref()),
            end: EndFields::new(flow, end),
        };
        line::write(&mut self.buffer, end.time, body);
    }

    /// The ends that found no room. They may be many, where the last write took long.
    fn write_ends_beside(&mut self) {
        for flows in self.queue.take_ends_beside().chunks(BATCH) {
            for flow in flows {
                // A start that is still in the queue is written first, and its end with it.
                self.end_beside(flow);
            }
            self.flush();
        }
    }

    /// Writes the end that a flow has beside the queue, once its start is written.
    fn end_beside(&mut self, flow: &Flow) {
        if let Some(end) = flow.end_beside.get()
            && let Some(open) = self.open.remove(&flow.number)
        {
            self.flow_end(flow, &open.owner, end);
        }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::audit::Protocol;
    use crate::net::{FlowKey, Source, Target};
    use crate::os::Processes;
    use crate::plan::AuditLog;
    use crate::relay::Outcome;

    /// A writer that writes when it is told, and its queue.
    fn writer(path: &Path) -> (Writer, Arc<Queue>) {
        let (queue, events) = Queue::new();
        let queue = Arc::new(queue);
        let sink = Sink::open(&AuditLog::File(path.to_owned())).unwrap();
        let lookup = Lookup::nowhere(Processes::default());
        (Writer::new(sink, events, Arc::clone(&queue), lookup), queue)
    }

    fn started(queue: &Queue, number: u64) -> Arc<Flow> {
        let key = FlowKey {
            source: Source("192.0.2.1:1".parse().unwrap()),
            target: Target("192.0.2.2:2".parse().unwrap()),
        };
        let flow = Arc::new(Flow::new(number, Protocol::Tcp, key, None, None));
        assert!(queue.offer(Event::FlowStart(Arc::clone(&flow))));
        flow
    }

    fn fill(queue: &Queue) {
        while queue.offer(Event::Lost(SystemTime::now(), String::new())) {}
    }

    fn write_all(writer: &mut Writer) {
        while let Ok(event) = writer.events.try_recv() {
            let mut batch = Vec::new();
            writer.take(event, &mut batch);
            writer.fill(&mut batch);
            writer.write(batch);
        }
    }

    #[test]
    fn an_end_without_room_is_written_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let (mut writer, queue) = writer(&path);
        let known = started(&queue, 1);
        let open = started(&queue, 2);
        write_all(&mut writer);
        // Its start waits when it ends.
        let waiting = started(&queue, 3);
        fill(&queue);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        for flow in [&known, &waiting] {
            let outcome = Some(Outcome::Finished);
            queue.offer_end(Arc::clone(flow), End { time, outcome });
        }
        write_all(&mut writer);
        assert_eq!(writer.open.keys().collect::<Vec<_>>(), [&open.number]);
        // What had filled the queue is lost alone.
        assert_eq!(queue.lost(), 1);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let ends = lines.filter(|line| line["event"] == "flow_end");
        let mut ends: Vec<_> = ends
            .map(|line| {
                let text = |field: &str| line[field].as_str().unwrap().to_owned();
                (line["flow"].as_u64(), text("outcome"), text("end"))
            })
            .collect();
        ends.sort();
        let end = |number| {
            let (outcome, end) = ("finished".to_owned(), "1970-01-01T00:00:07.000Z".to_owned());
            (Some(number), outcome, end)
        };
        assert_eq!(ends, [end(1), end(3)]);
    }

    #[test]
    fn a_file_is_opened_anew_with_a_full_queue() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit"), dir.path().join("audit.1"));
        let (mut writer, queue) = writer(&path);
        started(&queue, 1);
        write_all(&mut writer);
        std::fs::rename(&path, &old).unwrap();
        fill(&queue);
        queue.want_reopen();
        write_all(&mut writer);
        let lines = |path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!(lines(&old), 1);
        assert!(lines(&path) > 1);
    }

    #[test]
    fn an_end_beside_the_queue_is_written_before_the_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let (mut writer, queue) = writer(&path);
        let flow = started(&queue, 1);
        write_all(&mut writer);
        fill(&queue);
        queue.offer_end(flow, End::now(Some(Outcome::Finished)));
        let taken: Vec<_> = writer.events.try_iter().collect();
        let mut batch = Vec::new();
        for event in taken {
            writer.take(event, &mut batch);
        }
        let stop = Event::Stop(SystemTime::now(), String::new(), Default::default());
        batch.push(stop);
        assert!(writer.write(batch));
        let text = std::fs::read_to_string(&path).unwrap();
        let count = |word: &str| text.matches(word).count();
        assert_eq!((count("flow_end"), count("finished")), (1, 1));
        assert!(text.lines().last().unwrap().contains("session_stop"));
    }
}
