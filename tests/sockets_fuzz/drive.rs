//! Bytes as what a hostile client says: to the privileged part's socket, and to the control socket. Whatever they are, nothing
//! panics, the other end hears an answer or the end, and nothing is left.

use std::io::{IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tokio::sync::mpsc;
use underpass::app::control::{Order, Report, Server, protocol, report::FlowReport, server::Tells};
use underpass::os::helper::{greeted, serve};

/// What a client of ours says first.
pub(crate) const HELLO: &str =
    r#"{"protocol":6,"log":{"verbose":0,"quiet":true,"json":false,"plain":true}}"#;

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
    let client = std::thread::spawn(move || converse(&mut ours, &words));
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own");
            block_on(serve(theirs, None, None, std::future::pending())).unwrap();
            // Nobody asks any more, so nothing is there but what was before.
            let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            assert_eq!(devices.lines().count(), 3, "{devices}");
        });
        served.join().unwrap();
    });
    client.join().unwrap()
}

/// Says whole messages one by one, each after the answer to the last, and what is none at the end.
fn converse(socket: &mut UnixStream, mut words: &[u8]) -> Vec<String> {
    let mut devices = Vec::new();
    let mut kinds = Vec::from_iter(hear(socket, &mut devices));
    while let Some(length) = words.first_chunk() {
        let end = u32::from_be_bytes(*length) as usize + length.len();
        let Some((message, rest)) = words.split_at_checked(end) else {
            break;
        };
        words = rest;
        // It may have hung up.
        let _ = socket.write_all(message);
        kinds.extend(hear(socket, &mut devices));
    }
    let _ = socket.write_all(words);
    let _ = socket.shutdown(Shutdown::Write);
    kinds.extend(std::iter::from_fn(|| hear(socket, &mut devices)));
    kinds
}

/// The kind of the next answer, if there is one; a device that comes along is held.
fn hear(socket: &mut UnixStream, devices: &mut Vec<OwnedFd>) -> Option<String> {
    let mut length = [0; 4];
    let mut space = nix::cmsg_space!(RawFd);
    let mut pieces = [IoSliceMut::new(&mut length)];
    let flags = MsgFlags::MSG_WAITALL | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space), flags).ok()?;
    for control in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made it for us.
            #[allow(unsafe_code)]
            devices.push(unsafe { OwnedFd::from_raw_fd(raw[0]) });
        }
    }
    if message.bytes == 0 {
        return None;
    }
    assert_eq!(message.bytes, 4, "half an answer");
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut body).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    Some(match &answer {
        serde_json::Value::String(kind) => kind.clone(),
        other => other.as_object().unwrap().keys().next().unwrap().clone(),
    })
}

/// A run about which there is nothing to tell.
struct Nothing;

impl Tells for Nothing {
    fn report(&self) -> Report {
        Report::default()
    }

    fn flows(&self, _after: u64) -> (Vec<FlowReport>, Option<u64>) {
        (Vec::new(), None)
    }
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
        let server = Server::start(listener, Arc::new(Nothing), sender).unwrap();
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
