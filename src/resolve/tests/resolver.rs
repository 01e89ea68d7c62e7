use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::frame::Deframer;
use super::super::question::Way;
use super::super::resolver::{Config, Reply, Resolver, Taken};
use super::super::view::AsItIs;
use super::super::zones::{Side, Zones};
use super::*;

const API: &str = "api.corp.internal";
/// Outside the zone.
const OTHER: &str = "www.example.com";

/// What happens to a question, which is given as it was sent.
type Happens = fn(&mut Rig, &[u8]) -> Vec<Reply<u32>>;

/// Two far resolvers, 0 and 1, for the names of a zone, and a near one, 2; in virtual time.
struct Rig {
    resolver: Resolver<u32>,
    now: Instant,
}

impl Rig {
    fn new(far: usize, near: usize) -> Self {
        let zones = Zones::below(&["corp.internal"], &[]).unwrap();
        Self {
            resolver: Resolver::new(Config {
                zones,
                view: Arc::new(AsItIs),
                pools: None,
                far,
                near,
            }),
            now: Instant::now(),
        }
    }

    fn ask(&mut self, client: u32, message: &[u8]) -> Taken<u32> {
        self.resolver.ask(self.now, client, Way::Datagram, message)
    }

    fn waits(&mut self, client: u32, message: &[u8]) {
        assert_eq!(self.ask(client, message), Taken::Waits);
    }

    fn at_once(&mut self, message: &[u8]) -> Vec<u8> {
        match self.ask(0, message) {
            Taken::Answered(reply) => reply.message,
            other => panic!("{other:?}"),
        }
    }

    /// What is written to `server` now.
    fn sent(&mut self, server: usize) -> Vec<Vec<u8>> {
        let mut deframer = Deframer::default();
        while let Some(frame) = self.resolver.next_frame(server) {
            deframer.push(&frame);
        }
        std::iter::from_fn(|| deframer.next_message()).collect()
    }

    fn says(&mut self, server: usize, message: &[u8]) -> Vec<Reply<u32>> {
        self.resolver.handle_message(self.now, server, message)
    }

    fn lost(&mut self, server: usize, was_open: bool) -> Vec<Reply<u32>> {
        self.resolver.handle_lost(self.now, server, was_open)
    }

    /// Lets time go by, with all that is due in it.
    fn pass(&mut self, millis: u64) -> Vec<Reply<u32>> {
        let end = self.now + Duration::from_millis(millis);
        let mut replies = Vec::new();
        while let Some(due) = self.resolver.poll_timeout().filter(|due| *due <= end) {
            self.now = due;
            replies.extend(self.resolver.handle_timeout(due));
        }
        self.now = end;
        replies
    }
}

fn codes(replies: &[Reply<u32>]) -> Vec<(u32, u8)> {
    let code = |reply: &Reply<u32>| (reply.client, code(&reply.message));
    replies.iter().map(code).collect()
}

#[test]
fn who_asks_the_same_gets_the_same_answer_each_in_their_own_words() {
    let mut rig = Rig::new(1, 0);
    let asked = [
        query(7, API, A),
        query(8, "API.corp.internal", A),
        query(7, API, A),
    ];
    for (client, message) in asked.iter().enumerate() {
        rig.waits(client as u32, message);
    }
    let sent = rig.sent(0);
    assert_eq!(sent.len(), 1);
    let replies = rig.says(0, &address(&sent[0], 60, 2));
    assert_eq!(replies.len(), 3);
    for (reply, asked) in replies.iter().zip(&asked) {
        assert_eq!(id(&reply.message), id(asked));
        assert_eq!(section(&reply.message), section(asked));
        assert_eq!(reply.message[reply.message.len() - 4..], [10, 0, 1, 2]);
    }
    assert_eq!(rig.resolver.counters().joined, 2);
}

/// A server's message may be longer than what it says: nobody sees the rest, now or later.
#[test]
fn what_stands_behind_an_answer_goes_no_further() {
    let mut rig = Rig::new(1, 0);
    rig.waits(0, &query(7, API, A));
    let sent = rig.sent(0);
    let good = address(&sent[0], 60, 2);
    let replies = rig.says(0, &[&good[..], b"anything"].concat());
    assert_eq!(replies[0].message.len(), good.len());
    assert_eq!(rig.at_once(&query(8, API, A)).len(), good.len());
    assert_eq!(rig.resolver.counters().trailing, 1);
    rig.waits(0, &query(9, "b.corp.internal", A));
    let sent = rig.sent(0);
    rig.says(0, &address(&sent[0], 60, 2));
    assert_eq!(rig.resolver.counters().trailing, 1);
}

