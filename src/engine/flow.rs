//! One flow: its states, and the one place where they change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use smoltcp::socket::tcp::State as TcpState;
use smoltcp::time::{Duration, Instant};

use super::held::Held;
use super::packet::{Parsed, Tcp, Transport};
use super::phy::Phy;
use super::reason::Reason;
use super::route::{Refusal, refusal};
use super::tcp::{Stack, phy};
use super::{Checksum, Engine, Outlet, packet, reject, timers};
use crate::net::{FlowKey, OpenFailure, StreamError};

/// What a flow may still hold for its application when all flows together hold too much.
const CROWDED_SHARE: usize = 32 << 10;

/// So many bytes that were read are worth telling the application at once that there is room again. Of fewer it hears when
/// they have been passed on.
const WORTH_A_WORD: usize = 16 << 10;

/// Should smoltcp ask to be polled at once although everything was drained, it has to wait this long.
const LEAST_WAIT: Duration = Duration::from_millis(10);

/// A flow as its relay holds it. Stays valid when the flow has ended.
#[derive(Clone, Debug)]
pub struct FlowHandle(pub(super) Arc<Flow>);

impl FlowHandle {
    /// Both ends of the flow.
    pub fn key(&self) -> FlowKey {
        self.0.key
    }
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) key: FlowKey,
    island: Mutex<Island>,
}

/// Everything that changes over a flow's life, behind its one lock.
#[derive(Debug)]
struct Island {
    state: State,
    /// Entries of this flow in the engine's timers, the earliest last.
    armed: Vec<Instant>,
    /// What the engine's sum of waiting bytes has of this flow.
    accounted: usize,
}

#[derive(Debug)]
enum State {
    /// The far side is being asked. SYNs that come again start nothing; the waker is the relay's, to be told
    /// when the initiator gives up.
    Held(Held, Option<Waker>),
    /// The far side never answered, so nor do we. Here only to swallow further SYNs.
    Silent(Held),
    /// The far side is open. The stack stays here when it is closed, for what is still to be read.
    Open(Box<Stack>),
    /// Refused, given up or abandoned. Whoever still asks gets `StreamError::Reset`.
    Gone,
}

impl State {
    const fn name(&self) -> &'static str {
        match self {
            Self::Held(..) => "HELD",
            Self::Silent(_) => "SILENT",
            Self::Open(_) => "OPEN",
            Self::Gone => "GONE",
        }
    }
}

/// What the engine has to do after a change, once the flow's lock is free.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Remove the flow from the table.
    pub(super) remove: bool,
    /// The flow counts no longer as held.
    pub(super) no_longer_held: bool,
    /// Add this deadline to the timers.
    pub(super) arm_at: Option<Instant>,
    /// Wake the relay that waits for the initiator to give up.
    pub(super) wake: Option<Waker>,
}

