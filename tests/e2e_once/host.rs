//! The client as a host that somebody looks after the names of: a mount namespace with an /etc and a /run of its own, in which
//! everything of the test runs, so that nothing of this machine changes.

#![allow(dead_code, unreachable_pub)] // each test file uses its part
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Lab, Underpass, eventually, finished};
use crate::e2e::server::NameServer;

/// The far name server.
pub const FAR: &str = "10.0.1.20";
/// The one that the host had before, in its local network: what it is asked goes over the uplink.
pub const NEAR: &str = "192.168.77.1";

/// A bus of the test's own: everybody may do everything there, and who may set name servers is the resolver's business.
const BUS: &str = r#"<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow send_type="method_call"/>
<allow send_type="signal"/><allow receive_type="method_call"/><allow receive_type="method_return"/>
<allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>"#;

/// The files of a Debian package, unpacked below the target directory and never installed: installing one of these changes the
/// machine's own names.
pub fn unpacked(package: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(package);
    let done = dir.join("done");
    // Test programs may run beside each other.
    let lock = fs::File::create(dir.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !done.exists() {
        fs::create_dir_all(&dir).unwrap();
        let script = "apt-get download -q \"$1\" || { apt-get update -q && apt-get download -q \"$1\"; } && dpkg -x \"$1\"_*.deb .";
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "sh", package])
            .current_dir(&dir);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{package}: {output:?}");
        fs::write(done, "").unwrap();
    }
    dir
}

/// The host, with a name server in its network and one in the far one.
pub struct Host {
    pub lab: Lab,
    pub near: NameServer,
    _far: NameServer,
    pub etc: PathBuf,
    /// What holds the mount namespace, and other processes in it.
    held: Vec<Child>,
}