#[test]
fn a_known_answer_counts_down_and_is_asked_for_again_at_its_end() {
    let mut rig = Rig::new(1, 0);
    let message = query(7, API, A);
    rig.waits(0, &message);
    let sent = rig.sent(0);
    rig.says(0, &address(&sent[0], 60, 2));
    rig.pass(41_000);
    let known = rig.at_once(&query(9, API, A));
    assert_eq!((id(&known), known[known.len() - 7]), (9, 19));
    assert!(rig.sent(0).is_empty());
    rig.pass(19_000);
    rig.waits(0, &message);
    assert_eq!(rig.sent(0).len(), 1);
    assert_eq!(rig.resolver.counters().remembered, 1);
}

#[test]
fn that_there_is_nothing_is_known_as_long_as_the_soa_record_says() {
    let mut rig = Rig::new(1, 0);
    let message = query(7, "gone.corp.internal", A);
    rig.waits(0, &message);
    let sent = rig.sent(0);
    let nothing = answer(&sent[0], NXDOMAIN, [&[], &[soa(3600, 30)], &[]]);
    assert_eq!(codes(&rig.says(0, &nothing)), [(0, NXDOMAIN)]);
    rig.pass(29_000);
    assert_eq!(code(&rig.at_once(&message)), NXDOMAIN);
    rig.pass(1_000);
    rig.waits(0, &message);
}

/// In another network other name servers know other names.
#[test]
fn what_near_servers_say_is_forgotten_with_them_and_soon_where_there_is_nothing() {
    let mut rig = Rig::new(1, 1);
    let hear = |rig: &mut Rig, server: usize, name: &str, code: u8| {
        rig.waits(0, &query(7, name, A));
        let sent = rig.sent(server);
        let answer = match code {
            NOERROR => address(&sent[0], 3600, 2),
            code => answer(&sent[0], code, [&[], &[soa(3600, 3600)], &[]]),
        };
        rig.says(server, &answer);
    };
    hear(&mut rig, 0, API, NOERROR);
    hear(&mut rig, 0, "gone.corp.internal", NXDOMAIN);
    hear(&mut rig, 1, OTHER, NOERROR);
    hear(&mut rig, 1, "gone.example.com", NXDOMAIN);
    rig.pass(59_000);
    assert_eq!(
        code(&rig.at_once(&query(7, "gone.example.com", A))),
        NXDOMAIN
    );
    rig.pass(1_000);
    hear(&mut rig, 1, "gone.example.com", NOERROR);
    rig.waits(0, &query(7, "slow.example.com", A));
    let slow = rig.sent(1);
    rig.resolver.forget(Side::Near);
    // Who asks has the old one's answer; nobody else has.
    let replies = rig.says(1, &address(&slow[0], 3600, 2));
    assert_eq!(codes(&replies), [(0, NOERROR)]);
    for name in [OTHER, "gone.example.com", "slow.example.com"] {
        hear(&mut rig, 1, name, NOERROR);
        rig.at_once(&query(7, name, A));
    }
    assert_eq!(code(&rig.at_once(&query(7, API, A))), NOERROR);
    assert_eq!(
        code(&rig.at_once(&query(7, "gone.corp.internal", A))),
        NXDOMAIN
    );
}