impl Flow {
    /// A flow that holds the SYN it began with.
    pub(super) fn hold(key: FlowKey, now: Instant, syn: &[u8]) -> Self {
        let state = State::Held(Held::new(now, syn), None);
        Self {
            key,
            island: Mutex::new(Island {
                state,
                armed: Vec::new(),
                accounted: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Island> {
        self.island.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms the timer of a new flow.
    pub(super) fn arm<O: Outlet>(&self, engine: &Engine<O>, now: Instant) -> Step {
        self.lock().settle(engine, now, Step::default())
    }

    /// A segment from the initiator. What an open flow has to say to it waits for [`answer`](Self::answer).
    pub(super) fn handle_segment<O: Outlet>(
        &self,
        engine: &Engine<O>,
        now: Instant,
        parsed: &Parsed<'_>,
        tcp: Tcp,
    ) -> Step {
        let mut island = self.lock();
        let mut step = Step::default();
        match &mut island.state {
            State::Held(held, _) | State::Silent(held) if tcp.is_opening() => {
                held.repeat(now, parsed.bytes);
            }
            State::Held(..) | State::Silent(_) if tcp.rst => step = island.give_up(&self.key),
            State::Open(stack) if stack.is_beyond_window(&tcp) => {
                engine.drops.count(Reason::BeyondWindow);
                return Step::default();
            }
            State::Open(stack) => {
                stack.hear(&engine.config, &engine.outlet, parsed, &tcp, now);
                stack.answer_comes |= tcp.brings_news();
                return Step::default();
            }
            State::Held(..) | State::Silent(_) | State::Gone => {}
        }
        island.settle(engine, now, step)
    }

    /// Says what there is to say to the segments since the last answer: one ACK for all of them.
    pub(super) fn answer<O: Outlet>(&self, engine: &Engine<O>, now: Instant) -> Step {
        let mut island = self.lock();
        let Some(stack) = island.open() else {
            return Step::default();
        };
        stack.answer_comes = false;
        if stack.wakes_reader() && !stack.is_over() {
            // It answers when it has taken the bytes, with one ACK that opens the window again.
            return Step::default();
        }
        stack.drain(&mut phy(&engine.config, &engine.outlet, None), now);
        island.settle(engine, now, Step::default())
    }

    /// See [`Engine::accept`].
    pub(super) fn accept<O: Outlet>(&self, engine: &Engine<O>, now: Instant) -> Step {
        let mut island = self.lock();
        let State::Held(held, _) = &island.state else {
            return Step::default();
        };
        let stack = self
            .connect(engine, now, held.syn())
            // A SYN that smoltcp does not take never becomes a connection.
            .filter(|stack| stack.state() == TcpState::SynReceived);
        let mut step = match stack {
            Some(stack) => island.become_state(&self.key, State::Open(stack)),
            None => island.become_state(&self.key, State::Gone),
        };
        step.no_longer_held = true;
        island.settle(engine, now, step)
    }

    /// The stack that answers the held `syn`.
    fn connect<O: Outlet>(
        &self,
        engine: &Engine<O>,
        now: Instant,
        syn: &[u8],
    ) -> Option<Box<Stack>> {
        // It was parsed when it came in, so it parses again.
        let parsed = packet::parse(syn, Checksum::Trusted).ok()?;
        let Transport::Tcp(tcp) = parsed.transport else {
            return None;
        };
        let mut phy = phy(&engine.config, &engine.outlet, Some(syn));
        let seed = engine.flow_seed(&self.key, now);
        let flows = engine.flow_count();
        let mut stack = Stack::listen(&mut phy, &parsed, &tcp, seed, flows, now)?;
        stack.ingest(&mut phy, now, &tcp);
        stack.drain(&mut phy, now);
        Some(Box::new(stack))
    }

    /// See [`Engine::refuse`].
    pub(super) fn refuse<O: Outlet>(
        &self,
        engine: &Engine<O>,
        now: Instant,
        failure: OpenFailure,
    ) -> Step {
        let mut island = self.lock();
        let State::Held(held, _) = &mut island.state else {
            return Step::default();
        };
        let refusal = refusal(failure);
        answer(refusal, held.syn(), &engine.outlet);
        let next = match refusal {
            Refusal::Silence => State::Silent(std::mem::replace(held, Held::new(now, &[]))),
            Refusal::Reset | Refusal::Icmp(_) | Refusal::Forget => State::Gone,
        };
        let mut step = island.become_state(&self.key, next);
        step.no_longer_held = true;
        island.settle(engine, now, step)
    }

    /// See [`Engine::poll_withdrawn`].
    pub(super) fn poll_withdrawn(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.lock().state {
            State::Held(_, waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// See [`Engine::poll_read`].
    pub(super) fn poll_read<O: Outlet>(
        &self,
        engine: &Engine<O>,
        now: Instant,
        max: usize,
        cx: &mut Context<'_>,
    ) -> (Poll<Result<Option<Bytes>, StreamError>>, Step) {
        let mut island = self.lock();
        let Some(stack) = island.open() else {
            return (Poll::Ready(Err(StreamError::Reset)), Step::default());
        };
        stack.reader_waits = false;
        let socket = stack.socket();
        if socket.can_recv() {
            let chunk = stack.receive(max, now);
            if stack.answer_comes && chunk.len() < WORTH_A_WORD {
                island.account(engine);
                return (Poll::Ready(Ok(Some(chunk))), Step::default());
            }
            // Room was made: the application may have to be told. Not after the end, as in `handle_timeout`.
            if !stack.is_over() {
                stack.drain(&mut phy(&engine.config, &engine.outlet, None), now);
            }
            let step = island.settle(engine, now, Step::default());
            return (Poll::Ready(Ok(Some(chunk))), step);
        }
        if socket.may_recv() || socket.state() == TcpState::SynReceived {
            socket.register_recv_waker(cx.waker());
            stack.reader_waits = true;
            return (Poll::Pending, Step::default());
        }
        (Poll::Ready(stack.end().map(|()| None)), Step::default())
    }

    /// See [`Engine::poll_reset`].
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<StreamError> {
        match &mut self.lock().state {
            State::Open(stack) if !stack.was_reset() => {
                stack.socket().register_recv_waker(cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(StreamError::Reset),
        }
    }

    /// See [`Engine::poll_write`].
    pub(super) fn poll_write<O: Outlet>(
        &self,
        engine: &Engine<O>,
        now: Instant,
        chunk: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> (Poll<Result<(), StreamError>>, Step) {
        let mut island = self.lock();
        let stack = match island.writable(chunk.len()) {
            Ok(stack) => stack,
            Err(over) => {
                chunk.clear();
                return (Poll::Ready(over), Step::default());
            }
        };
        let socket = stack.socket();
        if !socket.may_send() && socket.state() != TcpState::SynReceived {
            return (Poll::Ready(Err(StreamError::Reset)), Step::default());
        }
        // A name server's clients may come by the hundred and not read.
        let is_small = engine.config.name_servers.has(self.key.target.0);
        let share = if is_small || engine.is_crowded() {
            CROWDED_SHARE.saturating_sub(socket.send_queue())
        } else {
            chunk.len()
        };
        // Before the handshake has ended nothing is taken, and the waker comes with its end.
        let taken = socket
            .send_slice(&chunk[..share.min(chunk.len())])
            .unwrap_or(0);
        let _ = chunk.split_to(taken);
        let result = if chunk.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            socket.register_send_waker(cx.waker());
            Poll::Pending
        };
        stack.held_back += taken;
        stack.written_at = Some(now);
        let phy = &mut phy(&engine.config, &engine.outlet, None);
        if result.is_pending() {
            stack.drain(phy, now);
        } else if !stack.drain_full(phy, now) {
            island.account(engine);
            return (result, Step::default());
        }
        let step = island.settle(engine, now, Step::default());
        (result, step)
    }

    /// See [`Engine::flush`].
    pub(super) fn flush<O: Outlet>(&self, engine: &Engine<O>, now: Instant) -> Step {
        let mut island = self.lock();
        match &mut island.state {
            State::Open(stack) if stack.held_back > 0 => {
                stack.drain(&mut phy(&engine.config, &engine.outlet, None), now);
                island.settle(engine, now, Step::default())
            }
            _ => Step::default(),
        }
    }

    /// See [`Engine::poll_finish`].
    pub(super) fn poll_finish<O: Outlet>(
        &self,
        engine: &Engine<O>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> (Poll<Result<(), StreamError>>, Step) {
        let mut island = self.lock();
        let stack = match island.writable(0) {
            Ok(stack) => stack,
            Err(over) => return (Poll::Ready(over), Step::default()),
        };
        let socket = stack.socket();
        if socket.state() == TcpState::SynReceived {
            // A FIN has no place before the handshake's end.
            socket.register_send_waker(cx.waker());
            return (Poll::Pending, Step::default());
        }
        stack.finish(&mut phy(&engine.config, &engine.outlet, None), now);
        let step = island.settle(engine, now, Step::default());
        (Poll::Ready(Ok(())), step)
    }

    /// See [`Engine::abandon`].
    pub(super) fn abandon<O: Outlet>(&self, engine: &Engine<O>, now: Instant) -> Step {
        // A name server's clients may come by the hundred and not read.
        let has_to_go = engine.config.name_servers.has(self.key.target.0) || engine.is_crowded();
        match has_to_go {
            true => self.abandon_now(engine, now),
            false => self.leave(engine, now, Stack::abort),
        }
    }

    /// See [`Engine::abandon_all`].
    pub(super) fn abandon_now<O: Outlet>(&self, engine: &Engine<O>, now: Instant) -> Step {
        self.leave(engine, now, Stack::abort_now)
    }

    fn leave<O: Outlet>(
        &self,
        engine: &Engine<O>,
        now: Instant,
        abort: fn(&mut Stack, &mut Phy<'_, O>, Instant),
    ) -> Step {
        let mut island = self.lock();
        let mut step = Step::default();
        match &mut island.state {
            State::Held(..) => step = island.give_up(&self.key),
            State::Open(stack) if !stack.is_over() => {
                abort(stack, &mut phy(&engine.config, &engine.outlet, None), now);
            }
            State::Open(_) | State::Silent(_) | State::Gone => {}
        }
        island.settle(engine, now, step)
    }

    /// A deadline of this flow has come.
    pub(super) fn handle_timeout<O: Outlet>(&self, engine: &Engine<O>, now: Instant) -> Step {
        let mut island = self.lock();
        island.armed.retain(|at| *at > now);
        let mut step = Step::default();
        match &mut island.state {
            State::Held(held, _) | State::Silent(held) if held.gives_up_at() <= now => {
                step = island.give_up(&self.key);
            }
            // Not after the end: when smoltcp's TIME-WAIT runs out it clears what is still to be read.
            State::Open(stack) if !stack.is_over() => {
                stack.drain(&mut phy(&engine.config, &engine.outlet, None), now);
                if stack.idle_at().is_some_and(|at| at <= now) {
                    stack.give_back(&engine.outlet, now);
                }
            }
            State::Held(..) | State::Silent(_) | State::Open(_) | State::Gone => {}
        }
        island.settle(engine, now, step)
    }
}

impl Island {
    /// The one place where the state changes.
    fn become_state(&mut self, key: &FlowKey, next: State) -> Step {
        tracing::trace!("flow {key}: {} -> {}", self.state.name(), next.name());
        let mut step = Step::default();
        if let State::Held(_, waker) = std::mem::replace(&mut self.state, next) {
            step.wake = waker;
        }
        step
    }

    /// The stack of an open flow.
    fn open(&mut self) -> Option<&mut Stack> {
        match &mut self.state {
            State::Open(stack) => Some(stack),
            _ => None,
        }
    }

    /// The stack where it can still be written to, else what comes of writing `len` bytes.
    fn writable(&mut self, len: usize) -> Result<&mut Stack, Result<(), StreamError>> {
        match &mut self.state {
            State::Open(stack) if stack.was_reset() => Err(stack.swallow(len)),
            State::Open(stack) => Ok(stack),
            _ => Err(Err(StreamError::Reset)),
        }
    }

    /// The initiator wants no answer any more.
    fn give_up(&mut self, key: &FlowKey) -> Step {
        let was_held = matches!(self.state, State::Held(..));
        let mut step = self.become_state(key, State::Gone);
        step.no_longer_held = was_held;
        step
    }

    /// Keeps the engine's sum of waiting bytes true.
    fn account<O: Outlet>(&mut self, engine: &Engine<O>) {
        let queued = match &self.state {
            State::Open(stack) if !stack.is_over() => stack.queued(),
            _ => 0,
        };
        engine.account_queued(self.accounted, queued);
        self.accounted = queued;
    }

    /// After every change: is the flow over, what waits in it, and when is it next due?
    fn settle<O: Outlet>(&mut self, engine: &Engine<O>, now: Instant, mut step: Step) -> Step {
        self.account(engine);
        let due = match &mut self.state {
            State::Held(held, _) | State::Silent(held) => Some(held.gives_up_at()),
            // TIME-WAIT protects against segments that a network delayed; there is none between us and the
            // kernel, and a FIN that comes again is answered with a reset that no application sees.
            State::Open(stack) if stack.is_over() => {
                step.remove = true;
                None
            }
            State::Open(stack) => {
                let due = stack.poll_at(now).into_iter().chain(stack.idle_at()).min();
                due.map(|at| at.max(now + LEAST_WAIT))
            }
            State::Gone => {
                step.remove = true;
                None
            }
        };
        if let Some(at) = due.map(|at| timers::rounded(now, at))
            && self.armed.last().is_none_or(|earliest| at < *earliest)
        {
            self.armed.push(at);
            step.arm_at = Some(at);
        }
        step
    }
}

/// Sends what `refusal` says for the held `syn`.
fn answer<O: Outlet>(refusal: Refusal, syn: &[u8], outlet: &O) {
    // It was parsed when it came in, so it parses again.
    let Ok(parsed) = packet::parse(syn, Checksum::Trusted) else {
        return;
    };
    let sink = &mut |frame: super::Frame<'_>| outlet.transmit(frame);
    match (refusal, parsed.transport) {
        (Refusal::Icmp(what), _) => reject::unreachable(what, &parsed, sink),
        (Refusal::Reset, Transport::Tcp(tcp)) => reject::reset(&parsed, tcp, sink),
        _ => {}
    }
}
