//! WireGuard: a network of its own between two hosts of the lab. In user space, since not every kernel has it.

use std::fs;

use crate::common::{Lab, V4, V6, assert_ok};
use crate::datagrams::shell;

/// Makes the device, with keys from files; the process goes on in the background, and ends with the lab. What it has in /run is
/// its own.
const DEVICE: &str = "set -e; mount -t tmpfs none /run; LOG_LEVEL=error wireguard-go $device >/dev/null 2>&1 </dev/null
    wg set $device listen-port 51820 private-key $ours peer $theirs allowed-ips 10.99.0.0/24 $endpoint
    ip addr add $address/24 dev $device; ip link set $device up mtu 1420; echo made";

/// Pings up to what the network carries and over it, and a connection, over IPv4 and IPv6.
pub(crate) fn carries_packets(lab: &Lab) {
    let keys = ["wg-near", "wg-far"].map(|name| Key::new(lab, name));
    for (device, host) in [
        ("wg4", V4.host.to_owned()),
        ("wg6", format!("[{}]", V6.host)),
    ] {
        make(
            lab,
            "vpc",
            device,
            "10.99.0.2",
            &keys[1].file,
            &keys[0].public,
            "",
        );
        let endpoint = format!("endpoint {host}:51820");
        make(
            lab,
            "client",
            device,
            "10.99.0.1",
            &keys[0].file,
            &keys[1].public,
            &endpoint,
        );
        for length in [56, 1392, 8000] {
            let said = shell(
                lab,
                "client",
                &format!("ping -c 2 -i 0.2 -W 5 -s {length} 10.99.0.2"),
            );
            assert!(said.contains(" 0% packet loss"), "{said}");
        }
        assert_ok(&lab.probe("client", "get 10.99.0.2 5001 1000000"));
        for role in ["client", "vpc"] {
            assert_eq!(shell(lab, role, &format!("ip link del {device}")), "");
        }
    }
}

struct Key {
    file: String,
    public: String,
}

impl Key {
    fn new(lab: &Lab, name: &str) -> Self {
        let file = lab.file(name);
        let made = shell(lab, "vpc", "wg genkey");
        fs::write(&file, made).unwrap();
        let public = shell(lab, "vpc", &format!("wg pubkey <{file}"))
            .trim()
            .to_owned();
        Self { file, public }
    }
}

fn make(
    lab: &Lab,
    role: &str,
    device: &str,
    address: &str,
    ours: &str,
    theirs: &str,
    endpoint: &str,
) {
    let mut made = lab.command(role, "unshare");
    made.args(["--mount", "sh", "-c", DEVICE]);
    for (name, value) in [
        ("device", device),
        ("address", address),
        ("ours", ours),
        ("theirs", theirs),
        ("endpoint", endpoint),
    ] {
        made.env(name, value);
    }
    let made = crate::common::finished(made);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}