#[test]
fn answers_come_in_any_order_and_are_matched_on_number_question_and_server() {
    let mut rig = Rig::new(2, 0);
    let names: Vec<String> = (0..5).map(|n| format!("n{n}.corp.internal")).collect();
    for (client, name) in names.iter().enumerate() {
        rig.waits(client as u32, &query(7, name, A));
    }
    let sent = rig.sent(0);
    assert_eq!(sent.len(), 5);
    // Another's number, another server, none of ours, no answer, cut short.
    let mut swapped = address(&sent[0], 60, 66);
    swapped[..2].copy_from_slice(&sent[1][..2]);
    let mut unknown = address(&sent[0], 60, 66);
    unknown[..2].copy_from_slice(&0x7777_u16.to_be_bytes());
    let good = address(&sent[0], 60, 66);
    for (server, lie) in [
        (0, &swapped[..]),
        (0, &unknown),
        (1, &good),
        (0, &sent[0]),
        (0, &good[..good.len() - 1]),
        (0, &good[..1]),
        (0, &[]),
    ] {
        assert_eq!(rig.says(server, lie), []);
    }
    assert_eq!(rig.resolver.counters().mismatched, 7);
    for client in [3, 0, 4, 1, 2] {
        let replies = rig.says(0, &address(&sent[client], 60, client as u8));
        assert_eq!(replies[0].client, client as u32);
        assert_eq!(replies[0].message.last(), Some(&(client as u8)));
    }
    // Once is enough.
    assert_eq!(rig.says(0, &address(&sent[3], 60, 66)), []);
}

#[test]
fn a_lost_stream_has_its_questions_asked_again_on_a_fresh_one_in_order() {
    let mut rig = Rig::new(1, 0);
    for client in 0..3 {
        rig.waits(client, &query(7, &format!("n{client}.corp.internal"), A));
    }
    let first = rig.sent(0);
    rig.waits(3, &query(7, "n3.corp.internal", A));
    assert_eq!(rig.lost(0, true), []);
    let second = rig.sent(0);
    assert_eq!(second.len(), 4);
    let sections: Vec<&[u8]> = first.iter().map(|message| section(message)).collect();
    for (at, section_before) in sections.iter().enumerate() {
        assert_eq!(section(&second[at]), *section_before);
    }
    // Lost twice without a word: the next one does no better. The last question was lost once.
    assert_eq!(codes(&rig.lost(0, true)).len(), 3);
    assert_eq!(rig.sent(0).len(), 1);
}

/// As servers do that end a stream after so many answers.
#[test]
fn a_server_that_answers_some_on_each_stream_answers_all() {
    let mut rig = Rig::new(1, 0);
    for client in 0..300 {
        rig.waits(client, &query(7, &format!("n{client}.corp.internal"), A));
    }
    let mut replies = 0;
    for _ in 0..300 {
        let sent = rig.sent(0);
        assert!(sent.len() <= 128);
        let Some(one) = sent.first() else { break };
        replies += rig.says(0, &address(one, 60, 1)).len();
        assert_eq!(rig.lost(0, true), []);
    }
    assert_eq!(replies, 300);
}

#[test]
fn where_one_cannot_be_reached_the_next_is_asked_and_first_from_then_on() {
    let mut rig = Rig::new(2, 1);
    rig.waits(0, &query(7, API, A));
    assert_eq!(rig.lost(0, false), []);
    let sent = rig.sent(1);
    assert_eq!(
        codes(&rig.says(1, &address(&sent[0], 60, 2))),
        [(0, NOERROR)]
    );
    rig.waits(1, &query(7, "b.corp.internal", A));
    assert!(!rig.resolver.has_frames(0) && rig.resolver.has_frames(1));
    assert_eq!(rig.lost(1, false), []);
    // The other one is tried all the same before it is given up.
    assert_eq!(codes(&rig.lost(0, false)), [(1, SERVFAIL)]);
    rig.pass(11_000);
    rig.waits(2, &query(7, "c.corp.internal", A));
    assert!(rig.resolver.has_frames(0), "it is trusted again");
    assert!(!rig.resolver.has_frames(2), "nothing leaks");
}

#[test]
fn a_silent_server_is_given_up_and_the_next_one_asked_within_the_clients_patience() {
    let mut rig = Rig::new(2, 0);
    rig.waits(0, &query(7, API, A));
    let first = rig.sent(0);
    assert_eq!(rig.pass(1_499), []);
    assert!(!rig.resolver.take_silent(0) && !rig.resolver.has_frames(1));
    assert_eq!(rig.pass(1), []);
    assert_eq!(rig.sent(1).len(), 1);
    // A late answer counts.
    assert!(!rig.resolver.take_silent(0));
    assert_eq!(
        codes(&rig.says(0, &address(&first[0], 60, 2))),
        [(0, NOERROR)]
    );
    assert!(!rig.resolver.take_silent(0));
    rig.waits(1, &query(7, "b.corp.internal", A));
    rig.sent(0);
    rig.pass(1_500);
    let second = rig.sent(1);
    rig.says(1, &address(&second[0], 60, 2));
    assert!(rig.resolver.take_silent(0) && !rig.resolver.take_silent(0));
    rig.waits(1, &query(7, "c.corp.internal", A));
    assert_eq!(codes(&rig.pass(4_500)), [(1, SERVFAIL)]);
    assert_eq!(rig.resolver.poll_timeout(), None);
}

