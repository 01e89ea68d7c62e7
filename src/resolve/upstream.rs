//! The stream to one resolver: opened when there is a question, kept while it lasts.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::frame::Deframer;
use super::proxy::{Proxy, Respond};
use crate::net::{ByteReader, ByteWriter, Carrier, Source};

/// How long opening may take; by then who asked has been told that it failed.
const OPEN: Duration = Duration::from_secs(5);
/// How long a resolver may take to accept questions: one that answers and does not read would wait for us as we for it.
const WRITE: Duration = Duration::from_secs(3);
/// Bytes of questions that are written at once.
const BURST: usize = 32 << 10;

/// Asks server `number` through `carrier`, in the name of `source`.
pub(super) async fn keep<R: Respond, C: Carrier>(
    proxy: &Proxy<R>,
    number: usize,
    carrier: &C,
    source: Source,
) -> Infallible {
    let server = &proxy.servers[number];
    loop {
        while !proxy.with(|resolver| resolver.has_frames(number)) {
            server.bell.notified().await;
        }
        let opened = timeout(OPEN, carrier.open(source, server.target)).await;
        let was_open = match opened {
            Ok(Ok((reader, writer))) => {
                converse(proxy, number, reader, writer).await;
                true
            }
            Ok(Err(error)) => {
                tracing::debug!("name server {}: {error}", server.target);
                false
            }
            Err(_) => {
                tracing::debug!("name server {} does not answer", server.target);
                false
            }
        };
        proxy.lost(number, was_open);
    }
}

/// Until the stream ends, or is given up.
async fn converse<R: Respond>(
    proxy: &Proxy<R>,
    number: usize,
    mut reader: impl ByteReader,
    mut writer: impl ByteWriter,
) {
    let bell = &proxy.servers[number].bell;
    let mut deframer = Deframer::default();
    // What an earlier stream was given up for says nothing of this one.
    proxy.with(|resolver| resolver.take_silent(number));
    loop {
        let burst = burst(proxy, number);
        if !burst.is_empty() {
            let written = timeout(WRITE, writer.write(burst)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
            writer.flush();
        }
        tokio::select! {
            piece = reader.read() => match piece {
                Ok(Some(piece)) => proxy.heard(number, &mut deframer, &piece),
                Ok(None) | Err(_) => return,
            },
            () = bell.notified() => {
                if proxy.with(|resolver| resolver.take_silent(number)) {
                    return;
                }
            }
        }
    }
}

fn burst<R: Respond>(proxy: &Proxy<R>, number: usize) -> Bytes {
    let mut burst = Vec::new();
    proxy.with(|resolver| {
        while burst.len() < BURST
            && let Some(frame) = resolver.next_frame(number)
        {
            burst.extend(frame);
        }
    });
    burst.into()
}
