//! How an open flow ends, and what each side has got by then.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use underpass::engine::{Arrival, Batch, Checksum, Config, Engine, FlowHandle, NameServers};
use underpass::net::StreamError;

use crate::support::by_hand::{give, hold, open, run, said};
use crate::support::craft::{ACK, Ends, FIN, PSH, RST, SYN, Segment, tcp};
use crate::support::{Bell, Tap, at, engine};

const RESET: Poll<Result<(), StreamError>> = Poll::Ready(Err(StreamError::Reset));

/// An open flow. The application's next sequence number is 1001.
struct Flow {
    engine: Engine<Tap>,
    ends: Ends,
    handle: FlowHandle,
    /// The engine's next sequence number.
    next: u32,
    bell: Arc<Bell>,
}

impl Flow {
    fn open() -> Self {
        Self::open_in(Config::default(), Ends::v4(4000))
    }

    fn open_in(config: Config, ends: Ends) -> Self {
        let engine = engine(config);
        let handle = hold(&engine, at(0), ends);
        let next = open(&engine, at(1), ends, &handle);
        Self {
            engine,
            ends,
            handle,
            next,
            bell: Bell::fresh(),
        }
    }

    /// The application's kernel sends `segments` in one go, and they are acknowledged.
    fn give(&self, segments: &[Segment]) {
        let mut batch = self.give_in_batch(segments);
        self.engine.acknowledge(&mut batch, at(10));
    }

    /// The same, but for the acknowledgment.
    fn give_in_batch(&self, segments: &[Segment]) -> Batch {
        let mut batch = Batch::default();
        for segment in segments {
            let packet = segment.packet(self.ends);
            let opened =
                self.engine
                    .handle_packet_in(&mut batch, at(10), &packet, Checksum::Unverified);
            assert!(opened.is_none());
        }
        self.engine.end_batch(&mut batch, at(10));
        batch
    }

    fn read(&self) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.bell
            .poll(|cx| self.engine.poll_read(at(11), &self.handle, 100, cx))
    }

    fn write(&self, bytes: &'static [u8]) -> Poll<Result<(), StreamError>> {
        let mut chunk = Bytes::from_static(bytes);
        let written = self
            .bell
            .poll(|cx| self.engine.poll_write(at(11), &self.handle, &mut chunk, cx));
        self.engine.flush(at(11), &self.handle);
        written
    }

    fn finish(&self) -> Poll<Result<(), StreamError>> {
        self.bell
            .poll(|cx| self.engine.poll_finish(at(11), &self.handle, cx))
    }

    fn reset(&self) -> Poll<StreamError> {
        self.bell
            .poll(|cx| self.engine.poll_reset(&self.handle, cx))
    }
}

fn text(seq: u32, next: u32, payload: &[u8]) -> Segment {
    Segment::new(PSH | ACK, seq, next).with_payload(payload)
}

#[test]
fn what_came_before_a_reset_is_read_before_it() {
    for waits in [false, true] {
        let flow = Flow::open();
        if waits {
            assert!(flow.read().is_pending());
        }
        flow.give(&[
            text(1001, flow.next, b"bye"),
            Segment::new(RST | ACK, 1004, flow.next),
        ]);
        assert_eq!(flow.read(), Poll::Ready(Ok(Some("bye".into()))));
        assert_eq!(flow.read(), Poll::Ready(Err(StreamError::Reset)));
        assert_eq!(flow.reset(), Poll::Ready(StreamError::Reset));
        assert_eq!((flow.write(b"late"), flow.finish()), (RESET, RESET));
        assert_eq!(flow.engine.flow_count(), 0);
    }
}

/// `close()` of a socket to which bytes are still coming: its kernel sends a FIN, and resets what comes then. The peer has
/// got all and the end by that time.
#[test]
fn a_reset_after_the_end_takes_nothing_back() {
    for waits in [false, true] {
        let flow = Flow::open();
        if waits {
            assert!(flow.read().is_pending());
        }
        flow.give(&[
            text(1001, flow.next, b"all of it"),
            Segment::new(FIN | ACK, 1010, flow.next),
        ]);
        assert_eq!(flow.write(b"an answer"), Poll::Ready(Ok(())));
        flow.give(&[Segment::new(RST, 1011, 0)]);
        assert_eq!(flow.read(), Poll::Ready(Ok(Some("all of it".into()))));
        assert_eq!(flow.read(), Poll::Ready(Ok(None)));
        assert_eq!(flow.reset(), Poll::Ready(StreamError::Reset));
    }
}

