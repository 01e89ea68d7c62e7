//! The control socket until it carries channels: a greeting both ways, and one request (OpenSSH's PROTOCOL.mux).

use std::io;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::client::SshError;
use crate::carrier::failure::harmless;

const VERSION: u32 = 4;
const HELLO: u32 = 0x0000_0001;
const PROXY: u32 = 0x1000_000f;
const PROXY_GRANTED: u32 = 0x8000_000f;
const PERMISSION_DENIED: u32 = 0x8000_0002;
const FAILURE: u32 = 0x8000_0003;
const REQUEST: u32 = 0;

/// Longer than anything that is said here, in bytes.
const MAX_MESSAGE: u32 = 16 * 1024;

/// Makes the socket carry channels. Nothing of what follows is read.
///
/// # Errors
/// [`SshError::Socket`] where it does not.
pub(super) async fn proxy(socket: &mut UnixStream) -> Result<(), SshError> {
    converse(socket)
        .await
        .map_err(|error| SshError::Socket(error.to_string()))
}

async fn converse(socket: &mut UnixStream) -> io::Result<()> {
    say(socket, &[HELLO, VERSION]).await?;
    let mut hello = hear(socket).await?;
    if hello.try_get_u32() != Ok(HELLO) || hello.try_get_u32() != Ok(VERSION) {
        return Err(io::Error::other("it greets in another version than 4"));
    }
    say(socket, &[PROXY, REQUEST]).await?;
    let mut answer = hear(socket).await?;
    match (answer.try_get_u32(), answer.try_get_u32()) {
        (Ok(PROXY_GRANTED), Ok(REQUEST)) => Ok(()),
        (Ok(PERMISSION_DENIED | FAILURE), _) => {
            let text = answer.get(4..).unwrap_or_default();
            Err(io::Error::other(harmless(&String::from_utf8_lossy(text))))
        }
        _ => Err(io::Error::other("it knows no proxy mode")),
    }
}

async fn say(socket: &mut UnixStream, fields: &[u32]) -> io::Result<()> {
    let length = u32::try_from(fields.len() * 4).unwrap_or_default();
    let message = [&[length], fields].concat();
    let bytes: Vec<u8> = message
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect();
    socket.write_all(&bytes).await
}

async fn hear(socket: &mut UnixStream) -> io::Result<Bytes> {
    let length = socket.read_u32().await?;
    if length > MAX_MESSAGE {
        return Err(io::Error::other("its message is too long"));
    }
    let mut message = vec![0; usize::try_from(length).unwrap_or_default()];
    socket.read_exact(&mut message).await?;
    Ok(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `proxy` makes of a master that says this.
    async fn outcome(said: &[u32], text: &[u8]) -> Result<(), String> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = said.iter().flat_map(|field| field.to_be_bytes()).collect();
        theirs.write_all(&bytes).await.unwrap();
        theirs.write_all(text).await.unwrap();
        theirs.shutdown().await.unwrap();
        proxy(&mut ours).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_master_that_agrees() {
        // With an extension in its greeting, and the first bytes of a channel behind the answer.
        let said = [16, HELLO, 4, 0, 0, 8, PROXY_GRANTED, REQUEST];
        assert_eq!(outcome(&said, b"data").await, Ok(()));
    }

    #[tokio::test]
    async fn masters_that_do_not() {
        for (said, text, words) in [
            (&[][..], &b""[..], "end of file"),
            (&[8, HELLO, 3], b"", "version"),
            (&[8, HELLO, 4, u32::MAX], b"", "long"),
            (&[8, HELLO, 4, 16, FAILURE, 0, 4], b"nope", "nope"),
            (&[8, HELLO, 4, 4, 7], b"", "proxy"),
        ] {
            let error = outcome(said, text).await.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
