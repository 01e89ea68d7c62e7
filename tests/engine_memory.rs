//! When a flow's rings give their memory back, and that nothing is lost by it: what is given back holds anything.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "engine/support/mod.rs"]
mod support;

use std::task::{Context, Poll};

use smoltcp::time::Instant;
use underpass::engine::{Config, Engine, FlowHandle};

use support::by_hand::{give, hold, open, run};
use support::craft::{ACK, Ends, PSH, Segment, tcp};
use support::{Bell, Tap, at, engine};

/// The rings of a flow while there are few, in bytes.
const TO_APPLICATION: usize = 512 << 10;
const FROM_APPLICATION: usize = 256 << 10;

/// A flow that is open, and what both sides do with it.
struct Talk {
    engine: Engine<Tap>,
    ends: Ends,
    flow: FlowHandle,
    /// The next sequence numbers of the application and of the engine.
    up: u32,
    down: u32,
}

impl Talk {
    fn begin() -> Self {
        let engine = engine(Config::default());
        let ends = Ends::v4(4000);
        let flow = hold(&engine, at(0), ends);
        let down = open(&engine, at(1), ends, &flow);
        Self {
            engine,
            ends,
            flow,
            up: 1001,
            down,
        }
    }

    fn write(&mut self, now: Instant, text: &'static str) {
        let mut chunk = text.into();
        let written = Bell::fresh().poll(|cx| {
            let flow = &self.flow;
            self.engine.poll_write(now, flow, &mut chunk, cx)
        });
        assert_eq!(written, Poll::Ready(Ok(())));
        self.engine.flush(now, &self.flow);
        self.down = self.down.wrapping_add(text.len() as u32);
        let packets = self.engine.outlet().take();
        assert_eq!(
            tcp(packets.last().unwrap()).unwrap().payload,
            text.as_bytes()
        );
    }

    fn acknowledge(&self, now: Instant) {
        let ack = Segment::new(ACK, self.up, self.down);
        give(&self.engine, now, &ack.packet(self.ends));
    }

    /// The application sends `text`, so many bytes ahead of what it has sent.
    fn send(&mut self, now: Instant, ahead: u32, text: &str) {
        let segment =
            Segment::new(ACK | PSH, self.up + ahead, self.down).with_payload(text.as_bytes());
        give(&self.engine, now, &segment.packet(self.ends));
        if ahead == 0 {
            self.up += text.len() as u32;
        }
    }

    fn read(&self, now: Instant) -> String {
        let read = |cx: &mut Context<'_>| self.engine.poll_read(now, &self.flow, 1000, cx);
        match Bell::fresh().poll(read) {
            Poll::Ready(read) => String::from_utf8(read.unwrap().unwrap().to_vec()).unwrap(),
            Poll::Pending => "nothing".into(),
        }
    }

    /// What is given back until then, in bytes.
    fn given_back(&self, until: Instant) -> usize {
        run(&self.engine, until);
        self.engine.outlet().take_given_back()
    }
}

#[test]
fn an_idle_flow_gives_its_memory_back_once_it_is_empty() {
    let mut talk = Talk::begin();
    talk.write(at(10), "hello");
    // Not acknowledged: the bytes are still needed.
    assert_eq!(talk.given_back(at(5000)), 0);
    talk.acknowledge(at(5001));
    assert_eq!(talk.given_back(at(9000)), TO_APPLICATION);
    assert_eq!(talk.given_back(at(60_000)), 0, "once");
    talk.engine.outlet().take();
    talk.write(at(60_001), "world");
}

#[test]
fn so_it_does_with_what_was_read() {
    let mut talk = Talk::begin();
    talk.send(at(10), 0, "hello");
    assert_eq!(talk.given_back(at(5000)), 0);
    assert_eq!(talk.read(at(5000)), "hello");
    assert_eq!(talk.given_back(at(9000)), FROM_APPLICATION);
    assert_eq!(talk.given_back(at(60_000)), 0, "once");
    talk.send(at(60_001), 0, "world");
    assert_eq!(talk.read(at(60_002)), "world");
}

#[test]
fn both_go_together_and_each_alone() {
    let mut talk = Talk::begin();
    talk.send(at(10), 0, "question");
    assert_eq!(talk.read(at(10)), "question");
    talk.write(at(60), "answer");
    talk.acknowledge(at(61));
    assert_eq!(talk.given_back(at(300)), FROM_APPLICATION + TO_APPLICATION);
    // Nobody reads what the application says now.
    talk.write(at(1000), "more");
    talk.send(at(1001), 0, "unread");
    assert_eq!(talk.given_back(at(2000)), TO_APPLICATION);
    assert_eq!(talk.read(at(2000)), "unread");
    // And it does not acknowledge this.
    talk.write(at(2000), "unheard");
    assert_eq!(talk.given_back(at(3000)), FROM_APPLICATION);
}

#[test]
fn what_came_ahead_of_its_turn_is_not_given_back() {
    let mut talk = Talk::begin();
    talk.send(at(10), 0, "one ");
    assert_eq!(talk.read(at(10)), "one ");
    talk.send(at(11), 4, "three");
    assert_eq!(talk.given_back(at(5000)), 0);
    talk.send(at(5000), 0, "two ");
    assert_eq!(talk.read(at(5001)), "two three");
    assert_eq!(talk.given_back(at(9000)), FROM_APPLICATION);
}

#[test]
fn a_flow_that_is_closed_on_our_side_gives_its_memory_back() {
    let mut talk = Talk::begin();
    talk.write(at(10), "bye");
    let finish = |cx: &mut Context<'_>| talk.engine.poll_finish(at(11), &talk.flow, cx);
    assert_eq!(Bell::fresh().poll(finish), Poll::Ready(Ok(())));
    let ack = Segment::new(ACK, talk.up, talk.down.wrapping_add(1));
    give(&talk.engine, at(12), &ack.packet(talk.ends));
    assert_eq!(talk.given_back(at(5000)), TO_APPLICATION);
}