#[test]
fn a_writer_learns_of_a_reset_when_the_reader_has_what_came_before() {
    let flow = Flow::open();
    flow.give(&[
        text(1001, flow.next, b"bye"),
        Segment::new(RST | ACK, 1004, flow.next),
    ]);
    said(&flow.engine);
    for _ in 0..3 {
        assert_eq!(flow.write(b"into the void"), Poll::Ready(Ok(())));
    }
    assert_eq!(said(&flow.engine), "nothing");
    assert_eq!(flow.read(), Poll::Ready(Ok(Some("bye".into()))));
    assert_eq!(flow.read(), Poll::Ready(Err(StreamError::Reset)));
    assert_eq!(flow.write(b"into the void"), RESET);
}

#[test]
fn a_far_side_that_sends_without_end_and_reads_nothing_learns_of_a_reset() {
    let flow = Flow::open();
    flow.give(&[
        text(1001, flow.next, b"unread"),
        Segment::new(RST | ACK, 1007, flow.next),
    ]);
    const CHUNK: &[u8] = &[0; 1 << 20];
    let mut sent = 0;
    while flow.write(CHUNK) == Poll::Ready(Ok(())) {
        sent += CHUNK.len();
        assert!(sent < 1 << 30, "it goes on forever");
    }
    assert_eq!(flow.finish(), RESET);
}

#[test]
fn a_silent_application_ends_no_stream_in_order() {
    let flow = Flow::open();
    assert!(flow.read().is_pending());
    let reset = flow.bell.times();
    // Its time-out is seen first by a write, by a flush, or by the timer.
    for by_write in [true, false] {
        let flow = Flow::open();
        assert!(flow.read().is_pending());
        if by_write {
            let late = at(1_000_000);
            let mut chunk = Bytes::from_static(b"x");
            let _ = flow
                .bell
                .poll(|cx| flow.engine.poll_write(late, &flow.handle, &mut chunk, cx));
            flow.engine.flush(late, &flow.handle);
            let later = at(2_000_000);
            flow.engine.flush(later, &flow.handle);
            let mut chunk = Bytes::from_static(b"y");
            let _ = flow
                .bell
                .poll(|cx| flow.engine.poll_write(later, &flow.handle, &mut chunk, cx));
            flow.engine.flush(later, &flow.handle);
        } else {
            run(&flow.engine, at(2_000_000));
        }
        assert!(flow.bell.times() > reset, "{by_write}");
        assert_eq!(flow.read(), Poll::Ready(Err(StreamError::Reset)));
        assert_eq!(flow.reset(), Poll::Ready(StreamError::Reset));
        assert_eq!(flow.engine.flow_count(), 0);
    }
}

/// The far side sent an answer and then broke. A network would have carried what went before the reset.
#[test]
fn an_abandoned_flow_is_reset_behind_what_the_application_has_room_for() {
    let flow = Flow::open();
    let mut chunk = Bytes::from_static(b"413 too large");
    let written = flow
        .bell
        .poll(|cx| flow.engine.poll_write(at(11), &flow.handle, &mut chunk, cx));
    assert_eq!(written, Poll::Ready(Ok(())));
    flow.engine.abandon(at(11), &flow.handle);
    let packets = flow.engine.outlet().take();
    let seen: Vec<_> = packets.iter().map(|packet| tcp(packet).unwrap()).collect();
    assert_eq!(seen[0].payload, b"413 too large");
    assert_eq!((seen.len(), seen[1].flags), (2, RST | ACK));
    assert_eq!(seen[1].seq, seen[0].end(), "a kernel takes no other");
    assert_eq!(flow.read(), Poll::Ready(Err(StreamError::Reset)));
    assert_eq!(flow.engine.flow_count(), 0);
}

