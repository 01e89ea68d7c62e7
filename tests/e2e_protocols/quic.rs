//! QUIC between two hosts of the lab: both ends in this process, each on a socket of its host's network.

use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::pem::PemObject;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};

use crate::common::{Lab, V4, V6, finished};

const NAME: &str = "quic.test";
const LENGTH: usize = 5_000_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// 5 MB each way, over IPv4 and IPv6.
pub(crate) fn both_ways(lab: &Lab) {
    let (server, client) = configurations(lab);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (there, back) = (bytes(1), bytes(2));
    for (host, any) in [(V4.host, "0.0.0.0"), (V6.host, "::")] {
        let near = socket(lab, "client", any, 0);
        let far = socket(lab, "vpc", host, 4433);
        let to = far.local_addr().unwrap();
        runtime.block_on(async {
            let far = endpoint(far, Some(server.clone()));
            let near = endpoint(near, None);
            let both = async {
                tokio::join!(
                    answer(&far, &there, &back),
                    ask(&near, client.clone(), to, &there, &back)
                )
            };
            tokio::time::timeout(PATIENCE, both)
                .await
                .expect("5 MB each way");
        });
    }
}

/// Takes a stream's bytes to their end, and gives others back.
async fn answer(endpoint: &Endpoint, there: &[u8], back: &[u8]) {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (mut sink, mut source) = connection.accept_bi().await.unwrap();
    assert!(source.read_to_end(LENGTH).await.unwrap() == there);
    sink.write_all(back).await.unwrap();
    sink.finish().unwrap();
    connection.closed().await;
}

async fn ask(endpoint: &Endpoint, config: ClientConfig, to: SocketAddr, there: &[u8], back: &[u8]) {
    let connection = endpoint
        .connect_with(config, to, NAME)
        .unwrap()
        .await
        .unwrap();
    let (mut sink, mut source) = connection.open_bi().await.unwrap();
    sink.write_all(there).await.unwrap();
    sink.finish().unwrap();
    assert!(source.read_to_end(LENGTH).await.unwrap() == back);
    // Larger packets than the 1,200 bytes that it begins with went through.
    let mtu = connection.stats().path.current_mtu;
    assert!(mtu > 1400, "{mtu}");
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
}

/// Those of an endpoint that differ from the other one's.
fn bytes(seed: usize) -> Vec<u8> {
    (0..LENGTH).map(|at| ((at * seed) % 251) as u8).collect()
}

/// A socket keeps the network that it was made in.
fn socket(lab: &Lab, role: &str, address: &str, port: u16) -> UdpSocket {
    let namespace = File::open(lab.namespace(role)).unwrap();
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let made = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        UdpSocket::bind(address).unwrap()
    });
    made.join().unwrap()
}

fn endpoint(socket: UdpSocket, server: Option<ServerConfig>) -> Endpoint {
    Endpoint::new(
        EndpointConfig::default(),
        server,
        socket,
        Arc::new(TokioRuntime),
    )
    .unwrap()
}

/// With a certificate that is made for this, and trusted alone.
fn configurations(lab: &Lab) -> (ServerConfig, ClientConfig) {
    let (request, key, certificate) = (
        lab.file("quic.cnf"),
        lab.file("quic.key"),
        lab.file("quic.pem"),
    );
    let text = format!(
        "[req]\ndistinguished_name = who\nx509_extensions = more\n[who]\n[more]\nsubjectAltName = DNS:{NAME}\n"
    );
    fs::write(&request, text).unwrap();
    let mut openssl = lab.command("vpc", "openssl");
    openssl
        .args([
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args([
            "-config",
            &request,
            "-subj",
            &format!("/CN={NAME}"),
            "-days",
            "2",
        ])
        .args(["-keyout", &key, "-out", &certificate]);
    let made = finished(openssl);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    (
        ServerConfig::with_single_cert(vec![certificate], key).unwrap(),
        ClientConfig::with_root_certificates(Arc::new(roots)).unwrap(),
    )
}
