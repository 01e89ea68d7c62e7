//! Agents: OpenSSH's, and one whose key is as if in hardware.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use data_encoding::BASE64;
use russh::keys::signature::Signer;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PrivateKey};

/// ssh-agent, ended by pid on drop.
pub(crate) struct RealAgent {
    socket: PathBuf,
    child: Child,
}

impl RealAgent {
    pub(crate) fn start(socket: &Path) -> Self {
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while UnixStream::connect(socket).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self {
            socket: socket.to_owned(),
            child,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Adds a key file, with the certificate beside it.
    pub(crate) fn add(&self, key: &Path) {
        let add = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &self.socket)
            .status();
        assert!(add.unwrap().success());
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent with one `sk-ssh-ed25519@openssh.com` key, and beside it a key of a type that nobody knows.
pub(crate) struct HardwareAgent {
    socket: PathBuf,
}

const KIND: &str = "sk-ssh-ed25519@openssh.com";
const APPLICATION: &str = "ssh:";

impl HardwareAgent {
    /// Serves at `socket`, and writes its public key to `public`.
    pub(crate) fn start(socket: &Path, public: &Path) -> Self {
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let KeyData::Ed25519(point) = key.public_key().key_data() else {
            panic!("an Ed25519 key");
        };
        // PROTOCOL.u2f, "SSH U2F Key formats".
        let blob = strings(&[KIND.as_bytes(), &point.0, APPLICATION.as_bytes()]);
        std::fs::write(public, format!("{KIND} {}\n", BASE64.encode(&blob))).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                while let Some(request) = frame(&mut stream) {
                    let answer = answer(&key, &blob, &request);
                    let _ = stream.write_all(&strings(&[&answer]));
                }
            }
        });
        Self {
            socket: socket.to_owned(),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

fn frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn answer(key: &PrivateKey, blob: &[u8], request: &[u8]) -> Vec<u8> {
    match request[0] {
        // REQUEST_IDENTITIES: IDENTITIES_ANSWER
        11 => {
            let unknown = strings(&[b"ssh-unknown@example.com", b"xyz"]);
            let keys = strings(&[&unknown, b"odd", blob, b"\xff hardware"]);
            [vec![12, 0, 0, 0, 2], keys].concat()
        }
        // SIGN_REQUEST: SIGN_RESPONSE
        13 => {
            let mut rest = &request[1..];
            assert_eq!(string(&mut rest), blob);
            let signed = sign(key, string(&mut rest));
            [vec![14], strings(&[&signed])].concat()
        }
        // session-bind and all others: FAILURE
        _ => vec![5],
    }
}

/// What the device signs, with its flags ("user present") and counter (PROTOCOL.u2f, "SSH U2F signatures").
fn sign(key: &PrivateKey, message: &[u8]) -> Vec<u8> {
    let counter = [1, 0, 0, 0, 7];
    let digest = |data: &[u8]| HashAlg::Sha256.digest(data);
    let data = [
        digest(APPLICATION.as_bytes()),
        counter.to_vec(),
        digest(message),
    ]
    .concat();
    let signature = key.try_sign(&data).unwrap();
    let mut signed = strings(&[KIND.as_bytes(), signature.as_bytes()]);
    signed.extend(counter);
    signed
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        bytes.extend(*part);
    }
    bytes
}

fn string<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (length, tail) = rest.split_at(4);
    let (part, tail) = tail.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize);
    *rest = tail;
    part
}