/// The far side sent all and closed, and its application has little room at that time.
#[test]
fn what_a_slow_application_has_not_taken_comes_before_the_reset() {
    for in_order in [false, true] {
        let flow = Flow::open();
        // In units of 128.
        let acknowledge = |seen: u32| {
            let next = flow.next.wrapping_add(seen);
            Segment::new(ACK, 1001, next).with_window(8)
        };
        flow.give(&[acknowledge(0)]);
        let text: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        let mut chunk = Bytes::from(text.clone());
        let written = flow
            .bell
            .poll(|cx| flow.engine.poll_write(at(11), &flow.handle, &mut chunk, cx));
        assert_eq!(written, Poll::Ready(Ok(())));
        if in_order {
            assert_eq!(flow.finish(), Poll::Ready(Ok(())));
        }
        flow.engine.abandon(at(11), &flow.handle);
        assert_eq!(flow.read(), Poll::Pending, "{in_order}: it has not ended");
        let (mut got, mut flags) = (Vec::new(), 0);
        while flags & RST == 0 {
            let packets = flow.engine.outlet().take();
            assert!(!packets.is_empty(), "{in_order}: {} and no end", got.len());
            for seen in packets.iter().map(|packet| tcp(packet).unwrap()) {
                assert!(seen.payload.len() <= 1024, "{in_order}: beyond the window");
                got.extend(seen.payload);
                flags |= seen.flags;
            }
            flow.give(&[acknowledge(got.len() as u32)]);
        }
        assert_eq!((got == text, flags & FIN != 0), (true, in_order));
        assert_eq!(flow.engine.flow_count(), 0);
    }
}

/// It would wait for room for what it sends, and never come to what was written for it.
#[test]
fn an_application_that_sends_before_it_reads_is_not_held_up_by_a_reset_to_come() {
    let flow = Flow::open();
    let text = [0; 1024];
    let mut seq = 1001_u32;
    let mut send = |flow: &Flow| {
        let segment = Segment::new(PSH | ACK, seq, flow.next).with_payload(&text);
        seq = seq.wrapping_add(text.len() as u32);
        flow.give(&[segment.with_window(0)]);
    };
    send(&flow);
    assert_eq!(flow.write(b"413 too large"), Poll::Ready(Ok(())));
    flow.engine.abandon(at(11), &flow.handle);
    said(&flow.engine);
    for _ in 0..1024 {
        send(&flow);
        let packets = flow.engine.outlet().take();
        let answer = tcp(packets.last().unwrap()).unwrap();
        assert_eq!(answer.flags & RST, 0);
        assert!(answer.window > 1000, "{answer:?}");
    }
    // Not without end.
    for _ in 0..64 << 10 {
        send(&flow);
    }
    let end = said(&flow.engine);
    assert!(
        end.contains("RST"),
        "{}",
        &end[end.len().saturating_sub(300)..]
    );
    assert_eq!(flow.engine.flow_count(), 0);
}

/// Where much waits already, and where the clients of our name server may come by the hundred.
#[test]
fn a_slow_application_is_not_waited_for_with_a_reset_where_there_is_no_room() {
    let mut ends = Ends::v4(4000);
    ends.target.set_port(53);
    for config in [
        Config {
            max_queued: 0,
            ..Config::default()
        },
        Config {
            name_servers: NameServers([Some(ends.target.ip()), None]),
            ..Config::default()
        },
    ] {
        let flow = Flow::open_in(config, ends);
        let full = Segment::new(ACK, 1001, flow.next).with_window(0);
        flow.give(&[full]);
        assert_eq!(flow.write(b"413 too large"), Poll::Ready(Ok(())));
        flow.engine.abandon(at(11), &flow.handle);
        assert_eq!(flow.engine.flow_count(), 0);
    }
}

/// Its kernel answers for it for as long as it is there.
#[test]
fn an_application_that_never_reads_is_not_waited_for_with_a_reset_for_ever() {
    let flow = Flow::open();
    let next = flow.next;
    let full = || Segment::new(ACK, 1001, next).with_window(0);
    flow.give(&[full()]);
    assert_eq!(flow.write(b"413 too large"), Poll::Ready(Ok(())));
    flow.engine.abandon(at(11), &flow.handle);
    let mut seconds = 0;
    while flow.engine.flow_count() > 0 {
        seconds += 1;
        assert!(seconds < 200, "{}", said(&flow.engine));
        run(&flow.engine, at(11 + 1000 * seconds));
        give(
            &flow.engine,
            at(11 + 1000 * seconds),
            &full().packet(flow.ends),
        );
    }
    assert!(seconds >= 120, "{seconds}");
    assert!(said(&flow.engine).contains("RST"));
}

#[test]
fn a_late_syn_of_a_reset_flow_begins_a_new_one() {
    let flow = Flow::open();
    flow.give(&[
        text(1001, flow.next, b"unread"),
        Segment::new(RST | ACK, 1007, flow.next),
    ]);
    let again = give(&flow.engine, at(12), &Segment::syn(5000).packet(flow.ends)).unwrap();
    flow.engine.accept(at(13), &again);
    let packets = flow.engine.outlet().take();
    let syn_ack = tcp(packets.last().unwrap()).unwrap();
    assert_eq!((syn_ack.flags, syn_ack.ack), (SYN | ACK, 5001));
    assert_eq!(flow.read(), Poll::Ready(Ok(Some("unread".into()))));
    assert_eq!(flow.engine.flow_count(), 1);
}

