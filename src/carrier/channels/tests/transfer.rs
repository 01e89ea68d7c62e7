//! Whole lives of many channels between the layer and the model server, in a random order, over a byte stream
//! that is cut anywhere. The server checks what the client may not do; here is checked that every byte arrives once
//! and in order, that nobody waits for ever, and that nothing is left at the end.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::server::{Server, global_request, message, pattern, request, with_string};
use super::*;
use crate::carrier::channels::SendError;

/// One that hangs takes them all. A server whose packets may hold a few bytes only has needed 4.7 million.
const MAX_STEPS: usize = 20_000_000;

#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    channels: usize,
    /// Bytes of a channel each way, at most.
    bytes: usize,
    /// Whether channels are cut off midway by either side.
    with_cuts: bool,
    max_queued: usize,
}

/// A channel as its owner knows it.
#[derive(Debug, Default)]
struct Flow {
    is_open: bool,
    sent: u64,
    is_waiting: bool,
    eof_said: bool,
    received: u64,
    held: usize,
    eof_heard: bool,
}

struct Run {
    plan: Plan,
    random: Random,
    client: Client,
    server: Server,
    flows: BTreeMap<ChannelId, Flow>,
    opened: usize,
    refused: u64,
    complete: usize,
    cut: bool,
    global_requests: usize,
    unwanted: usize,
}

impl Run {
    fn new(plan: Plan) -> Self {
        let config = Config {
            max_channels: 24,
            max_queued: plan.max_queued,
            ..Config::default()
        };
        Self {
            random: Random(plan.seed),
            plan,
            client: Client::new(config),
            server: Server::default(),
            flows: BTreeMap::new(),
            opened: 0,
            refused: 0,
            complete: 0,
            cut: false,
            global_requests: 0,
            unwanted: 0,
        }
    }

    /// How many bytes a channel carries up and down, by its number.
    fn totals(&self, client: u32) -> (u64, u64) {
        let mut random = Random(self.plan.seed ^ u64::from(client));
        let mut total = || match random.below(4) {
            0 => 0,
            1 => random.below(100) as u64,
            _ => random.below(self.plan.bytes) as u64,
        };
        (total(), total())
    }

    fn is_done(&self) -> bool {
        self.opened == self.plan.channels
            && self.client.channels.is_empty()
            && self.server.peers.is_empty()
            && self.server.output.is_empty()
            && !self.client.channels.has_output()
            && self.client.out.remaining() == 0
    }

    fn step(&mut self) {
        let micros = self.random.below(3000) as u64;
        self.client.pass(Duration::from_micros(micros));
        match self.random.below(12) {
            0 => self.open(),
            1 => self.answer(),
            2 | 3 => self.app_sends(),
            4 => self.app_consumes(),
            5 => self.app_ends(),
            6 => self.server_sends(),
            7 => self.server_grants(),
            8 => self.server_ends(),
            9 => self.upstream(),
            10 => self.downstream(),
            _ if self.random.one_in(8) => self.disturb(),
            _ => {}
        }
    }

    fn open(&mut self) {
        if self.opened < self.plan.channels
            && let Ok(id) = self.client.channels.open(ChannelType::session())
        {
            self.opened += 1;
            self.flows.insert(id, Flow::default());
        }
    }

    fn answer(&mut self) {
        let pending = self.peers(|peer| !peer.is_open);
        let Some(number) = self.random.pick(&pending) else {
            return;
        };
        if self.random.one_in(5) {
            self.refused += 1;
            return self.server.refuse(number);
        }
        // A window of nothing would stay one: it grows by what was taken.
        let window = 1 + u32::try_from(self.random.below(100_000)).unwrap();
        let most = 1 + u32::try_from(self.random.below(40_000)).unwrap();
        self.server.confirm(number, window, most);
    }

    fn peers(&self, wanted: impl Fn(&server::Peer) -> bool) -> Vec<u32> {
        let peers = self.server.peers.iter();
        peers
            .filter(|(_, peer)| wanted(peer))
            .map(|(number, _)| *number)
            .collect()
    }