impl Host {
    /// With these texts in its /etc.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let lab = Lab::up();
        let far = [
            "--host-record=api.corp.internal,10.0.1.20".to_owned(),
            "--host-record=one.corp.internal,10.0.1.22".to_owned(),
            "--host-record=www.example.com,10.0.1.21".to_owned(),
            "--ptr-record=20.1.0.10.in-addr.arpa,api.corp.internal".to_owned(),
        ];
        let far = NameServer::start(&lab, "vpc", FAR, &far);
        let near = [
            "--host-record=bastion.test,192.168.77.1".to_owned(),
            "--host-record=www.example.com,192.0.2.80".to_owned(),
            "--address=/corp.internal/".to_owned(),
        ];
        let near = NameServer::start(&lab, "bastion", NEAR, &near);
        let etc = lab.state.join("etc");
        let copied = Command::new("cp").arg("-a").arg("/etc").arg(&etc).status();
        assert!(copied.unwrap().success());
        fs::remove_file(etc.join("resolv.conf")).ok();
        for (name, text) in files {
            fs::write(etc.join(name), text).unwrap();
        }
        let user = "systemd-resolve:x:991:991::/:/usr/sbin/nologin\n";
        let passwd = fs::read_to_string(etc.join("passwd")).unwrap();
        if !passwd.contains("systemd-resolve") {
            fs::write(etc.join("passwd"), passwd + user).unwrap();
            let group = fs::read_to_string(etc.join("group")).unwrap();
            fs::write(etc.join("group"), group + "systemd-resolve:x:991:\n").unwrap();
        }
        let mut host = Self {
            lab,
            near,
            _far: far,
            etc,
            held: Vec::new(),
        };
        host.hold_namespace();
        host
    }

    fn hold_namespace(&mut self) {
        let script = "mount --bind \"$1\" /etc && mount -t tmpfs tmpfs /run && mkdir -p /run/dbus && touch /run/made && exec sleep infinity";
        let mut command = self.lab.command("client", "unshare");
        command
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(&self.etc);
        let child = command.spawn().unwrap();
        let made = format!("/proc/{}/root/run/made", child.id());
        self.held.push(child);
        eventually("the namespace is made", || Path::new(&made).exists());
    }

    /// The arguments that run the rest of them on the host.
    fn inside(&self) -> [String; 3] {
        let mount = format!("--mount=/proc/{}/ns/mnt", self.held[0].id());
        ["nsenter".to_owned(), mount, "--".to_owned()]
    }

    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let inside = self.inside();
        let mut command = self.lab.command("client", &inside[0]);
        command.args(&inside[1..]).arg(program.as_ref());
        command
    }

    /// What a shell prints there.
    pub fn prints(&self, script: &str) -> String {
        let mut command = self.command("sh");
        command.args(["-c", script]);
        String::from_utf8(finished(command).stdout).unwrap()
    }

    /// A file of its /run or /etc.
    pub fn file(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.held[0].id()).into()
    }

    pub fn conf(&self) -> String {
        fs::read_to_string(self.file("/etc/resolv.conf")).unwrap()
    }

    /// A process there until the end of the test, or of what is returned.
    fn start(&mut self, mut command: Command) -> usize {
        let log =
            fs::File::create(self.lab.file(&format!("held-{}.log", self.held.len()))).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.held.push(command.spawn().unwrap());
        self.held.len() - 1
    }

    /// A bus, and systemd-resolved on it, which asks [`NEAR`] over the uplink.
    pub fn with_resolved(mut self) -> Self {
        fs::write(self.lab.state.join("bus.conf"), BUS).unwrap();
        let mut bus = self.command("dbus-daemon");
        bus.arg(format!("--config-file={}", self.lab.file("bus.conf")));
        bus.args(["--nofork", "--nopidfile"]);
        self.start(bus);
        let socket = self.file("/run/dbus/system_bus_socket");
        eventually("the bus listens", || UnixStream::connect(&socket).is_ok());
        self.start_resolved();
        self
    }

    fn start_resolved(&mut self) -> usize {
        // As its unit has it made (RuntimeDirectory=).
        self.prints("mkdir -p /run/systemd/resolve; chown systemd-resolve: /run/systemd/resolve");
        let resolved = unpacked("systemd-resolved").join("lib/systemd/systemd-resolved");
        let number = self.start(self.command(resolved));
        eventually("it is on the bus", || {
            self.prints("busctl call org.freedesktop.resolve1 /org/freedesktop/resolve1 org.freedesktop.DBus.Peer Ping && echo yes")
                .contains("yes")
        });
        let set = format!(
            "i=$(ip -o link show wan | cut -d: -f1); {} SetLinkDNS 'ia(iay)' $i 1 2 4 {}; {} SetLinkDefaultRoute ib $i true",
            MANAGER,
            NEAR.replace('.', " "),
            MANAGER
        );
        self.prints(&set);
        number
    }

    /// Another process of it, as after an update.
    pub fn restart_resolved(&mut self) {
        let mut old = self.held.pop().unwrap();
        old.kill().unwrap();
        old.wait().unwrap();
        self.start_resolved();
    }

    /// What resolved says of our device: servers, domains, whether it is the default, LLMNR and the like.
    pub fn link(&self) -> String {
        self.prints(
            "i=$(ip -o link show underpass0 | cut -d: -f1); \
             p=$(busctl call org.freedesktop.resolve1 /org/freedesktop/resolve1 org.freedesktop.resolve1.Manager GetLink i $i | cut -d'\"' -f2); \
             for name in DNS Domains DefaultRoute LLMNR MulticastDNS DNSOverTLS DNSSEC; do \
             echo $name $(busctl get-property org.freedesktop.resolve1 $p org.freedesktop.resolve1.Link $name); done",
        )
    }

    /// Everything that resolved has been told, of every link; not what it does with it at the moment.
    pub fn all_links(&self) -> String {
        let resolvectl = unpacked("systemd-resolved").join("usr/bin/resolvectl");
        self.prints(&format!(
            "{} status --no-pager | grep -v Current | sed 's/^ *//'",
            resolvectl.display()
        ))
    }

    /// NetworkManager on the same bus. It leaves names to systemd-resolved, and takes the links that there are for another program's.
    pub fn with_network_manager(mut self) -> Self {
        let config = "[main]\nplugins=keyfile\nno-auto-default=*\ndns=systemd-resolved\nrc-manager=unmanaged\nauth-polkit=false\n";
        fs::create_dir_all(self.etc.join("NetworkManager")).unwrap();
        fs::write(self.etc.join("NetworkManager/NetworkManager.conf"), config).unwrap();
        // It waits for what udev says of a link unless /sys cannot be written, as in containers. Its state is the test's.
        let made = self.prints(
            "mount -t sysfs -o ro sysfs /sys && mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/NetworkManager && echo made",
        );
        assert_eq!(made, "made\n");
        self.start_network_manager();
        self
    }

    fn start_network_manager(&mut self) {
        let packages = ["network-manager", "libndp0", "libcurl3-gnutls"].map(unpacked);
        let libraries = packages.each_ref().map(|files| {
            let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
            files.join(libraries).display().to_string()
        });
        let mut command = self.command(packages[0].join("usr/sbin/NetworkManager"));
        command.arg("--debug");
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
        self.start(command);
        eventually("NetworkManager has the uplink", || self.is_external("wan"));
    }

    /// Another process of it, as after an update.
    pub fn restart_network_manager(&mut self) {
        let mut old = self.held.pop().unwrap();
        old.kill().unwrap();
        old.wait().unwrap();
        self.start_network_manager();
    }

    /// Whether NetworkManager has the link, as "connected (externally)": the flag is NM_ACTIVATION_STATE_FLAG_EXTERNAL.
    pub fn is_external(&self, link: &str) -> bool {
        let nm = "org.freedesktop.NetworkManager";
        let connection = self.prints(&format!(
            "p=$(busctl call {nm} /org/freedesktop/NetworkManager {nm} GetDeviceByIpIface s {link} 2>&1 | cut -d'\"' -f2); \
             c=$(busctl get-property {nm} $p {nm}.Device ActiveConnection 2>&1 | cut -d'\"' -f2); \
             busctl get-property {nm} $c {nm}.Connection.Active State 2>&1; \
             busctl get-property {nm} $c {nm}.Connection.Active StateFlags 2>&1"
        ));
        let mut lines = connection.lines();
        let flags = |line: &str| line.strip_prefix("u ")?.parse::<u32>().ok();
        lines.next() == Some("u 2")
            && lines
                .next()
                .and_then(flags)
                .is_some_and(|all| all & 0x80 != 0)
    }

    /// openresolv, which has been told of [`NEAR`].
    pub fn with_openresolv(self) -> Self {
        let files = unpacked("openresolv");
        // Nothing of it is installed where it thinks that it is.
        let script = format!(
            "set -e; mount -t tmpfs tmpfs /usr/local/sbin; cp {0}/etc/resolvconf.conf /etc; \
             sed 's,^LIBEXECDIR=.*,LIBEXECDIR={0}/lib/resolvconf,' {0}/sbin/resolvconf >/usr/local/sbin/resolvconf; \
             chmod +x /usr/local/sbin/resolvconf; rm -f /etc/resolv.conf; \
             printf 'nameserver {NEAR}\\nsearch corp.internal\\n' | /usr/local/sbin/resolvconf -a wan.dhcp; echo made",
            files.display()
        );
        assert!(self.prints(&script).contains("made"));
        self
    }

    /// Kills all processes of underpass, the privileged part too, at once.
    pub fn kill_all_of_it(&self) {
        let own = |pid: &Pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("underpass")
        };
        let mut pids = self.lab.processes("client");
        pids.retain(own);
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for pid in &pids {
                let _ = kill(*pid, signal);
            }
        }
    }

    pub fn up_command(&self, args: &str) -> Command {
        let inside = self.inside();
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        self.lab.wrapped_up_command(&inside, args)
    }

    pub fn up(&self, args: &str) -> Underpass {
        Underpass::start(self.up_command(args))
    }

    /// `underpass` with other arguments.
    pub fn ask(&self, args: &[&str]) -> std::process::Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_underpass"));
        command
            .args(args)
            .env("UNDERPASS_RUNTIME_DIR", self.lab.state.join("run"))
            .env("NO_COLOR", "1");
        finished(command)
    }

    /// Writes down which names are asked for over the uplink, from now on.
    pub fn capture(&mut self) -> Capture {
        let log = self.lab.state.join("captured");
        let mut command = self.command("python3");
        command.arg(script("capture.py")).arg("wan").arg(&log);
        command.stdout(Stdio::null());
        self.held.push(command.spawn().unwrap());
        eventually("it captures", || log.exists());
        Capture(log)
    }
}

/// How the manager's methods are called.
pub const MANAGER: &str = "busctl call org.freedesktop.resolve1 /org/freedesktop/resolve1 org.freedesktop.resolve1.Manager";

/// A program beside this file.
pub fn script(name: &str) -> String {
    format!("{}/tests/e2e_once/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The names that were asked for over the uplink.
pub struct Capture(PathBuf);

impl Capture {
    pub fn names(&self) -> String {
        fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in self.held.iter_mut().rev() {
            // The number is its own until it was waited for.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for entry in fs::read_dir(&self.lab.state)
                .into_iter()
                .flatten()
                .flatten()
            {
                let name = entry.file_name().into_string().unwrap_or_default();
                if name.starts_with("held-") {
                    let text = fs::read_to_string(entry.path()).unwrap_or_default();
                    eprintln!("--- {name}:\n{text}");
                }
            }
        }
    }
}