#[test]
fn few_bytes_are_acknowledged_once_they_are_passed_on() {
    let flow = Flow::open();
    assert!(flow.read().is_pending());
    let mut batch = flow.give_in_batch(&[text(1001, flow.next, b"hello")]);
    assert_eq!(flow.read(), Poll::Ready(Ok(Some("hello".into()))));
    assert!(flow.read().is_pending());
    assert_eq!(said(&flow.engine), "nothing");
    flow.engine.acknowledge(&mut batch, at(12));
    let seen = flow.engine.outlet().take();
    let [ack] = seen.as_slice() else {
        panic!("{} packets", seen.len())
    };
    let ack = tcp(ack).unwrap();
    assert_eq!((ack.flags, ack.ack, ack.payload.len()), (ACK, 1006, 0));
}

#[test]
fn an_answer_that_comes_at_once_is_the_acknowledgment() {
    let flow = Flow::open();
    let mut batch = flow.give_in_batch(&[text(1001, flow.next, b"hello")]);
    assert_eq!(flow.read(), Poll::Ready(Ok(Some("hello".into()))));
    assert_eq!(flow.write(b"world"), Poll::Ready(Ok(())));
    flow.engine.acknowledge(&mut batch, at(12));
    let seen = flow.engine.outlet().take();
    let [answer] = seen.as_slice() else {
        panic!("{} packets", seen.len())
    };
    let answer = tcp(answer).unwrap();
    assert_eq!(
        (answer.ack, answer.payload.as_slice()),
        (1006, &b"world"[..])
    );
}

#[test]
fn many_bytes_make_room_at_once() {
    let flow = Flow::open();
    let many = [b'x'; 32 << 10];
    let _batch = flow.give_in_batch(&[text(1001, flow.next, &many)]);
    let read = flow
        .bell
        .poll(|cx| flow.engine.poll_read(at(11), &flow.handle, 64 << 10, cx));
    assert_eq!(read, Poll::Ready(Ok(Some(Bytes::copy_from_slice(&many)))));
    assert_eq!(flow.engine.outlet().take().len(), 1);
}

/// The same ends again, in one go with the last segment of the connection before.
#[test]
fn the_last_acknowledgment_comes_before_the_next_connection() {
    let flow = Flow::open();
    assert_eq!(flow.finish(), Poll::Ready(Ok(())));
    flow.engine.outlet().take();
    let mut batch = Batch::default();
    let mut give = |segment: Segment| {
        let packet = segment.packet(flow.ends);
        let engine = &flow.engine;
        let arrival = engine.handle_packet_in(&mut batch, at(10), &packet, Checksum::Unverified);
        arrival.and_then(Arrival::into_flow)
    };
    assert!(give(Segment::new(FIN | ACK, 1001, flow.next + 1)).is_none());
    assert!(give(Segment::syn(90_000)).is_some());
    let seen = flow.engine.outlet().take();
    let [last] = seen.as_slice() else {
        panic!("{} packets", seen.len())
    };
    assert_eq!(tcp(last).unwrap().ack, 1002);
    flow.engine.end_batch(&mut batch, at(11));
    flow.engine.acknowledge(&mut batch, at(11));
    assert_eq!(said(&flow.engine), "nothing");
    assert_eq!(flow.engine.flow_count(), 1);
}

/// A deadline of the open flow, its keepalive, comes long after smoltcp's TIME-WAIT.
#[test]
fn what_came_is_there_to_be_read_when_old_deadlines_come() {
    let flow = Flow::open();
    run(&flow.engine, at(20_000));
    let finished = flow
        .bell
        .poll(|cx| flow.engine.poll_finish(at(20_000), &flow.handle, cx));
    assert_eq!(finished, Poll::Ready(Ok(())));
    let last = Segment::new(FIN | PSH | ACK, 1001, flow.next + 1).with_payload(b"late");
    give(&flow.engine, at(20_001), &last.packet(flow.ends));
    assert_eq!(flow.engine.flow_count(), 0);
    run(&flow.engine, at(1_000_000));
    assert_eq!(flow.engine.poll_timeout(), None);
    let read = || {
        flow.bell
            .poll(|cx| flow.engine.poll_read(at(1_000_000), &flow.handle, 100, cx))
    };
    assert_eq!(read(), Poll::Ready(Ok(Some("late".into()))));
    assert_eq!(read(), Poll::Ready(Ok(None)));
}

