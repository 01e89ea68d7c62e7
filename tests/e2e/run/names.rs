//! Names are found as on the host, by its resolver.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use nix::sched::{CloneFlags, setns};

use super::said;
use crate::common::V4;
use crate::e2e::rig::Rig;

/// A name server that listens on the client's 127.0.0.53, on TCP alone, and says 10.0.1.20 to every question.
fn name_server(rig: &Rig) {
    let lab = rig.lab.command("client", "true");
    let path = lab.get_args().next().unwrap().to_str().unwrap().to_owned();
    let path = path.strip_prefix("--net=").unwrap().to_owned();
    let (sender, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        setns(fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let listener = TcpListener::bind("127.0.0.53:53").unwrap();
        sender.send(()).unwrap();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            while answer(&mut stream).is_some() {}
        }
    });
    ready.recv().unwrap();
}

fn answer(stream: &mut TcpStream) -> Option<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut query = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut query).ok()?;
    let end = 12 + query[12..].iter().position(|byte| *byte == 0)? + 5;
    let is_a = query[end - 3] == 1;
    let mut reply = query[..end].to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 1, 20]);
    }
    stream.write_all(&(reply.len() as u16).to_be_bytes()).ok()?;
    stream.write_all(&reply).ok()
}

#[test]
fn names_are_found_over_tcp_by_the_hosts_resolver() {
    let mut rig = Rig::new();
    name_server(&rig);
    fs::write(rig.file("resolv"), "nameserver 127.0.0.53\n").unwrap();
    fs::write(rig.file("nss"), "passwd: files\nhosts: files dns\n").unwrap();
    rig.setup = "mount --bind \"$RIG/resolv\" /etc/resolv.conf; mount --bind \"$RIG/nss\" /etc/nsswitch.conf".to_owned();
    let log = rig.file("audit.log");
    let audited = format!("{} --audit-log {}", V4.subnet, log.display());
    let found = rig.prints(&audited, &["getent", "ahostsv4", "db.test"]);
    assert!(found.starts_with("10.0.1.20"), "{found}");
    // The resolver's address inside stands for that of the host.
    let log = fs::read_to_string(log).unwrap();
    let asked = log.lines().find(|line| line.contains("flow_end")).unwrap();
    assert!(asked.contains("\"mapped_to\":\"127.0.0.53:53\""), "{asked}");
    let isolated = format!("{} --isolate", V4.subnet);
    let output = rig.run(&isolated, &["getent", "ahostsv4", "db.test"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}
