//! A command on the server as a stream, over both carriers against a real sshd on loopback.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use underpass::carrier::{AnyCarrier, Link, NoPrompter};
use underpass::net::{ByteReader, ByteWriter, OpenFailure};
use underpass::plan::{CarrierKind, CarrierPlan};

use crate::rig::{Sshd, read_all};

async fn connect(sshd: &Sshd, kind: CarrierKind) -> AnyCarrier {
    let carrier = CarrierPlan {
        kind,
        why: "a test".into(),
        client: sshd.client(&[]),
    };
    let plan = sshd.plan();
    let carrier = AnyCarrier::connect(&carrier, &plan, Arc::new(NoPrompter));
    carrier.await.unwrap()
}

/// bash reads its user's start-up file where it seems to be the first shell of a connection: none of these tests' business.
const NO_RC: &str = "SetEnv SHLVL=2";

const BOTH: [CarrierKind; 2] = [CarrierKind::Russh, CarrierKind::Openssh];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_a_stream_both_ways() {
    let sshd = Sshd::start(NO_RC);
    for kind in BOTH {
        let carrier = connect(&sshd, kind).await;
        // What it says on stderr is none of its output.
        let command = "echo never >&2; read line; echo \"<$line>\"; exec cat";
        let (mut reader, mut writer) = carrier.open_exec(command).await.unwrap();
        writer.write(Bytes::from_static(b"first\n")).await.unwrap();
        writer.flush();
        assert_eq!(reader.read().await.unwrap().unwrap(), "<first>\n");
        // Larger than any window.
        let sent: Vec<u8> = (0..5_000_000_u32).map(|i| (i ^ (i >> 8)) as u8).collect();
        let writing = async {
            for chunk in sent.chunks(40_000) {
                writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            writer.finish().await.unwrap();
        };
        let (got, ()) = tokio::join!(read_all(&mut reader), writing);
        assert!(got.unwrap() == sent, "{kind:?}");
        // Much on stderr, and no output at all: it ends all the same.
        let much = "i=0; while [ $i -lt 3000 ]; do echo 1234567890123456789012345678901234567890 >&2; i=$((i+1)); done";
        let (mut reader, _writer) = carrier.open_exec(much).await.unwrap();
        let end = timeout(Duration::from_secs(30), read_all(&mut reader)).await;
        assert_eq!(end.unwrap(), Ok(Vec::new()), "{kind:?}");
        carrier.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_ends_with_its_stream() {
    let sshd = Sshd::start(NO_RC);
    for kind in BOTH {
        let carrier = connect(&sshd, kind).await;
        let told = sshd.path("told");
        let command = format!("echo up; cat >/dev/null; echo over > {}", told.display());
        let (mut reader, writer) = carrier.open_exec(&command).await.unwrap();
        assert_eq!(reader.read().await.unwrap().unwrap(), "up\n");
        drop((reader, writer));
        let ended = async {
            while !told.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), ended).await.unwrap();
        std::fs::remove_file(told).unwrap();
        carrier.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_command_runs_that_is_said() {
    let sshd = Sshd::start("MaxSessions 0");
    for kind in BOTH {
        let carrier = connect(&sshd, kind).await;
        let error = carrier.open_exec("true").await.err().unwrap();
        assert_eq!(error.failure, OpenFailure::Prohibited, "{kind:?}");
        assert!(error.text.contains("runs no commands"), "{error}");
        carrier.shutdown().await;
    }
}