/// Whoever closed first: what comes with the end is acknowledged, or its kernel would send it again, and be reset.
#[test]
fn the_last_bytes_are_acknowledged_while_a_reader_waits() {
    let flow = Flow::open();
    assert_eq!(flow.finish(), Poll::Ready(Ok(())));
    let ends = flow.next + 1;
    flow.give(&[Segment::new(ACK, 1001, ends)]);
    assert!(flow.read().is_pending());
    said(&flow.engine);
    flow.give(&[
        text(1001, ends, b"last"),
        Segment::new(FIN | ACK, 1005, ends),
    ]);
    let answers = flow.engine.outlet().take();
    let acked = answers.last().map(|packet| tcp(packet).unwrap().ack);
    assert_eq!(acked, Some(1006));
    assert_eq!(flow.read(), Poll::Ready(Ok(Some("last".into()))));
    assert_eq!(flow.read(), Poll::Ready(Ok(None)));
}

/// A kernel that has lost its end begins anew from the same port: it is told of the old connection, and resets that.
#[test]
fn a_syn_for_an_open_flow_is_challenged() {
    let flow = Flow::open();
    let syn = Segment::syn(9000);
    give(&flow.engine, at(2_000), &syn.packet(flow.ends));
    let answer = flow.engine.outlet().take();
    let answer = tcp(&answer[0]).unwrap();
    assert_eq!(
        (answer.flags, answer.seq, answer.ack),
        (ACK, flow.next, 1001)
    );
    assert_eq!(flow.engine.flow_count(), 1);
    let reset = Segment::new(RST, answer.ack, 0);
    give(&flow.engine, at(2_001), &reset.packet(flow.ends));
    assert_eq!(flow.reset(), Poll::Ready(StreamError::Reset));
    assert!(give(&flow.engine, at(3_000), &syn.packet(flow.ends)).is_some());
}

/// Linux drops bytes that it has no memory for, and closes the window on them.
#[test]
fn what_a_window_was_closed_upon_is_sent_again() {
    for opens_after in [100, 30_000] {
        let flow = Flow::open();
        for bytes in [b"taken", b"dropt"] {
            assert_eq!(flow.write(bytes), Poll::Ready(Ok(())));
        }
        assert_eq!(flow.engine.outlet().take().len(), 2);
        let answer = Segment::new(ACK, 1001, flow.next + 5);
        let closed = answer.clone().with_window(0);
        give(&flow.engine, at(20), &closed.packet(flow.ends));
        let opened = 20 + opens_after;
        let mut tries = 0;
        while let Some(due) = flow.engine.poll_timeout()
            && due <= at(opened)
        {
            flow.engine.handle_timeout(due);
            for packet in flow.engine.outlet().take() {
                tries += 1;
                assert_eq!(tcp(&packet).unwrap().seq, flow.next + 5);
                give(&flow.engine, due, &closed.packet(flow.ends));
            }
        }
        assert_eq!(tries > 0, opens_after > 1_000);
        assert!(tries < 10, "{tries}");
        give(&flow.engine, at(opened), &answer.packet(flow.ends));
        run(&flow.engine, at(opened + 1_500));
        let again = flow.engine.outlet().take();
        assert!(!again.is_empty());
        for packet in again {
            let seen = tcp(&packet).unwrap();
            assert_eq!((seen.seq, seen.end()), (flow.next + 5, flow.next + 10));
        }
    }
}

/// The reset would be in front of what comes again.
#[test]
fn what_a_window_was_closed_upon_comes_before_the_reset() {
    let flow = Flow::open();
    for bytes in [b"taken", b"drop1", b"drop2", b"drop3"] {
        assert_eq!(flow.write(bytes), Poll::Ready(Ok(())));
    }
    flow.engine.outlet().take();
    let acknowledge = |seen| Segment::new(ACK, 1001, flow.next + seen);
    let hear = |ms, segment: Segment| give(&flow.engine, at(ms), &segment.packet(flow.ends));
    hear(20, acknowledge(5).with_window(0));
    flow.engine.abandon(at(21), &flow.handle);
    let (mut got, mut ms) = (5, 30);
    hear(ms, acknowledge(got));
    while flow.engine.flow_count() > 0 {
        ms += 100;
        assert!(ms < 60_000, "no end");
        run(&flow.engine, at(ms));
        for packet in flow.engine.outlet().take() {
            let seen = tcp(&packet).unwrap();
            assert!(seen.flags & RST == 0 || got == 20, "{got} and a reset");
            if seen.seq == flow.next + got {
                got = seen.end() - flow.next;
            }
        }
        hear(ms, acknowledge(got));
    }
    assert_eq!(got, 20);
}