/// Asked again on a fresh stream it would only begin anew.
#[test]
fn a_slow_server_is_waited_for_where_there_is_no_other() {
    let mut rig = Rig::new(1, 0);
    for (client, name) in [API, "b.corp.internal", "c.corp.internal"]
        .iter()
        .enumerate()
    {
        rig.waits(client as u32, &query(7, name, A));
        let sent = rig.sent(0);
        assert_eq!(rig.pass(4_000), []);
        assert!(!rig.resolver.take_silent(0), "{name}");
        let replies = rig.says(0, &address(&sent[0], 60, 2));
        assert_eq!(codes(&replies), [(client as u32, NOERROR)]);
    }
    // The last of several as well, which is asked 1.5 s after the first.
    let mut rig = Rig::new(2, 0);
    rig.waits(0, &query(7, API, A));
    rig.sent(0);
    rig.pass(1_500);
    let sent = rig.sent(1);
    assert_eq!(rig.pass(2_500), []);
    assert!(!rig.resolver.take_silent(0));
    assert_eq!(
        codes(&rig.says(1, &address(&sent[0], 60, 2))),
        [(0, NOERROR)]
    );
    assert!(rig.resolver.take_silent(0) && !rig.resolver.take_silent(1));
    // A silent one is given up after all.
    let mut rig = Rig::new(1, 0);
    rig.waits(0, &query(7, API, A));
    rig.sent(0);
    assert_eq!(codes(&rig.pass(4_500)), [(0, SERVFAIL)]);
    assert!(rig.resolver.take_silent(0));
}

/// One slow question says nothing of a server that answers others.
#[test]
fn a_server_that_answers_others_is_not_silent() {
    let mut rig = Rig::new(1, 0);
    rig.waits(0, &query(7, "slow.corp.internal", A));
    let slow = rig.sent(0);
    for client in 1..=5 {
        rig.pass(250);
        rig.waits(client, &query(7, &format!("n{client}.corp.internal"), A));
        let sent = rig.sent(0);
        rig.says(0, &address(&sent[0], 60, 2));
    }
    rig.pass(500);
    assert!(!rig.resolver.take_silent(0));
    rig.pass(2_000);
    assert_eq!(
        codes(&rig.says(0, &address(&slow[0], 60, 2))),
        [(0, NOERROR)]
    );
}

#[test]
fn where_one_fails_the_next_may_know_and_else_its_failure_is_the_answer() {
    let mut rig = Rig::new(2, 0);
    rig.waits(0, &query(7, API, A));
    let sent = rig.sent(0);
    assert_eq!(rig.says(0, &answer(&sent[0], REFUSED, [&[], &[], &[]])), []);
    let sent = rig.sent(1);
    let replies = rig.says(1, &answer(&sent[0], SERVFAIL, [&[], &[], &[]]));
    assert_eq!(codes(&replies), [(0, SERVFAIL)]);
    // Nothing of it is remembered.
    rig.waits(0, &query(7, API, A));
    let sent = rig.sent(0);
    assert_eq!(rig.says(0, &answer(&sent[0], REFUSED, [&[], &[], &[]])), []);
    assert_eq!(codes(&rig.lost(1, false)), [(0, REFUSED)]);
}

#[test]
fn a_failure_waits_for_who_was_asked_meanwhile() {
    let mut rig = Rig::new(2, 0);
    rig.waits(0, &query(7, API, A));
    let first = rig.sent(0);
    rig.pass(1_500);
    let second = rig.sent(1);
    assert_eq!(
        rig.says(0, &answer(&first[0], SERVFAIL, [&[], &[], &[]])),
        []
    );
    assert_eq!(
        codes(&rig.says(1, &address(&second[0], 60, 2))),
        [(0, NOERROR)]
    );
}

