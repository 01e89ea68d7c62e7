//! An engine driven packet by packet.

use smoltcp::time::Instant;
use underpass::engine::{Arrival, Checksum, Engine, FlowHandle};

use super::Tap;
use super::craft::{ACK, Ends, SYN, Segment, describe, tcp};

/// Hands the engine a packet whose checksum nobody vouches for.
pub(crate) fn give(engine: &Engine<Tap>, now: Instant, packet: &[u8]) -> Option<FlowHandle> {
    let arrival = engine.handle_packet(now, packet, Checksum::Unverified);
    arrival.and_then(Arrival::into_flow)
}

/// Gives the SYN of a new flow, with sequence number 1000.
pub(crate) fn hold(engine: &Engine<Tap>, now: Instant, ends: Ends) -> FlowHandle {
    give(engine, now, &Segment::syn(1000).packet(ends)).unwrap()
}

/// What the engine has sent since the last call, in words.
pub(crate) fn said(engine: &Engine<Tap>) -> String {
    let packets = engine.outlet().take();
    let lines: Vec<_> = packets.iter().map(|packet| describe(packet)).collect();
    if lines.is_empty() {
        "nothing".into()
    } else {
        lines.join(", ")
    }
}

/// Lets virtual time run to `until`.
pub(crate) fn run(engine: &Engine<Tap>, until: Instant) {
    while let Some(due) = engine.poll_timeout()
        && due <= until
    {
        engine.handle_timeout(due);
    }
}

/// Accepts, and answers the SYN-ACK; the engine's next sequence number.
pub(crate) fn open(engine: &Engine<Tap>, now: Instant, ends: Ends, flow: &FlowHandle) -> u32 {
    engine.accept(now, flow);
    let packets = engine.outlet().take();
    let syn_ack = tcp(&packets[0]).unwrap();
    assert_eq!((packets.len(), syn_ack.flags), (1, SYN | ACK));
    let next = syn_ack.seq.wrapping_add(1);
    give(engine, now, &Segment::new(ACK, 1001, next).packet(ends));
    assert_eq!(said(engine), "nothing");
    next
}
