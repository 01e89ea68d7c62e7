//! What the server may say to us: its host key, refusals, goodbyes. It may open nothing on our side.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, ChannelOpenFailure, Names};
use tracing::info;

use super::host_key::{Accepted, HostKeyCheck, Offered};
use super::load::Load;
use super::reason;
use crate::carrier::TO_PERSON;
use crate::carrier::error::{HostKeyError, LostReason};
use crate::carrier::failure::{harmless, harmless_line};

/// Lines of banners (RFC 4252 section 5.4) that are shown of one login.
const BANNER_LINES: usize = 50;

/// What ends a session: russh's own error, or a host key that is not accepted.
#[derive(Debug)]
pub(super) enum SessionError {
    Ssh(russh::Error),
    HostKey(HostKeyError),
}

impl From<russh::Error> for SessionError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

/// What the handshake told, for the log and for the login.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// A person is being asked: no timeout runs meanwhile.
    pub(super) asking: AtomicBool,
    /// The key that was accepted.
    pub(super) host_key: OnceLock<Accepted>,
    /// The cipher towards the server, as SSH names it.
    pub(super) cipher: OnceLock<String>,
}

/// russh's callbacks for one connection.
pub(super) struct ClientHandler {
    check: HostKeyCheck,
    handshake: Arc<Handshake>,
    load: Arc<Load>,
    /// Lines of banners shown so far.
    banner_lines: usize,
}

impl ClientHandler {
    pub(super) fn new(check: HostKeyCheck, handshake: Arc<Handshake>, load: Arc<Load>) -> Self {
        Self {
            check,
            handshake,
            load,
            banner_lines: 0,
        }
    }
}

impl Drop for ClientHandler {
    /// The session task is over, whatever ended it: not every end comes through `disconnected`.
    fn drop(&mut self) {
        self.load
            .set_lost(LostReason::Broken("the session was ended".to_owned()));
    }
}

/// russh accepts these by default. We asked for no forwarding towards us: dropping the handle refuses.
macro_rules! refused {
    ($($open:ident($($detail:ty),*))*) => {$(
        async fn $open(
            &mut self,
            _channel: Channel<Msg>,
            $(_: $detail,)*
            _reply: ChannelOpenHandle,
            _session: &mut Session,
        ) -> Result<(), SessionError> {
            Ok(())
        }
    )*};
}

impl Handler for ClientHandler {
    type Error = SessionError;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, SessionError> {
        let offered = Offered::from(offered);
        let key = offered.key.clone();
        if let Some(accepted) = self.handshake.host_key.get() {
            // A rekey: the key may not change within a connection.
            return Ok(accepted.key.key_data() == key.key_data());
        }
        let check = self.check.clone();
        self.handshake.asking.store(true, Relaxed);
        let verdict = tokio::task::spawn_blocking(move || check.check(&offered)).await;
        self.handshake.asking.store(false, Relaxed);
        match verdict {
            Ok(Ok(())) => {
                let accepted = Accepted { key };
                Ok(self.handshake.host_key.set(accepted).is_ok())
            }
            Ok(Err(error)) => Err(SessionError::HostKey(error)),
            // The check panicked or the runtime ends: not accepted.
            Err(_) => Ok(false),
        }
    }

    async fn kex_done(
        &mut self,
        _shared_secret: Option<&[u8]>,
        names: &Names,
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        // The first exchange is the one that is told.
        let _ = self.handshake.cipher.set(names.cipher.as_ref().to_owned());
        Ok(())
    }

    async fn auth_banner(
        &mut self,
        banner: &str,
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        self.load.cut().explain();
        let room = BANNER_LINES - self.banner_lines;
        for line in banner.lines().take(room).map(harmless_line) {
            // A login that asks nobody is one more, or one anew: whoever is there has read it.
            match self.check.has_person() {
                true => info!(target: TO_PERSON, "the server says: {line}"),
                false => info!("the server says: {line}"),
            }
            self.banner_lines += 1;
        }
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        _channel: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        // The flow answers its application now. Otherwise the session would first deal with all else that came, and
        // write what it has to say to that.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn channel_open_failure(
        &mut self,
        _channel: ChannelId,
        _reason: ChannelOpenFailure,
        description: &str,
        _language: &str,
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        self.load.add_refusal();
        self.load.refusals().hand_over(description).await;
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<SessionError>,
    ) -> Result<(), SessionError> {
        self.load.set_lost(lost_reason(&reason));
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }

    refused! {
        server_channel_open_forwarded_tcpip(&str, u32, &str, u32)
        server_channel_open_forwarded_streamlocal(&str)
        server_channel_open_agent_forward()
        server_channel_open_session()
        server_channel_open_direct_tcpip(&str, u32, &str, u32)
        server_channel_open_direct_streamlocal(&str)
        server_channel_open_x11(&str, u32)
    }
}

fn lost_reason(reason: &DisconnectReason<SessionError>) -> LostReason {
    match reason {
        DisconnectReason::ReceivedDisconnect(info) => {
            LostReason::Disconnected(harmless(&info.message))
        }
        DisconnectReason::Error(SessionError::Ssh(
            russh::Error::KeepaliveTimeout | russh::Error::InactivityTimeout,
        )) => LostReason::Silent,
        // Nobody took what we wrote.
        DisconnectReason::Error(SessionError::Ssh(russh::Error::IO(error)))
            if error.kind() == std::io::ErrorKind::TimedOut =>
        {
            LostReason::Silent
        }
        DisconnectReason::Error(SessionError::Ssh(error)) => LostReason::Broken(reason::of(error)),
        DisconnectReason::Error(SessionError::HostKey(error)) => {
            LostReason::Broken(error.to_string())
        }
    }
}