#[test]
fn a_slow_server_is_waited_for_where_who_was_asked_meanwhile_fails() {
    let refuses = |rig: &mut Rig, sent: &[u8]| rig.says(1, &answer(sent, REFUSED, [&[], &[], &[]]));
    let is_out_of_reach = |rig: &mut Rig, _: &[u8]| rig.lost(1, false);
    let breaks = |rig: &mut Rig, _: &[u8]| {
        rig.lost(1, true);
        rig.sent(1);
        rig.lost(1, true)
    };
    let failures: [Happens; 3] = [refuses, is_out_of_reach, breaks];
    for fails in failures {
        for last in [NOERROR, NXDOMAIN, SERVFAIL] {
            let mut rig = Rig::new(2, 0);
            rig.waits(0, &query(7, API, A));
            let slow = rig.sent(0);
            rig.pass(1_500);
            let sent = rig.sent(1);
            assert_eq!(fails(&mut rig, &sent[0]), []);
            assert_eq!(rig.pass(500), []);
            assert!(!rig.resolver.take_silent(0));
            let replies = rig.says(0, &answer(&slow[0], last, [&[], &[], &[]]));
            assert_eq!(codes(&replies), [(0, last)]);
        }
    }
    // It says nothing, and is asked last from then on: who refused has said something.
    let mut rig = Rig::new(2, 0);
    rig.waits(0, &query(7, API, A));
    rig.sent(0);
    rig.pass(1_500);
    let sent = rig.sent(1);
    assert_eq!(refuses(&mut rig, &sent[0]), []);
    assert_eq!(codes(&rig.pass(3_000)), [(0, REFUSED)]);
    assert!(rig.resolver.take_silent(0) && !rig.resolver.take_silent(1));
    rig.waits(1, &query(8, "b.corp.internal", A));
    assert_eq!((rig.sent(0).len(), rig.sent(1).len()), (0, 1));
    // Its stream is lost: it is asked once more, then nobody is left.
    let mut rig = Rig::new(2, 0);
    rig.waits(0, &query(7, API, A));
    rig.sent(0);
    rig.pass(1_500);
    rig.sent(1);
    assert_eq!(rig.lost(1, false), []);
    assert_eq!(rig.lost(0, true), []);
    assert_eq!(rig.sent(0).len(), 1);
    assert_eq!(codes(&rig.lost(0, true)), [(0, SERVFAIL)]);
}

#[test]
fn each_name_is_asked_on_its_own_side_and_never_on_the_other() {
    let mut rig = Rig::new(1, 1);
    rig.waits(0, &query(7, API, A));
    rig.waits(1, &query(7, OTHER, A));
    assert_eq!(section(&rig.sent(0)[0]), section(&query(7, API, A)));
    assert_eq!(section(&rig.sent(1)[0]), section(&query(7, OTHER, A)));
    assert_eq!(codes(&rig.lost(0, false)), [(0, SERVFAIL)]);
    assert_eq!(codes(&rig.lost(1, false)), [(1, SERVFAIL)]);
    assert!(rig.sent(0).is_empty() && rig.sent(1).is_empty());
    let mut rig = Rig::new(1, 0);
    assert_eq!(code(&rig.at_once(&query(7, OTHER, A))), SERVFAIL);
}

#[test]
fn a_flood_is_answered_and_does_not_grow() {
    let mut rig = Rig::new(1, 0);
    let mut failed = 0;
    for client in 0..20_000 {
        match rig.ask(client, &query(7, &format!("n{client}.corp.internal"), A)) {
            Taken::Waits => {}
            Taken::Answered(reply) => {
                assert_eq!(code(&reply.message), SERVFAIL);
                failed += 1;
            }
            Taken::Noise => panic!(),
        }
    }
    assert_eq!(failed, 20_000 - 4096);
    assert_eq!(rig.sent(0).len(), 128);
    // The same question, over and over.
    let joined = (0..2000)
        .filter(|client| rig.ask(*client, &query(7, "n1.corp.internal", A)) == Taken::Waits);
    assert_eq!(joined.count(), 255);
    assert_eq!(rig.pass(4_500).len(), 4096 + 255);
    assert!(rig.resolver.take_silent(0));
    rig.lost(0, true);
    rig.waits(0, &query(7, API, A));
    assert_eq!(rig.sent(0).len(), 1);
}

