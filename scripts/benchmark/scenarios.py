"""What is measured. A scenario gets a tool that has just been started and returns figures by name."""

import json
import re
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Callable

from .lab import FAR_HOSTS, FAR_SERVICES, SERVICES, Failed, Load, Probe

ECHO, DISCARD, SOURCE, SOURCE_OF, SHORT = 7, 9, 19, 5001, 5007
# How long sshd's buffers grow on a path with a delay.
SETTLE_MS = 2000
# After which a connection that was used once counts as idle.
IDLE_S = 1
# Opening thousands of connections takes the slow ones minutes, but not more.
OPEN_PATIENCE_S = 300
# Connections of one load and of one far host's process, which each need a descriptor: 20,000 where that is not raised.
IDLE_AT_ONCE = 17_000
# A reader that reads nothing for so long, of a stream that no tool can take in meanwhile; and how slow a slow one is.
STOP_S = 20
STOPPED_BYTES = 3_000_000_000
SLOW_BYTES_PER_S = 1_000_000


@dataclass
class Length:
    """How long things are measured, in milliseconds."""

    warmup: int
    measure: int

    def at(self, rtt_ms):
        """Windows need a number of round trips to grow; sshd's buffers, which it copies for each piece that it adds, need
        longer."""
        return Length(self.warmup + SETTLE_MS + 25 * rtt_ms if rtt_ms else self.warmup, self.measure)


@dataclass
class Scenario:
    """`run(tool, length)` returns {figure: value}; with `starts` it starts the tool itself. `role` runs the load;
    a `crowd` of connections gets a lab of its own. Tools that are not among `tools` do not do such a thing."""

    run: Callable
    rtt_ms: int = 0
    role: str = "client"
    starts: bool = False
    crowd: bool = False
    tools: tuple = ()

    def is_for(self, tool):
        if tool == "underpass-run" and self.role != "client":
            # Its network is for a command on this host.
            return False
        return not self.tools or tool in self.tools


def bulk(direction, flows=1):
    return lambda tool, length: transfer(tool, length, direction, flows)


def transfer(tool, length, direction, flows):
    """Throughput, and what each byte cost the client's processors."""
    port = SOURCE if direction == "download" else DISCARD
    with Load(tool, direction, tool.address(port), "--flows", flows,
              "--warmup-ms", length.warmup, "--measure-ms", length.measure) as load:
        start = load.wait("start", length.warmup / 1e3 + 30)
        cpu, arrived = tool.lab.tool_cpu(), tool.lab.far_bytes()
        done = load.wait("done", length.measure / 1e3 + 10)
        cpu, arrived = tool.lab.tool_cpu() - cpu, tool.lab.far_bytes() - arrived
    if direction == "upload":
        # Taken by the near end is not arrived: counted at the far host's interface, headers and all (under 0.3 %).
        rate, size = arrived / (done["at"] - start["at"]), arrived
    else:
        rate, size = done["bytes"] / done["seconds"], done["bytes"]
    if not size:
        raise Failed("nothing arrived")
    return {"Mbit/s": rate * 8 / 1e6, "CPU s/GB": cpu / (size / 1e9)}


def short(parallel):
    def run(tool, length):
        with Load(tool, "short", tool.address(SHORT), "--parallel", parallel, "--measure-ms",
                  length.measure) as load:
            load.wait("start", 30)
            done = load.wait("done", length.measure / 1e3 + 30)
        if "p50_ms" not in done:
            raise Failed(f"none of {done['failed']} exchanges succeeded")
        return {"conn/s": done["rate"], "p50 ms": done["p50_ms"], "p99 ms": done["p99_ms"],
                "failed": done["failed"]}
    return run


def echo(tool, length):
    with Load(tool, "echo", tool.address(ECHO), "--measure-ms", length.measure) as load:
        done = load.wait("done", length.measure / 1e3 + 30)
    return {"p50 ms": done["p50_ms"], "p99 ms": done["p99_ms"]}


def echo_beside_download(tool, length):
    with endless_download(tool, length):
        return echo(tool, length)


def idle(count):
    """So many connections opened as fast as they open, one byte echoed on each, and another when all are open."""
    def run(tool, _length):
        parts = [min(IDLE_AT_ONCE, count - begin) for begin in range(0, count, IDLE_AT_ONCE)]
        for _ in parts[1:]:
            tool.spawn(tool.lab.built / "examples" / FAR_SERVICES, role="vpc", ready="ready")
        with ExitStack() as stack:
            # To one address a kernel looks long for a free port from the 32,000th connection on.
            addresses = [tool.address(ECHO), *(f"{host}:{ECHO}" for host in FAR_HOSTS[1:])]
            loads = [stack.enter_context(Load(tool, "idle", address, part)) for address, part in zip(addresses, parts)]
            seconds = max(load.wait("open", OPEN_PATIENCE_S)["seconds"] for load in loads)
            time.sleep(IDLE_S)
            memory = tool.lab.tool_memory()
            alive = 0
            for load in loads:
                load.line()
                alive += load.wait("done", 300)["alive"]
        return {"failed": count - alive, "client MB": memory, "echoed/s": alive / seconds}
    return run


