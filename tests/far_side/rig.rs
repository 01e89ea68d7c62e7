//! A server with two networks, a host in each, and a client that has nothing but tunnels to it:
//!
//! ```text
//!   client --- tunN: cable.py --- server --- eth0  10.55.0.0/24  fd55::/64 --- host
//!                                        `-- eth1  10.56.0.0/24 ------------- other
//! ```
//! The hosts know ways to each other by the server, and none to the client.

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use underpass::app::up::beside::far_side::{Exec, FarEnd, Found, Wish};
use underpass::carrier::examine::Answer;
use underpass::plan::far_side::{DeviceKind, TunnelAddress};

/// Whoever logs in.
const NOBODY: &str = "65534";
/// What a server has of its own, and how it was before.
const STATE: &str = "
ip -j link; ip -j address; ip -j -4 rule; ip -j -6 rule
ip -j -4 route show table all; ip -j -6 route show table all
nft list tables | sort | while read -r table; do nft list $table | sed 's/counter packets [0-9]* bytes [0-9]* //' | sort; done
grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/conf/*/accept_redirects
grep . /proc/sys/net/ipv6/conf/*/forwarding /proc/sys/net/ipv6/conf/*/accept_ra /proc/sys/net/ipv6/conf/*/force_forwarding
net=$(readlink /proc/self/ns/net); net=${net#*[}; ls /run/underpass-tunnel-${net%]}
";

static RIGS: AtomicU32 = AtomicU32::new(0);

/// The networks, and how the server's shell is.
pub(crate) struct Rig {
    name: String,
    dir: TempDir,
    sudoers: Option<String>,
    /// What a command is written over by, as for a server that differs.
    pub(crate) other: Option<(&'static str, &'static str)>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let number = RIGS.fetch_add(1, Ordering::Relaxed);
        let rig = Self {
            name: format!("far{}-{number}", std::process::id()),
            dir: TempDir::new().unwrap(),
            sudoers: None,
            other: None,
        };
        for role in ["server", "host", "other", "client"] {
            run(&format!("ip netns add {}", rig.netns(role)));
            // Addresses do not change by themselves.
            rig.in_netns(
                role,
                "sysctl -qw net.ipv6.conf.default.accept_dad=0 && ip link set lo up",
            );
            // A namespace's number is given again; what a killed watchdog left below it stays.
            rig.in_netns(
                role,
                "net=$(readlink /proc/self/ns/net); net=${net#*[}; rm -rf /run/underpass-tunnel-${net%]}",
            );
        }
        for (device, role, v4, v6) in [
            ("eth0", "host", "10.55.0", "fd55::"),
            ("eth1", "other", "10.56.0", "fd56::"),
        ] {
            let peer = rig.netns(role);
            rig.in_netns(
                "server",
                &format!(
                    "ip link add {device} type veth peer name eth0 netns {peer} && \
                     ip addr add {v4}.1/24 dev {device} && ip addr add {v6}1/64 dev {device} nodad && \
                     ip link set {device} up"
                ),
            );
            rig.in_netns(
                role,
                &format!(
                    "ip addr add {v4}.2/24 dev eth0 && ip addr add {v6}2/64 dev eth0 nodad && \
                     ip link set eth0 up && ip route add 10.48.0.0/12 via {v4}.1"
                ),
            );
        }
        // Nothing comes by itself any more.
        rig.is_within(10, || {
            let links = |role| {
                let line = "ip -o -6 addr show up scope link | grep -c ' eth'";
                rig.output(role, line).stdout
            };
            links("server") == b"2\n" && links("host") == b"1\n" && links("other") == b"1\n"
        });
        rig
    }

    /// With busybox for everything that it has; Debian's tools for the rest.
    pub(crate) fn with_busybox(self) -> Self {
        let list = run("busybox --list");
        for applet in list.lines().filter(|applet| *applet != "busybox") {
            self.program(applet, None);
        }
        self
    }

    /// Where nobody may do this.
    pub(crate) fn for_nobody(mut self, sudoers: &str) -> Self {
        std::fs::write(self.dir.path().join("sudoers"), sudoers).unwrap();
        run(&format!("chmod 755 {}", self.dir.path().display()));
        self.sudoers = Some(self.dir.path().join("sudoers").display().to_string());
        self
    }

    /// A program that comes first: a script, or an applet of busybox.
    pub(crate) fn program(&self, name: &str, script: Option<&str>) {
        let path = self.dir.path().join(name);
        match script {
            None => std::os::unix::fs::symlink("/bin/busybox", path).unwrap(),
            Some(script) => {
                std::fs::write(&path, format!("#!/bin/dash\n{script}\n")).unwrap();
                run(&format!("chmod 755 {}", path.display()));
            }
        }
    }

    pub(crate) fn netns(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    /// Runs a line of shell as root, which shall succeed.
    pub(crate) fn in_netns(&self, role: &str, line: &str) -> String {
        succeeded(line, self.output(role, line))
    }

    pub(crate) fn output(&self, role: &str, line: &str) -> Output {
        let mut command = Command::new("/sbin/ip");
        command.args(["netns", "exec", &self.netns(role), "sh", "-c", line]);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Whether `role` hears from an address.
    pub(crate) fn hears(&self, role: &str, address: &str) -> bool {
        let ping = format!("ping -n -c 1 -W 1 {address}");
        self.output(role, &ping).status.success()
    }

    /// How the server is.
    pub(crate) fn state(&self) -> String {
        String::from_utf8(self.output("server", STATE).stdout).unwrap()
    }

    /// In the time that the server may take for it.
    pub(crate) fn is_soon(&self, state: &str) {
        let began = Instant::now();
        while self.state() != state {
            let now = self.state();
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "before:\n{state}\nafter:\n{now}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn is_within(&self, seconds: u64, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(
                began.elapsed() < Duration::from_secs(seconds),
                "{}",
                self.state()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The process that watches `device` on the server.
    pub(crate) fn watchdog(&self, device: &str) -> String {
        let line = format!(
            "net=$(readlink /proc/self/ns/net); net=${{net#*[}}; cat /run/underpass-tunnel-${{net%]}}/{device}.watch"
        );
        self.in_netns("server", &line).trim().to_owned()
    }

    pub(crate) async fn end(&self, wish: &Wish) -> FarEnd {
        match wish.find(self, &[]).await {
            Ok(Found::End(end)) => *end,
            other => panic!("{other:?}"),
        }
    }

    /// Holds `unit` open, and lets the client send what is for the server's networks there.
    pub(crate) fn cable(&self, wish: &Wish, unit: u32, address: TunnelAddress) -> Cable {
        let far = wish.kind.device(unit);
        // Of 15 letters at most.
        let near = format!("near{unit}");
        let path = |role| format!("/run/netns/{}", self.netns(role));
        let mut cable = Command::new("python3");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/netns-fixtures/cable.py");
        cable.args([script, wish.kind.word(), &path("server"), &far]);
        cable.args([&path("client"), &near]);
        if self.sudoers.is_some() {
            cable.arg(NOBODY);
        }
        let mut child = cable.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 5];
        let heard = child.stdout.as_mut().unwrap().read_exact(&mut said);
        let cable = Cable(child);
        heard.unwrap();
        self.in_netns("client", &format!(
            "ip addr add {} peer {} dev {near} && ip link set {near} up && ip route replace 10.48.0.0/12 via {} dev {near} onlink",
            address.v4.ours, address.v4.far, address.v4.far
        ));
        if let Some(v6) = address.v6 {
            self.in_netns("client", &format!(
                "ip -6 addr add {} peer {} dev {near} nodad && ip -6 route replace fd50::/12 via {} dev {near} onlink",
                v6.ours, v6.far, v6.far
            ));
        }
        cable
    }
}

impl Exec for Rig {
    /// As sshd hands it to a login shell.
    async fn exec(&self, command: &str) -> Answer {
        let command = match self.other {
            Some((what, by)) => command.replace(what, by),
            None => command.to_owned(),
        };
        let path = format!("{}:/usr/bin:/bin", self.dir.path().display());
        let line = match &self.sudoers {
            None => "exec sh -c \"$COMMAND\"".to_owned(),
            Some(sudoers) => format!(
                "exec unshare -m /bin/sh -c 'mount --bind {sudoers} /etc/sudoers && \
                 exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups sh -c \"$COMMAND\"'"
            ),
        };
        let mut shell = Command::new("/sbin/ip");
        shell.args(["netns", "exec", &self.netns("server"), "/bin/sh", "-c"]);
        shell.arg(line).env("COMMAND", command).env("PATH", path);
        let output = shell.stdin(Stdio::null()).output().unwrap();
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        Answer::Granted(output.stdout)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server was as this:\n{}", self.state());
        }
        for role in ["server", "host", "other", "client"] {
            let name = self.netns(role);
            // Watchdogs, where a test failed.
            let line = format!(
                "net=$(ip netns exec {name} readlink /proc/self/ns/net); net=${{net#*[}}; \
                 ip netns pids {name} | xargs -r kill; ip netns del {name}; rm -rf /run/underpass-tunnel-${{net%]}}"
            );
            let _ = Command::new("sh").args(["-c", &line]).output();
        }
    }
}

/// A tunnel, until it is cut.
pub(crate) struct Cable(Child);

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn wish(id: u64) -> Wish {
    Wish {
        id,
        kind: DeviceKind::Tun,
        unit: None,
        address: None,
        ipv6: true,
        back: Vec::new(),
        mtu: 1400,
        inbound: false,
        taken: Vec::new(),
    }
}

fn run(line: &str) -> String {
    let mut command = Command::new("sh");
    succeeded(line, command.args(["-c", line]).output().unwrap())
}

fn succeeded(line: &str, output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