/// Questions that a server drops must not take the places of those that it answers.
#[test]
fn what_a_server_never_answers_makes_room() {
    let mut rig = Rig::new(1, 0);
    for client in 0..127 {
        rig.waits(client, &query(7, &format!("hole{client}.corp.internal"), A));
    }
    assert_eq!(rig.sent(0).len(), 127);
    for client in 200..220 {
        rig.waits(client, &query(7, &format!("n{client}.corp.internal"), A));
        let sent = rig.sent(0);
        assert_eq!(rig.says(0, &address(&sent[0], 60, 2)).len(), 1);
        rig.pass(300);
    }
    assert!(!rig.resolver.take_silent(0));
    for client in 300..428 {
        rig.waits(client, &query(7, &format!("m{client}.corp.internal"), A));
    }
    rig.sent(0);
    rig.pass(4_500);
    rig.waits(500, &query(7, API, A));
    assert_eq!(rig.sent(0).len(), 1);
}

#[test]
fn noise_is_counted_and_what_is_unfit_is_answered() {
    let mut rig = Rig::new(1, 0);
    assert_eq!(rig.ask(0, &[7; 5]), Taken::Noise);
    let mut update = query(7, API, A);
    update[2] |= 5 << 3;
    assert_eq!(code(&rig.at_once(&update)), 4);
    let counters = rig.resolver.counters();
    assert_eq!((counters.noise, counters.questions), (1, 0));
}

/// What may happen, in any order.
#[derive(Clone, Debug)]
enum Event {
    Ask(u8, u8),
    Send(u8),
    Answer(u8, prop::sample::Index, u8),
    Lose(u8, bool),
    Pass(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (any::<u8>(), 0..40_u8).prop_map(|(client, name)| Event::Ask(client, name)),
        3 => (0..3_u8).prop_map(Event::Send),
        3 => (0..3_u8, any::<prop::sample::Index>(), 0..4_u8).prop_map(|(server, which, code)| Event::Answer(server, which, code)),
        1 => (0..3_u8, any::<bool>()).prop_map(|(server, was_open)| Event::Lose(server, was_open)),
        1 => (0..3000_u16).prop_map(Event::Pass),
    ]
}

proptest! {
    /// Whatever happens, everybody who waits is answered once, within the client's patience, and names of the zone stay on
    /// the far side.
    #[test]
    fn everybody_is_answered_once(events in prop::collection::vec(event(), 1..200)) {
        let mut rig = Rig::new(2, 1);
        let (mut wait, mut replies) = (0, Vec::new());
        let mut sent: [Vec<Vec<u8>>; 3] = Default::default();
        for event in events {
            match event {
                Event::Ask(client, number) => {
                    let name = if number % 2 == 0 { format!("n{number}.corp.internal") } else { format!("n{number}.org") };
                    match rig.ask(client.into(), &query(7, &name, A)) {
                        Taken::Waits => wait += 1,
                        Taken::Answered(_) => {}
                        Taken::Noise => prop_assert!(false),
                    }
                }
                Event::Send(server) => {
                    let messages = rig.sent(server.into());
                    for message in &messages {
                        let is_far = section(message).windows(4).any(|part| part == b"corp");
                        prop_assert_eq!(is_far, server < 2);
                    }
                    sent[usize::from(server)].extend(messages);
                }
                Event::Answer(server, which, code) => {
                    let under_way = &mut sent[usize::from(server)];
                    if !under_way.is_empty() {
                        let asked = under_way.remove(which.index(under_way.len()));
                        let message = answer(&asked, code, [&[record(A, 1, &[10, 0, 0, 1])], &[], &[]]);
                        replies.extend(rig.says(server.into(), &message));
                    }
                }
                Event::Lose(server, was_open) => {
                    sent[usize::from(server)].clear();
                    replies.extend(rig.lost(server.into(), was_open));
                }
                Event::Pass(millis) => replies.extend(rig.pass(millis.into())),
            }
            prop_assert!(replies.len() <= wait);
        }
        replies.extend(rig.pass(4_500));
        prop_assert_eq!(replies.len(), wait);
        prop_assert_eq!(rig.resolver.poll_timeout(), None);
    }
}