def opened(count):
    """So many connections opened as fast as they open, and one byte echoed on each when all are. One is open when the far
    host has it, whatever the tool tells its application."""
    def run(tool, _length):
        before = tool.lab.far_connections()
        with Load(tool, "idle", tool.address(ECHO), count, "--silent") as load:
            told = load.wait("open", OPEN_PATIENCE_S)
            seconds = told["seconds"]
            while tool.lab.far_connections() < before + told["open"]:
                seconds = told["seconds"] + time.monotonic() - told["at"]
                if seconds > OPEN_PATIENCE_S:
                    raise Failed(f"the far host has {tool.lab.far_connections() - before} of {told['open']} connections")
                time.sleep(0.001)
            load.line()
            alive = load.wait("done", 300)["alive"]
        return {"failed": count - alive, "opened/s": alive / seconds}
    return run


def beside_idle(count):
    """Throughput with and without so many idle connections, and what is left of it."""
    def run(tool, length):
        alone = transfer(tool, length, "download", 1)["Mbit/s"]
        with Load(tool, "idle", tool.address(ECHO), count) as load:
            opened = load.wait("open", OPEN_PATIENCE_S)
            if opened["failed"]:
                raise Failed(f"{opened['failed']} of {count} idle connections failed: {opened['why']}")
            beside = transfer(tool, length, "download", 1)["Mbit/s"]
        return {"Mbit/s": beside, "of alone": beside / alone}
    return run


def startup(tool, _length):
    """From the command to the first byte through the tunnel."""
    if tool.wrapper():
        raise Failed("it starts with its command: see run-true")
    with Load(tool, "first", tool.address(SHORT)) as load:
        # The load has to be trying before the tool is there.
        load.wait("start", 10)
        began = time.monotonic()
        starting = Attempt(tool.start)
        done = load.wait("done", 40)
        starting.finish()
    return {"ms": (done["at"] - began) * 1e3}


def once(tool, _length):
    """A command that does nothing, from its start to its end: the login, and what comes on top. For ssh-L: ssh true."""
    command = tool.once()
    began = time.monotonic()
    tool.lab.run(tool.role, *command)
    return {"ms": (time.monotonic() - began) * 1e3}


def laggards(tool, length):
    """What a reader that stops for 20 s and one of 1 MB/s cost an echo and a download beside them, and whether they get
    every byte in the end."""
    with endless_download(tool, length):
        ordinary = transfer(tool, length, "download", 1)["Mbit/s"]
    address = tool.address(SOURCE_OF)
    slow_bytes = STOP_S * SLOW_BYTES_PER_S
    with Probe(tool, "source", address, "--ask", STOPPED_BYTES, "--bytes", STOPPED_BYTES, "--wait") as stopped, \
            Probe(tool, "source", address, "--ask", STOPPED_BYTES, "--bytes", slow_bytes,
                  "--rate", SLOW_BYTES_PER_S) as slow:
        began = time.monotonic()
        # Once the far side has sent ahead whatever it can.
        time.sleep(STOP_S / 4)
        beside = transfer(tool, length, "download", 1)["Mbit/s"]
        with endless_download(tool, length):
            latency = echo(tool, length)
        time.sleep(max(0, STOP_S - (time.monotonic() - began)))
        memory = tool.lab.tool_memory()
        stopped.line()
        ends = [stopped.wait(120)["result"], slow.wait(120)["result"]]
    return {"Mbit/s": beside, "of ordinary": beside / ordinary, **latency, "client MB": memory,
            "not whole": sum(end != "ok" for end in ends)}


def endless_download(tool, length):
    """A download that goes on, once it has begun."""
    load = Load(tool, "download", tool.address(SOURCE), "--warmup-ms", length.warmup,
                "--measure-ms", 10 * length.measure + 60_000)
    try:
        load.wait("start", length.warmup / 1e3 + 30)
    except Failed:
        load.__exit__()
        raise
    return load


class Attempt:
    """A call on a thread of its own, whose failure is not lost."""

    def __init__(self, call):
        self._error = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call):
        try:
            call()
        except Failed as error:
            self._error = error

    def finish(self):
        self._thread.join()
        if self._error:
            raise self._error


def names(*options):
    """Questions to a name server of the far network: over UDP to the tunnel's own, which asks that one and remembers its
    answers, or over TCP through a forwarded port."""
    def run(tool, length):
        tool.spawn("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-resolv", "--no-hosts",
                   "--bind-interfaces", "--pid-file=", f"--listen-address={SERVICES}", "--log-facility=-",
                   f"--address=/bench.test/{SERVICES}", "--local-ttl=3600", role="vpc", ready="started, version")
        if tool.name == "ssh-L":
            where = [tool.address(53), "--tcp"]
        else:
            tool.options = ("--dns", "--dns-server", SERVICES)
            where = [f"{tool.NAME_SERVER}:53"]
        with Load(tool, "names", *where, *options, "--measure-ms", length.measure) as load:
            load.wait("start", 30)
            done = load.wait("done", length.measure / 1e3 + 30)
        return {"answers/s": done["rate"], "p50 ms": done["p50_ms"], "p99 ms": done["p99_ms"]}
    return run


