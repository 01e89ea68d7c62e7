"""The tools compared: how each is installed, started and reached. All with the same cipher through the same sshd."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .lab import BASTION, CIPHER, CLIENT_FOR_BOX, SERVICES, SUBNET, Failed

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "underpass-bench"
START_PATIENCE_S = 20
STOP_PATIENCE_S = 5
# A session that does nothing: sshd sets TCP_NODELAY only when there is one. Ends with our end of the pipe.
SESSION = "echo ready; exec cat"


class Tool:
    """One way to the far subnet, for applications on the host `role` of the lab (client or box).

    `prepare` is what an administrator has done before; `start` is what is timed.
    """

    name = ""

    def __init__(self, lab, role="client"):
        self.lab = lab
        self.role = role
        self._processes = []

    @classmethod
    def install(cls):
        """Installs the tool where it is missing; raises Failed if it cannot be had."""

    def prepare(self):
        pass

    def start(self):
        raise NotImplementedError

    def undo(self):
        pass

    def address(self, port):
        """Where the load has to connect to."""
        return f"{SERVICES}:{port}"

    def wrapper(self):
        """What the load is run by."""
        return []

    def once(self):
        """A command that logs in, does nothing and ends."""
        raise Failed(f"{self.name} runs no commands")

    def spawn(self, *command, role="client", ready=None, environment=None):
        """Starts a process; with `ready`, returns when its output matches that."""
        output = tempfile.TemporaryFile()
        process = subprocess.Popen(
            self.lab.inside(role, *command), stdin=subprocess.PIPE, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
            env=dict(os.environ, **environment or {}),
        )
        self._processes.append((process, output))
        if ready:
            wait_until(lambda: re.search(ready, self._text(process, output)),
                       f"{self.name}: not ready")

    def _text(self, process, output):
        text = os.pread(output.fileno(), 1 << 16, 0).decode(errors="replace")
        if process.poll() is not None:
            raise Failed(f"{self.name} ended: {text.strip()[-300:]}")
        return text

    def stop(self):
        """Ends every process of the tool, with force where asking does not help, and takes its changes back."""
        for process, _ in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_PATIENCE_S
        for process, output in self._processes:
            try:
                process.wait(max(0.01, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdin.close()
            output.close()
        self._processes.clear()
        self.lab.end_leftovers()
        self.undo()

    def ssh(self, *options):
        """ssh's arguments: the lab's key and host key, the cipher, nothing of the user's configuration."""
        return ["ssh", "-F", "none", "-i", self.lab.state / "id", "-o", "IdentitiesOnly=yes",
                "-o", f"UserKnownHostsFile={self.lab.state / 'known_hosts'}",
                "-o", f"HostKeyAlias={BASTION}", "-o", "BatchMode=yes", "-o", f"Ciphers={CIPHER}",
                *options]

    def ip(self, role, *arguments, check=True):
        return self.lab.run(role, "ip", *arguments, check=check)


def wait_until(condition, what):
    deadline = time.monotonic() + START_PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what} after {START_PATIENCE_S} s")
        time.sleep(0.005)


class Underpass(Tool):
    name = "underpass"

    OPTIONS = ()

    def start(self):
        state = self.lab.state
        self.spawn(self.lab.built / "underpass", "up", "-r", f"root@{BASTION}", "-i", state / "id",
                   "-o", f"UserKnownHostsFile={state / 'known_hosts'}", *self.OPTIONS, SUBNET,
                   ready=r"\bready\b", environment={"HOME": str(state), "NO_COLOR": "1"})


class UnderpassRun(Tool):
    """`underpass run`: the load is its command."""

    name = "underpass-run"
    # What a scenario needs beside the network.
    options = ()
    # Where names are asked for, with --dns.
    NAME_SERVER = "198.18.0.53"

    def start(self):
        """It starts with the load."""
        if self.role != "client":
            raise Failed("its network is for a command on this host")

    def wrapper(self):
        state = self.lab.state
        return ["env", f"HOME={state}", self.lab.built / "underpass", "run", "-r", f"root@{BASTION}", "-i",
                state / "id", "-o", f"UserKnownHostsFile={state / 'known_hosts'}", *self.options, SUBNET, "--"]

    def once(self):
        return [*self.wrapper(), "true"]


class UnderpassOpenssh(Underpass):
    """The same over the user's own ssh."""

    name = "underpass-openssh"

    OPTIONS = ("--carrier", "openssh", "-o", f"Ciphers={CIPHER}")


class Direct(Tool):
    """No tool: the host of the lab that has a route. Shows what the load and the lab can do."""

    name = "direct"

    def start(self):
        if self.role != "client":
            raise Failed(f"there is no direct route from {self.role}")
        self.role = "direct"


class SshLocal(Tool):
    name = "ssh-L"

    def once(self):
        return self.ssh(f"root@{BASTION}", "true")

    PORTS = (7, 9, 19, 53, 5001, 5007)

    def start(self):
        forwards = [f"-L*:{self._local(port)}:{SERVICES}:{port}" for port in self.PORTS]
        self.spawn(*self.ssh("-o", "ExitOnForwardFailure=yes"), *forwards, f"root@{BASTION}",
                   SESSION, ready="ready")

    @staticmethod
    def _local(port):
        return 20000 + port

    def address(self, port):
        return f"{CLIENT_FOR_BOX if self.role == 'box' else '127.0.0.1'}:{self._local(port)}"