/// The window is told in units, so its edge moves back by some bytes when others come. What was sent up to the old edge comes
/// with the end of the stream, which is not the end without it.
#[test]
fn an_end_is_not_taken_without_the_bytes_before_it() {
    const WINDOW: usize = 262_144;
    let flow = Flow::open();
    let stream: Vec<u8> = (0..WINDOW).map(|n| (n % 251) as u8).collect();
    let piece = |from: usize, to: usize| {
        let (seq, fin) = (1001 + from as u32, u8::from(to == WINDOW));
        Segment::new(fin | PSH | ACK, seq, flow.next).with_payload(&stream[from..to])
    };
    let mut from = 0;
    for to in [5, 60_005, 120_005, 180_005, 240_005, WINDOW] {
        flow.give(&[piece(from, to)]);
        from = to;
    }
    let mut got = Vec::new();
    let mut is_sent_again = false;
    loop {
        let read = flow.bell.poll(|cx| {
            let most = 1 << 20;
            flow.engine.poll_read(at(20), &flow.handle, most, cx)
        });
        match read {
            Poll::Ready(bytes) => match bytes.unwrap() {
                Some(bytes) => got.extend(bytes),
                None => break,
            },
            Poll::Pending => {
                assert!(!is_sent_again, "{} bytes", got.len());
                is_sent_again = true;
                flow.give(&[piece(240_005, WINDOW)]);
            }
        }
    }
    assert!(got == stream, "{} bytes", got.len());
}

/// A probe of the application's window tells of more room than smoltcp remembers to have offered.
#[test]
fn an_end_within_the_window_of_a_probe_is_not_taken_without_the_bytes_before_it() {
    let flow = Flow::open();
    let text = |len: usize, seq: u32, flags| {
        let segment = Segment::new(flags | ACK, seq, flow.next).with_window(0);
        segment.with_payload(&vec![7; len])
    };
    // The ring is nearly full, and the application's is.
    let lens = [5, 60_000, 60_000, 60_000, 60_000];
    let mut seq = 1001;
    for len in lens {
        flow.give(&[text(len, seq, PSH)]);
        seq += len as u32;
    }
    assert_eq!(flow.write(b"pending"), Poll::Ready(Ok(())));
    let read = |most| {
        let read = flow
            .bell
            .poll(|cx| flow.engine.poll_read(at(20), &flow.handle, most, cx));
        read.map(|bytes| bytes.unwrap().map(|bytes| bytes.len()))
    };
    assert_eq!(read(10_000), Poll::Ready(Some(10_000)));
    flow.engine.outlet().take();
    run(&flow.engine, at(3_000));
    let probes = flow.engine.outlet().take();
    assert!(!probes.is_empty(), "it probes");
    let last = text(30_000, seq, FIN | PSH);
    give(&flow.engine, at(3_001), &last.packet(flow.ends));
    let mut got = 10_000;
    let mut is_sent_again = false;
    loop {
        match read(1 << 20) {
            Poll::Ready(Some(len)) => got += len,
            Poll::Ready(None) => break,
            Poll::Pending => {
                assert!(!is_sent_again, "{got} bytes");
                is_sent_again = true;
                give(&flow.engine, at(3_300), &last.packet(flow.ends));
            }
        }
    }
    assert_eq!(got, lens.iter().sum::<usize>() + 30_000);
}

#[test]
fn an_end_that_a_window_was_closed_upon_is_sent_again() {
    let flow = Flow::open();
    assert_eq!(flow.finish(), Poll::Ready(Ok(())));
    assert_eq!(flow.engine.outlet().take().len(), 1);
    let answer = Segment::new(ACK, 1001, flow.next);
    let closed = answer.clone().with_window(0);
    give(&flow.engine, at(20), &closed.packet(flow.ends));
    give(&flow.engine, at(120), &answer.packet(flow.ends));
    run(&flow.engine, at(5_000));
    let again = flow.engine.outlet().take();
    assert!(!again.is_empty());
    for packet in again {
        let seen = tcp(&packet).unwrap();
        assert_eq!((seen.flags & FIN, seen.seq), (FIN, flow.next));
    }
}