def ping(tool, length):
    """Echo requests of ICMP, one after the other."""
    count = max(200, length.measure // 4)
    output = tool.lab.output(tool.role, "ping", "-n", "-i", "0.002", "-W", "2", "-c", count, SERVICES)
    times = sorted(float(time) for time in re.findall(r"time=([0-9.]+) ms", output))
    if not times:
        raise Failed("no echo came back")
    return {"p50 ms": times[len(times) // 2], "p99 ms": times[len(times) * 99 // 100], "lost": count - len(times)}


def ping_beside_download(tool, length):
    with endless_download(tool, length):
        return ping(tool, length)


def datagrams(tool, length):
    """UDP at 200 Mbit/s to the far host, as iperf3 sees it."""
    tool.spawn("iperf3", "--server", "--one-off", "--bind", SERVICES, "--forceflush", role="vpc", ready="Server listening")
    output = tool.lab.output(tool.role, "iperf3", "--client", SERVICES, "--udp", "--bitrate", "200M", "--length", 1200,
                             "--time", max(2, length.measure // 1000), "--json")
    sums = json.loads(output).get("end", {}).get("sum", {})
    if not sums.get("packets"):
        raise Failed("nothing arrived")
    return {"lost %": sums["lost_percent"], "jitter ms": sums["jitter_ms"]}


def at_rtt(rtt_ms, scenarios):
    return {at_name(name, rtt_ms): Scenario(run, rtt_ms) for name, run in scenarios.items()}


DIRECTIONS = ("download", "upload")
BULK = {f"{direction}{flows}": bulk(direction, flows) for direction in DIRECTIONS for flows in (1, 8)}
# What the pictures show beside those.
PLOT_FLOWS = (1, 2, 4, 8, 16, 32, 64)
PLOT_RTTS = (0, 5, 10, 20, 50, 100, 200)
MORE_FLOWS = {f"{direction}{flows}": Scenario(bulk(direction, flows))
              for direction in DIRECTIONS for flows in PLOT_FLOWS if flows not in (1, 8)}
SHORTS = {f"short{parallel}": short(parallel) for parallel in (1, 32)}

def at_name(name, rtt_ms):
    """The scenario of that name in a lab with that round trip time."""
    return f"{name}-{rtt_ms}ms" if rtt_ms else name


MORE_RTTS = {at_name(f"{direction}1", rtt): Scenario(bulk(direction), rtt)
             for direction in DIRECTIONS for rtt in PLOT_RTTS if rtt not in (0, 20, 100)}

# More connections than one of OpenSSH's sessions has channels.
MANY_TOOLS = ("underpass", "direct")

# Whatever is no TCP.
PACKET_TOOLS = ("ssh-w", "underpass-tunnel", "direct")

# Names are looked up where a command has a network of its own, and over a forwarded port.
NAMES_TOOLS = ("ssh-L", "underpass-run")

SCENARIOS = {
    **{name: Scenario(run) for name, run in {**BULK, **SHORTS}.items()},
    "echo-idle": Scenario(echo),
    "echo-busy": Scenario(echo_beside_download),
    "box-download": Scenario(bulk("download"), role="box"),
    "box-upload": Scenario(bulk("upload"), role="box"),
    "laggards": Scenario(laggards, crowd=True),
    "idle1000": Scenario(idle(1000), crowd=True),
    "idle5000": Scenario(idle(5000), crowd=True),
    "idle10000": Scenario(idle(10000), crowd=True),
    "open10000": Scenario(opened(10000), crowd=True),
    "idle50000": Scenario(idle(50000), crowd=True, tools=MANY_TOOLS),
    "beside9000": Scenario(beside_idle(9000), crowd=True),
    "names-known": Scenario(names("--window", 16), tools=NAMES_TOOLS),
    "names-fresh": Scenario(names("--fresh"), tools=NAMES_TOOLS),
    "ping-idle": Scenario(ping, tools=PACKET_TOOLS),
    "ping-busy": Scenario(ping_beside_download, tools=PACKET_TOOLS),
    "udp200": Scenario(datagrams, tools=PACKET_TOOLS),
    "startup": Scenario(startup, starts=True),
    "run-true": Scenario(once, tools=("ssh-L", "underpass-run")),
    **at_rtt(20, BULK),
    **at_rtt(100, {**BULK, **SHORTS}),
    **MORE_FLOWS,
    **MORE_RTTS,
}

# The pictures' scenarios are measured for them alone.
DEFAULT = [name for name in SCENARIOS if name not in {**MORE_FLOWS, **MORE_RTTS}]