    fn some_flow(&mut self, wanted: impl Fn(&Flow) -> bool) -> Option<ChannelId> {
        let flows = self.flows.iter().filter(|(_, flow)| wanted(flow));
        let ids: Vec<_> = flows.map(|(id, _)| *id).collect();
        self.random.pick(&ids)
    }

    fn app_sends(&mut self) {
        while let Some(id) = self.client.channels.poll_writable() {
            let flow = self.flows.get_mut(&id).expect("a flow that lives");
            assert!(flow.is_waiting, "told for nothing");
            flow.is_waiting = false;
        }
        let can_send = |flow: &Flow| flow.is_open && !flow.is_waiting && !flow.eof_said;
        let Some(id) = self.some_flow(can_send) else {
            return;
        };
        let total = self.totals(id.0).0;
        let length = 1 + self.random.below(50_000);
        let flow = self.flows.get_mut(&id).unwrap();
        let length = usize::try_from(total - flow.sent).unwrap().min(length);
        if length == 0 {
            flow.eof_said = true;
            return self.client.channels.eof(id).unwrap();
        }
        let bytes = server::stretch(id.0, flow.sent, length);
        let taken = self.client.send(id, &bytes);
        flow.sent += taken as u64;
        flow.is_waiting = taken < length;
    }

    fn app_consumes(&mut self) {
        let Some(id) = self.some_flow(|flow| flow.held > 0) else {
            return;
        };
        let held = self.flows[&id].held;
        let length = if self.random.one_in(3) {
            held
        } else {
            1 + self.random.below(held)
        };
        self.flows.get_mut(&id).unwrap().held -= length;
        let now = self.client.now;
        self.client.channels.consumed(now, id, length);
    }

    /// Closes a channel that has ended both ways, mostly: the server may be first.
    fn app_ends(&mut self) {
        let both_ended = |flow: &Flow| flow.eof_said && flow.eof_heard;
        let Some(id) = self.some_flow(both_ended) else {
            return;
        };
        self.finish(id);
        self.client.channels.close(id);
    }

    fn finish(&mut self, id: ChannelId) {
        let flow = self.flows.remove(&id).unwrap();
        if flow.eof_said && flow.eof_heard {
            assert_eq!((flow.sent, flow.received), self.totals(id.0));
            self.complete += 1;
        }
    }

    fn server_sends(&mut self) {
        let ready = self
            .peers(|peer| peer.is_open && !peer.eof_sent && !peer.close_sent && peer.window > 0);
        let Some(number) = self.random.pick(&ready) else {
            return;
        };
        let peer = &self.server.peers[&number];
        let left = self.totals(peer.client).1 - peer.sent;
        let most = self
            .random
            .below(40_000)
            .min(usize::try_from(left).unwrap());
        if left > 0 {
            self.server.send(number, most);
        }
    }

    fn server_grants(&mut self) {
        let ready = self.peers(|peer| peer.is_open && !peer.close_sent && peer.taken > 0);
        if let Some(number) = self.random.pick(&ready) {
            self.server.grant(number);
        }
    }

    fn server_ends(&mut self) {
        let ready = self.peers(|peer| peer.is_open && !peer.close_sent);
        let Some(number) = self.random.pick(&ready) else {
            return;
        };
        let peer = &self.server.peers[&number];
        let (up, down) = self.totals(peer.client);
        if peer.eof_received {
            assert_eq!(peer.received, up, "all has come before the EOF");
        }
        if peer.close_received || (peer.eof_sent && peer.eof_received && self.random.one_in(3)) {
            self.server.close(number);
        } else if !peer.eof_sent && peer.sent == down {
            self.server.eof(number);
        }
    }

    fn upstream(&mut self) {
        let most = 1 + self.random.below(100_000);
        let bytes = self.client.written(most);
        self.server.read(&bytes);
    }

