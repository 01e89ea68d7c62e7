//! A server over russh in this process that forwards.

use std::sync::Arc;
use std::time::Duration;

use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelOpenFailure};
use tokio::net::{TcpListener, TcpStream};
use underpass::plan::SshPlan;

use crate::place::Place;

pub(crate) struct Forwarder {
    place: Place,
}

impl Forwarder {
    pub(crate) async fn start() -> Self {
        let mut place = Place::new();
        let key = russh::keys::load_secret_key(place.path("host_key"), None).unwrap();
        let config = Arc::new(Config {
            keys: vec![key],
            auth_rejection_time: Duration::ZERO,
            ..Config::default()
        });
        let user = russh::keys::load_public_key(place.path("id_ed25519.pub")).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        // What a kernel has room for on a long path that has just begun.
        let socket = socket2::SockRef::from(&listener);
        socket.set_send_buffer_size(64 << 10).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        place.port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, user) = (Arc::clone(&config), user.clone());
                tokio::spawn(async move {
                    let session = russh::server::run_stream(config, stream, Forward { user }).await;
                    if let Ok(session) = session {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { place }
    }

    pub(crate) fn plan(&self) -> SshPlan {
        let public = std::fs::read_to_string(self.place.path("host_key.pub"));
        self.place.plan(public.unwrap().trim())
    }
}

struct Forward {
    user: PublicKey,
}

impl Handler for Forward {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(if key.public_key.key_data() == self.user.key_data() {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let target = format!("{host}:{port}");
        tokio::spawn(async move {
            let Ok(mut stream) = TcpStream::connect(target).await else {
                reply.reject(ChannelOpenFailure::ConnectFailed).await;
                return;
            };
            reply.accept().await;
            let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut stream).await;
        });
        Ok(())
    }
}
