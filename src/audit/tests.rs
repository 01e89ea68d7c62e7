use std::collections::HashSet;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

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
    let open = audit.flow(key("192.0.2.1:1", "192.0.2.2:2"), None, None);
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
            .flow(key("192.0.2.1:1", "192.0.2.2:2"), None, None)
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
    queue.offer(Event::Reopen);
    assert_eq!(taken + queue.lost(), 40_000);
}

#[test]
fn the_end_waits_no_longer_than_it_may() {
    let (queue, _events) = Queue::new();
    queue.finish(Event::Reopen, Duration::from_millis(20));
}
