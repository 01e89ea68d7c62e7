use std::collections::HashSet;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::net::{Source, Target};
use crate::os::Processes;

const PATIENCE: Duration = Duration::from_secs(10);

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn key(source: &str, target: &str) -> FlowKey {
    FlowKey {
        source: Source(source.parse().unwrap()),
        target: Target(target.parse().unwrap()),
    }
}

#[test]
fn a_flow_is_written_with_its_owner_and_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let audit = Audit::open(
        &AuditLog::File(path.clone()),
        Lookup::here(Processes::default()),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let entry = audit.flow(
        Protocol::Tcp,
        FlowKey {
            source: Source(stream.local_addr().unwrap()),
            target: Target(stream.peer_addr().unwrap()),
        },
        None,
        None,
    );
    entry.add_up(7);
    entry.add_down(9);
    entry.end(&Outcome::Finished);
    let open = audit.flow(Protocol::Tcp, key("192.0.2.1:1", "192.0.2.2:2"), None, None);
    audit.stop("a test", Totals::default(), PATIENCE);
    let lines = lines(&path);
    let events: Vec<_> = lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        events,
        [
            "flow_start",
            "flow_end",
            "flow_start",
            "flow_end",
            "session_stop"
        ]
    );
    for line in &lines[..2] {
        assert_eq!(line["pid"], std::process::id());
        assert_eq!(line["uid"], nix::unistd::geteuid().as_raw());
        assert_eq!(line["flow"], 1);
    }
    assert_eq!(
        (&lines[1]["bytes_up"], &lines[1]["bytes_down"]),
        (&7.into(), &9.into())
    );
    assert!(lines[2]["uid"].is_null());
    assert_eq!(lines[3]["outcome"], "stopped");
    drop(open);
}

#[test]
fn ten_thousand_flows_at_once_lose_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let audit = Audit::open(
        &AuditLog::File(path.clone()),
        Lookup::here(Processes::default()),
    )
    .unwrap();
    for _ in 0..10_000 {
        audit
            .flow(Protocol::Tcp, key("192.0.2.1:1", "192.0.2.2:2"), None, None)
            .end(&Outcome::Finished);
    }
    audit.stop("a test", Totals::default(), PATIENCE);
    let lines = lines(&path);
    let lost = lines
        .iter()
        .filter(|line| line["event"] == "lines_lost")
        .count();
    let ends = lines.iter().filter(|line| line["event"] == "flow_end");
    let ended: HashSet<u64> = ends.map(|line| line["flow"].as_u64().unwrap()).collect();
    assert_eq!((lost, ended.len()), (0, 10_000));
}

#[test]
fn a_writer_that_does_not_come_along_costs_lines_and_no_time() {
    let (queue, events) = Queue::new();
    for _ in 0..40_000 {
        queue.offer(Event::Lost(SystemTime::now(), String::new()));
    }
    let taken = events.try_iter().count() as u64;
    assert_eq!(taken + queue.lost(), 40_000);
}

#[test]
fn the_end_waits_no_longer_than_it_may() {
    let (queue, _events) = Queue::new();
    queue.finish(Event::Look, Duration::from_millis(20));
}

/// A log in a directory of its own, and conversations in it.
fn conversations() -> (tempfile::TempDir, Arc<Audit>, Conversations) {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::File(dir.path().join("audit"));
    let audit = Arc::new(Audit::open(&log, Lookup::nowhere(Processes::default())).unwrap());
    let all = Conversations::new(Arc::clone(&audit));
    (dir, audit, all)
}

fn passed(source: &str, target: &str, bytes: u64) -> Passed {
    Passed {
        protocol: Protocol::Udp,
        source: source.parse().unwrap(),
        target: target.parse().unwrap(),
        bytes,
    }
}

#[test]
fn a_conversation_lasts_until_both_ends_are_silent() {
    let (dir, audit, all) = conversations();
    let (start, secs) = (Instant::now(), Duration::from_secs);
    let ends = ["10.9.0.1:9", "10.0.1.20:53"];
    let there = passed(ends[0], ends[1], 5);
    let back = passed(ends[1], ends[0], 11);
    all.passed(start, &there, None);
    all.passed(start + secs(50), &back, None);
    all.end_silent(start + secs(109));
    all.passed(start + secs(109), &there, None);
    all.end_silent(start + secs(169));
    // Whoever speaks first now has begun another one; another protocol is another one as well.
    all.passed(start + secs(170), &back, None);
    let echo = Passed {
        protocol: Protocol::Icmp,
        ..there
    };
    all.passed(start + secs(170), &echo, None);
    audit.stop("a test", Totals::default(), PATIENCE);
    let lines = lines(&dir.path().join("audit"));
    let seen: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "flow_end")
        .map(|end| {
            let text = |field: &str| end[field].as_str().unwrap().to_owned();
            let bytes = (end["bytes_up"].as_u64(), end["bytes_down"].as_u64());
            (text("protocol"), text("source"), text("outcome"), bytes)
        })
        .collect();
    let end = |protocol: &str, source: &str, outcome: &str, up, down| {
        let [protocol, source, outcome] = [protocol, source, outcome].map(str::to_owned);
        (protocol, source, outcome, (Some(up), Some(down)))
    };
    assert_eq!(seen[0], end("udp", ends[0], "finished", 10, 11));
    // What was open at the end is in no order.
    assert!(seen.contains(&end("udp", ends[1], "stopped", 11, 0)));
    assert!(seen.contains(&end("icmp", ends[0], "stopped", 5, 0)));
    assert_eq!(seen.len(), 3);
}

#[test]
fn conversations_are_bounded_and_the_longest_silent_one_goes() {
    let (dir, audit, all) = conversations();
    let start = Instant::now();
    let all_that_begin = 30_000;
    for number in 0..all_that_begin {
        let source = format!("10.9.{}.{}:9", number / 250, number % 250);
        let now = start + Duration::from_millis(number);
        all.passed(now, &passed(&source, "10.0.1.20:53", 1), None);
    }
    all.end_silent(start + Duration::from_secs(120));
    audit.stop("a test", Totals::default(), PATIENCE);
    let lines = lines(&dir.path().join("audit"));
    let ends = |outcome: &str| {
        let of = |line: &&Value| line["event"] == "flow_end" && line["outcome"] == outcome;
        lines.iter().filter(of).count() as u64
    };
    let lost = lines.iter().filter(|line| line["event"] == "lines_lost");
    let lost: u64 = lost.map(|line| line["count"].as_u64().unwrap()).sum();
    assert!(ends("finished") <= 16_384);
    assert!(ends("finished") + ends("stopped") + lost >= all_that_begin);
}