class SshSocks(Tool):
    name = "ssh-D+tun2proxy"

    BINARY = CACHE / "tun2proxy/bin/tun2proxy-bin"

    @classmethod
    def install(cls):
        if not cls.BINARY.exists():
            command("cargo", "install", "--quiet", "--locked", "tun2proxy", "--root",
                    CACHE / "tun2proxy")

    def start(self):
        self.spawn(*self.ssh("-D", "127.0.0.1:1080"), f"root@{BASTION}", SESSION, ready="ready")
        # tun2proxy's own --setup would take the whole default route and the machine's resolv.conf.
        self.ip("client", "tuntap", "add", "t2p", "mode", "tun")
        self.ip("client", "link", "set", "t2p", "up", "txqueuelen", "10000")
        self.ip("client", "addr", "add", "10.98.0.1/24", "dev", "t2p")
        # Without an MSS it takes segments of 536 bytes; with a larger MTU uploads stall.
        self.spawn(self.BINARY, "--tun", "t2p", "--tcp-mss", "1460",
                   "--proxy", "socks5://127.0.0.1:1080", "--dns", "direct", "--max-sessions", "20000",
                   "--verbosity", "off")
        self.ip("client", "route", "add", SUBNET, "dev", "t2p")

    def undo(self):
        self.ip("client", "link", "del", "t2p", check=False)


class Sshuttle(Tool):
    name = "sshuttle"

    BINARY = CACHE / "sshuttle/bin/sshuttle"

    @classmethod
    def install(cls):
        if not cls.BINARY.exists():
            command(sys.executable, "-m", "venv", CACHE / "sshuttle")
            command(CACHE / "sshuttle/bin/pip", "install", "--quiet", "sshuttle")
        if not shutil.which("iptables"):
            raise Failed("it needs iptables")

    def prepare(self):
        # It redirects packets that have a route, so there must be one; this one leads nowhere.
        self.ip("client", "route", "replace", SUBNET, "via", "172.31.0.99", "dev", "br-b0c5b0c5b0c5")

    def start(self):
        ssh = " ".join(map(str, self.ssh()))
        self.spawn(self.BINARY, "-r", f"root@{BASTION}", "-e", ssh, "--method", "nat",
                   "-l", "0.0.0.0:0", "--disable-ipv6", SUBNET, ready="Connected to server")
        # It says so before its rules stand.
        wait_until(lambda: self.lab.run("client", "sh", "-c", "iptables-save -t nat | grep -q REDIRECT",
                                        check=False), "sshuttle: no rules")

    def undo(self):
        self.ip("client", "route", "del", SUBNET, check=False)
        # What it leaves behind when it has to be killed; the lab has no rules of its own there.
        self.lab.run("client", "nft", "flush", "ruleset", check=False)


class SshTunnel(Tool):
    name = "ssh-w"

    PORT = 2299

    def prepare(self):
        """An sshd like the lab's plain one that also permits tunnels."""
        plain = (self.lab.state / "sshd-22.conf").read_text().splitlines()
        kept = [line for line in plain if not line.startswith(("Port ", "PidFile "))]
        config = self.lab.state / "sshd-tunnel.conf"
        own = [f"Port {self.PORT}", "PidFile none", "PermitTunnel yes"]
        config.write_text("\n".join([*own, *kept, ""]))
        self.spawn("/usr/sbin/sshd", "-D", "-e", "-f", config, role="bastion",
                   ready="Server listening on 0.0.0.0")

    def start(self):
        self.spawn(*self.ssh("-p", self.PORT, "-w", "0:0"), f"root@{BASTION}", SESSION,
                   ready="ready")
        for role, address in (("client", "10.99.0.2/30"), ("bastion", "10.99.0.1/30")):
            wait_until(lambda role=role: self.ip(role, "link", "show", "tun0", check=False),
                       "ssh -w: no tunnel device")
            self.ip(role, "addr", "add", address, "dev", "tun0")
            self.ip(role, "link", "set", "tun0", "up")
        self.ip("bastion", "route", "add", "172.31.0.0/24", "dev", "tun0")
        self.ip("client", "route", "add", SUBNET, "dev", "tun0")


class UnderpassTunnel(SshTunnel):
    """`up --tunnel`, through the same sshd as `ssh -w`."""

    name = "underpass-tunnel"

    OPTIONS = ("--tunnel", "-o", f"Ciphers={CIPHER}")

    def start(self):
        state = self.lab.state
        self.spawn(self.lab.built / "underpass", "up", "-r", f"root@{BASTION}", "-p", self.PORT, "-i", state / "id",
                   "-o", f"UserKnownHostsFile={state / 'known_hosts'}", "-o", f"HostKeyAlias={BASTION}", *self.OPTIONS,
                   SUBNET, ready=r"\bready\b", environment={"HOME": str(state), "NO_COLOR": "1"})


def command(*arguments):
    """Runs an installation step; its output is shown only if it fails."""
    done = subprocess.run(list(map(str, arguments)), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Failed(f"{arguments[0]}: {done.stdout.strip()[-300:]}")


TOOLS = {tool.name: tool
         for tool in (Underpass, UnderpassRun, UnderpassOpenssh, SshLocal, SshSocks, Sshuttle, SshTunnel,
                      UnderpassTunnel, Direct)}
