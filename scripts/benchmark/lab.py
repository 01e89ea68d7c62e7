"""The lab of netns-fixtures/lab as the benchmarks see it: processes in its hosts, and what their counters say."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUBNET = "10.0.1.0/24"
SERVICES = "10.0.1.20"
# The same services, under further addresses.
FAR_HOSTS = (SERVICES, "10.0.1.21", "10.0.1.22")
BASTION = "192.168.77.1"
# The client as the container behind it sees it.
CLIENT_FOR_BOX = "172.31.0.1"
CIPHER = "aes128-gcm@openssh.com"
LOAD = "lab-load"
PROBE = "lab-probe"
FAR_SERVICES = "lab-services"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A tool did not do what was measured; the text says what happened."""


class Lab:
    """One lab with one round trip time; gone at the end of the `with` block."""

    def __init__(self, built, rtt_ms):
        self.built = built
        self.rtt_ms = rtt_ms
        self.prefix = f"bench{os.getpid()}"
        self.state = Path(self._script("state").strip())

    def _script(self, command, *arguments):
        environment = dict(os.environ, LAB_BIN=str(self.built / "examples"))
        done = subprocess.run(
            [ROOT / "netns-fixtures/lab", command, self.prefix, *arguments],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            start_new_session=True, check=True,
        )
        return done.stdout

    def __enter__(self):
        delay = ["--rtt", str(self.rtt_ms)] if self.rtt_ms else []
        try:
            self._script("up", *delay)
        except BaseException:
            self._script("down")
            raise
        services = (self.state / "services.pid").read_text().strip()
        self._far_counters = Path(f"/proc/{services}/net/dev")
        self._far_sockets = Path(f"/proc/{services}/net/sockstat6")
        self._listeners = self._processes("bastion")
        return self

    def __exit__(self, *_):
        self._script("down")

    def inside(self, role, *command):
        """The arguments that run a command on a host of the lab."""
        return ["nsenter", f"--net=/run/netns/{self.prefix}-{role}", "--", *map(str, command)]

    def run(self, role, *command, check=True):
        """Runs a short command on a host of the lab; returns whether it succeeded."""
        done = subprocess.run(self.inside(role, *command), stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              start_new_session=True)
        if check and done.returncode:
            raise Failed(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
        return done.returncode == 0

    def output(self, role, *command):
        """What a command prints on a host of the lab; it may say with its exit code that something got lost."""
        done = subprocess.run(self.inside(role, *command), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              start_new_session=True)
        return done.stdout

    def far_bytes(self):
        """Bytes that have arrived at the far host: what an upload is measured by, whatever is buffered on the way."""
        for line in self._far_counters.read_text().splitlines():
            device, _, counters = line.partition(":")
            if device.strip() == "eth0":
                return int(counters.split()[0])
        raise Failed("the far host has no eth0")

    def far_connections(self):
        """TCP sockets in use at the far host (its services take IPv4 as mapped IPv6), listeners among them."""
        for line in self._far_sockets.read_text().splitlines():
            if line.startswith("TCP6:"):
                return int(line.split()[2])
        raise Failed("the far host does not count its connections")

    def _processes(self, role):
        network = os.stat(f"/run/netns/{self.prefix}-{role}").st_ino
        found = []
        for entry in os.scandir("/proc"):
            try:
                if entry.name.isdigit() and os.stat(f"{entry.path}/ns/net").st_ino == network:
                    found.append(int(entry.name))
            except OSError:
                pass  # it has just ended
        return found

    def tool_processes(self):
        """The process ids of everything in the client but load and probes: the tool, its ssh and its helpers."""
        return [pid for pid in self._processes("client") if command_of(pid) not in (LOAD, PROBE)]

    def end_leftovers(self):
        """Ends what a tool has left in the client, and sshd's sessions, which may close channels for minutes."""
        sessions = [pid for pid in self._processes("bastion") if pid not in self._listeners]
        for pid in self.tool_processes() + sessions:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def tool_cpu(self):
        """User and system time of the tool's processes so far, in seconds (proc(5), fields 14 and 15)."""
        ticks = 0
        for pid in self.tool_processes():
            try:
                after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(after_name[11]) + int(after_name[12])
            except OSError:
                pass
        return ticks / CLOCK_TICKS

    def tool_memory(self):
        """Resident memory of the tool's processes, in MB; a page that several of them share counts once (proc(5),
        `Pss`)."""
        kib = 0
        for pid in self.tool_processes():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                kib += sum(int(line.split()[1]) for line in rollup.splitlines()
                           if line.startswith("Pss:"))
            except OSError:
                pass
        return kib * 1024 / 1e6


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class Running:
    """A program of the lab at work on the tool's host; ended at the end of the `with` block."""

    def __init__(self, tool, program, *arguments):
        self._process = subprocess.Popen(
            tool.lab.inside(tool.role, *tool.wrapper(), tool.lab.built / "examples" / program, *arguments),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )

    def line(self):
        """Sends the line that ends a wait of the program."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A wrapper passes it on.
        self._process.terminate()
        self._process.wait()
        self._process.stdin.close()


class Load(Running):
    """A lab-load: its events as they come."""

    def __init__(self, tool, *arguments):
        super().__init__(tool, LOAD, *arguments)
        self._events = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            self._events.put((time.monotonic(), json.loads(line)))
        self._events.put((time.monotonic(), {"event": "error", "what": "the load ended"}))

    def wait(self, event, timeout):
        """The next event, which has to be of that kind; `at` in it is when it came (monotonic, in seconds)."""
        try:
            at, found = self._events.get(timeout=timeout)
        except queue.Empty:
            raise Failed(f"no answer in {timeout:.0f} s") from None
        if found["event"] != event:
            raise Failed(found.get("what", f"unexpected {found}"))
        return dict(found, at=at)


class Probe(Running):
    """A lab-probe, which checks every byte: its last finding."""

    def __init__(self, tool, command, address, *arguments):
        host, _, port = address.rpartition(":")
        super().__init__(tool, PROBE, command, host, port, *arguments)

    def wait(self, timeout):
        """Its last finding, once it has ended."""
        try:
            output, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"a probe did not end in {timeout:.0f} s") from None
        lines = output.splitlines()
        if not lines:
            raise Failed("a probe ended without a word")
        return json.loads(lines[-1])
