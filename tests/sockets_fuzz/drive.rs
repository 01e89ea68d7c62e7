//! Bytes as what a hostile client says: to the privileged part's socket, and to the control socket. Whatever they are, nothing
//! panics, the other end hears an answer or the end, and nothing is left.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sched::{CloneFlags, unshare};
use tokio::sync::mpsc;
use underpass::app::control::{Order, Report, Server, protocol};
use underpass::os::helper::{greeted, serve};

/// What a client of ours says first.
pub(crate) const HELLO: &str =
    r#"{"protocol":1,"log":{"verbose":0,"quiet":true,"json":false,"plain":true}}"#;

/// A message as the privileged part's socket carries it.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_be_bytes(), body].concat()
}

/// Says `bytes` as the first message; whether it was a greeting.
pub(crate) fn greet(bytes: &[u8]) -> bool {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(bytes).unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    greeted(&theirs).is_ok()
}

/// Says `bytes` to a privileged part that was greeted; the kinds of its answers. It works in a network of this thread's own.
pub(crate) fn ask_helper(bytes: &[u8]) -> Vec<String> {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let words = bytes.to_vec();
    let client = std::thread::spawn(move || {
        // It may hang up before it has heard everything.
        let _ = ours.write_all(&words);
        let _ = ours.shutdown(Shutdown::Write);
        let mut answers = Vec::new();
        let _ = ours.read_to_end(&mut answers);
        answers
    });
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own");
            block_on(serve(theirs, std::future::pending())).unwrap();
            // Nobody asks any more, so nothing is there but what was before.
            let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            assert_eq!(devices.lines().count(), 3, "{devices}");
        });
        served.join().unwrap();
    });
    kinds(&client.join().unwrap())
}

/// The kind of each answer, every one of which has to be one.
fn kinds(mut answers: &[u8]) -> Vec<String> {
    let mut kinds = Vec::new();
    while let Some((length, rest)) = answers.split_first_chunk() {
        let (body, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        answers = rest;
        let answer: serde_json::Value = serde_json::from_slice(body).unwrap();
        let kind = match &answer {
            serde_json::Value::String(kind) => kind.clone(),
            other => other.as_object().unwrap().keys().next().unwrap().clone(),
        };
        kinds.push(kind);
    }
    assert!(answers.is_empty(), "half an answer");
    kinds
}

/// Says `bytes` to a control socket; what it answers, and how many orders it took for its instance.
pub(crate) fn ask_control(bytes: &[u8]) -> (String, usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let words = bytes.to_vec();
    let client = std::thread::spawn(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        let _ = stream.write_all(&words);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    });
    let taken = AtomicUsize::new(0);
    let answer = block_on(async {
        let (sender, mut orders) = mpsc::channel(4);
        let server = Server::start(listener, Report::default, sender).unwrap();
        let count = async {
            while let Some(order) = orders.recv().await {
                taken.fetch_add(1, Ordering::Relaxed);
                if let Order::Reload(Some(reply)) = order {
                    reply.send(Ok("done".to_owned())).unwrap();
                }
            }
        };
        let heard = tokio::task::spawn_blocking(|| client.join().unwrap());
        let answer = tokio::select! {
            answer = heard => answer.unwrap(),
            () = count => unreachable!("the server holds the other end"),
        };
        server.end(0).await;
        answer
    });
    for line in answer.lines() {
        serde_json::from_str::<protocol::Answer>(line).unwrap();
    }
    (answer, taken.into_inner())
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}