    fn downstream(&mut self) {
        let length = self.server.output.len().min(1 + self.random.below(100_000));
        let bytes: Vec<_> = self.server.output.drain(..length).collect();
        for event in self.client.read(&bytes).unwrap() {
            self.hear(event);
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Opened(id) => self.flows.get_mut(&id).unwrap().is_open = true,
            Event::Refused { id, .. } => drop(self.flows.remove(&id).unwrap()),
            Event::Data { id, data } => {
                let flow = self.flows.get_mut(&id).expect("an owner");
                for byte in &data {
                    assert_eq!(*byte, pattern(id.0, flow.received));
                    flow.received += 1;
                }
                flow.held += data.len();
            }
            Event::Eof(id) => self.flows.get_mut(&id).unwrap().eof_heard = true,
            Event::Closed(id) => {
                assert!(!self.flows[&id].is_waiting || self.cut);
                self.finish(id);
                let late = self.client.channels.send(id, Bytes::from_static(b"late"));
                assert_eq!(late, Err(SendError::Closed));
            }
            Event::Request { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// Noise that changes nothing, and cuts.
    fn disturb(&mut self) {
        let peers = self.peers(|peer| peer.is_open && !peer.close_sent);
        let number = self.random.pick(&peers);
        match self.random.below(if self.plan.with_cuts { 7 } else { 4 }) {
            0 => {
                self.global_requests += 1;
                self.server.output.extend(global_request(true));
            }
            1 => {
                self.unwanted += 1;
                let mut open = with_string(90, &[], b"forwarded-tcpip");
                open.extend([0; 12]);
                self.server.output.extend(server::frame(&open[5..]));
            }
            2 => self.server.output.extend(message(2, &[0])),
            3 => {
                if let Some(number) = number {
                    let client = self.server.peers[&number].client;
                    self.server.output.extend(request(client, "any", true));
                }
            }
            4 => {
                if let Some(number) = number {
                    self.cut = true;
                    self.server.close(number);
                }
            }
            abort => {
                if let Some(id) = self.some_flow(|_| true) {
                    // The last words of what is closed with bytes queued are no EOF.
                    self.flows.remove(&id);
                    if abort == 5 {
                        self.client.channels.abort(id);
                    } else {
                        self.client.channels.close(id);
                    }
                }
            }
        }
    }

    fn check_end(&self) {
        let channels = &self.client.channels;
        assert_eq!((channels.queued(), channels.budget().promised()), (0, 0));
        assert_eq!(channels.refused(), self.refused);
        assert!(self.flows.is_empty());
        assert_eq!(self.server.global_replies, self.global_requests);
        assert_eq!(self.server.refused_opens, self.unwanted);
        if !self.plan.with_cuts {
            let refused = usize::try_from(self.refused).unwrap();
            assert_eq!(self.complete + refused, self.opened);
        }
    }
}

fn run(plan: Plan) {
    let mut run = Run::new(plan);
    for _ in 0..MAX_STEPS {
        run.step();
        if run.is_done() {
            return run.check_end();
        }
    }
    panic!("somebody waits for ever: {:?}", run.flows);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_once_and_in_order(
        seed in any::<u64>(),
        channels in 1..60_usize,
        bytes in prop_oneof![Just(1000_usize), Just(300_000)],
        with_cuts in any::<bool>(),
        max_queued in prop_oneof![Just(10_000_usize), Just(4 << 20)],
    ) {
        run(Plan { seed, channels, bytes, with_cuts, max_queued });
    }
}

/// Where the server's first window is as small as can be.
#[test]
fn a_window_of_one_byte() {
    run(Plan {
        seed: 16_249_995_937_458_549_317,
        channels: 6,
        bytes: 1000,
        with_cuts: false,
        max_queued: 10_000,
    });
}

#[test]
fn a_transfer_longer_than_the_windows() {
    run(Plan {
        seed: 1,
        channels: 3,
        bytes: 8 << 20,
        with_cuts: false,
        max_queued: 4 << 20,
    });
}
