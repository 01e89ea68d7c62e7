"""The figures as Markdown: the targets first, then everything, each beside its ratio to `ssh -L` of the same round."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from statistics import median
from typing import Callable

from .lab import CIPHER

REFERENCE = "ssh-L"
OURS = "underpass"
RUN = "underpass-run"
TUNNEL = "underpass-tunnel"
BY_HAND = "ssh-w"
SSHUTTLE = "sshuttle"
NOT_MEASURED = "not measured"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def over(value, base):
    """None where there is nothing to divide by."""
    return value / base if base else None


def more(value, base):
    return value - base


@dataclass
class Target:
    """What a figure of ours has to be, of the same round's `base` (another scenario, another tool): its ratio to that or, with
    `judge=more`, by how much it is more; or with `absolute` itself."""

    what: str
    scenario: str
    figure: str
    least: float | None = None
    most: float | None = None
    absolute: bool = False
    tool: str = OURS
    base: tuple | None = None
    judge: Callable = over

    def met(self, value):
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def bound(self):
        sign, value = ("≥", self.least) if self.least is not None else ("≤", self.most)
        if self.judge is more:
            return f"{sign} {value:g} more"
        return f"{sign} {value:g}" + ("" if self.absolute else "x")

    def against(self):
        return self.base or (self.scenario, REFERENCE)

    def judged(self, results):
        """The median over the rounds, or None."""
        if self.absolute:
            return results.value(self.scenario, self.tool, self.figure)
        return results.compared(self.scenario, self.tool, self.against(), self.figure, self.judge)

    def cells(self, results, judged):
        scenario, tool = self.against()
        base = number(results.value(scenario, tool, self.figure))
        if self.base:
            base = f"{base} (`{tool}`, {scenario})"
        unit = "" if self.judge is more else "x"
        return (number(results.value(self.scenario, self.tool, self.figure)), base,
                "-" if self.absolute else f"{judged:.2f}{unit}")


TARGETS = [
    Target("download, 1 flow", "download1", "Mbit/s", least=1.0),
    Target("download, 8 flows", "download8", "Mbit/s", least=1.1),
    Target("upload, 1 flow", "upload1", "Mbit/s", least=1.2),
    Target("upload, 8 flows", "upload8", "Mbit/s", least=1.1),
    Target("client CPU of a download, s/GB", "download1", "CPU s/GB", most=1.0),
    Target("client CPU of an upload, s/GB", "upload1", "CPU s/GB", most=1.0),
    Target("download, 1 flow, 20 ms RTT", "download1-20ms", "Mbit/s", least=3),
    Target("download, 1 flow, 100 ms RTT", "download1-100ms", "Mbit/s", least=5),
    Target("upload, 1 flow, 100 ms RTT", "upload1-100ms", "Mbit/s", least=1.0),
    Target("upload, 8 flows, 100 ms RTT, against one of `ssh -L`", "upload8-100ms", "Mbit/s", least=4,
           base=("upload1-100ms", REFERENCE)),
    Target("short connections, 1 at a time", "short1", "conn/s", least=1.0),
    Target("short connections, 32 at a time", "short32", "conn/s", least=1.0),
    Target("short connections, 32 at a time, p99", "short32", "p99 ms", most=1.0),
    Target("short connections, 32 at a time, 100 ms RTT", "short32-100ms", "conn/s", least=1.0),
    Target("echo, p50", "echo-idle", "p50 ms", most=1.2),
    Target("echo, p99", "echo-idle", "p99 ms", most=1.2),
    Target("echo beside a full download, p50", "echo-busy", "p50 ms", most=1.0),
    Target("echo beside a full download, p99", "echo-busy", "p99 ms", most=1.0),
    Target("container behind MTU 1500, download", "box-download", "Mbit/s", least=0.8),
    Target("container behind MTU 1500, upload", "box-upload", "Mbit/s", least=1.0),
    Target("throughput beside 9,000 idle flows, of that alone", "beside9000", "of alone", least=0.98,
           absolute=True),
    Target("10,000 idle connections: failed", "idle10000", "failed", most=0, absolute=True),
    Target("10,000 idle connections: client memory, MB", "idle10000", "client MB", most=80, absolute=True),
    Target("10,000 connections opened and held: failed", "open10000", "failed", most=0, absolute=True),
    Target("10,000 connections opened and held: opened per second", "open10000", "opened/s", least=5000, absolute=True),
    Target("50,000 idle connections: failed", "idle50000", "failed", most=0, absolute=True),
    Target("50,000 idle connections: client memory, MB", "idle50000", "client MB", most=400, absolute=True),
    Target("download, 1 flow, against sshuttle", "download1", "Mbit/s", least=20, base=("download1", SSHUTTLE)),
    Target("download, 1 flow, 100 ms RTT, against sshuttle", "download1-100ms", "Mbit/s", least=200,
           base=("download1-100ms", SSHUTTLE)),
    Target("client CPU of a download, against sshuttle", "download1", "CPU s/GB", most=0.05, base=("download1", SSHUTTLE)),
    Target("`run`, download, against `up`", "download1", "Mbit/s", least=0.9, tool=RUN, base=("download1", OURS)),
    Target("`run`, upload, against `up`", "upload1", "Mbit/s", least=0.9, tool=RUN, base=("upload1", OURS)),
    Target("`run -- true`, ms beyond `ssh HOST true`", "run-true", "ms", most=500, tool=RUN, judge=more),
    Target("`run --dns`, known names, answers/s", "names-known", "answers/s", least=20_000, tool=RUN, absolute=True),
    Target("`run --dns`, known names, p99, ms", "names-known", "p99 ms", most=2, tool=RUN, absolute=True),
    Target("`run --dns`, fresh names, p50, against TCP through `ssh -L`", "names-fresh", "p50 ms", most=1.3, tool=RUN),
    Target("`--tunnel`, download, against `ssh -w`", "download1", "Mbit/s", least=8, tool=TUNNEL, base=("download1", BY_HAND)),
    Target("`--tunnel`, upload, against `ssh -w`", "upload1", "Mbit/s", least=8, tool=TUNNEL, base=("upload1", BY_HAND)),
    Target("`--tunnel`, upload, 100 ms RTT, against `ssh -w`", "upload1-100ms", "Mbit/s", least=20, tool=TUNNEL,
           base=("upload1-100ms", BY_HAND)),
    Target("`--tunnel`, ping, p50, against `ssh -w`", "ping-idle", "p50 ms", most=1.2, tool=TUNNEL, base=("ping-idle", BY_HAND)),
    Target("`--tunnel`, ping beside a full download, p50, against `ssh -w`", "ping-busy", "p50 ms", most=1.2, tool=TUNNEL,
           base=("ping-busy", BY_HAND)),
    Target("`--tunnel`, ping beside a full download, p99, ms", "ping-busy", "p99 ms", most=5, tool=TUNNEL, absolute=True),
    Target("`--tunnel`, UDP at 200 Mbit/s, lost, %", "udp200", "lost %", most=0.1, tool=TUNNEL, absolute=True),
    Target("`--tunnel`, UDP at 200 Mbit/s, jitter, against `ssh -w`", "udp200", "jitter ms", most=1, tool=TUNNEL,
           base=("udp200", BY_HAND)),
    Target("download beside a stopped and a slow reader, of that beside an ordinary flow", "laggards",
           "of ordinary", least=0.8, absolute=True),
    Target("echo beside those and a download, p50", "laggards", "p50 ms", most=1.5),
    Target("client memory with those, MB", "laggards", "client MB", most=100, absolute=True),
    Target("streams of those that did not arrive whole", "laggards", "not whole", most=0, absolute=True),
]


class Results:
    """Every figure of every round, by (scenario, tool), and why one is missing."""

    def __init__(self):
        self.rounds = {}
        self.failures = {}

    @classmethod
    def load(cls, path):
        """What was saved there; nothing where nothing was."""
        results = cls()
        if path and path.exists():
            saved = json.loads(path.read_text())
            for scenario, tool, rounds in saved["rounds"]:
                results.rounds[scenario, tool] = {int(number): figures for number, figures in rounds.items()}
            results.failures = {(scenario, tool): why for scenario, tool, why in saved["failures"]}
        return results

    def save(self, path):
        rounds = [[*key, found] for key, found in self.rounds.items()]
        failures = [[*key, why] for key, why in self.failures.items()]
        path.write_text(json.dumps({"rounds": rounds, "failures": failures}))

    def known(self, scenarios, tools):
        """The scenarios, and the tools, of which there is something, in the order that is given."""
        there = [*self.rounds, *self.failures]
        return ([name for name in scenarios if any(name == scenario for scenario, _ in there)],
                [name for name in tools if any(name == tool for _, tool in there)])

    def add(self, scenario, tool, round_number, figures):
        self.rounds.setdefault((scenario, tool), {})[round_number] = figures

    def fail(self, scenario, tool, reason):
        self.failures[scenario, tool] = reason

    def values(self, scenario, tool, figure):
        """{round: value}"""
        found = self.rounds.get((scenario, tool), {})
        return {number: figures[figure] for number, figures in found.items() if figure in figures}

    def value(self, scenario, tool, figure):
        """The median, or None."""
        values = self.values(scenario, tool, figure).values()
        return median(values) if values else None

    def compared(self, scenario, tool, base, figure, judge):
        """The median over the rounds of what `judge` says of a figure and of that of `base`, or None."""
        others = self.values(*base, figure)
        found = [judge(value, others[number])
                 for number, value in self.values(scenario, tool, figure).items() if number in others]
        found = [value for value in found if value is not None]
        return median(found) if found else None

    def ratio(self, scenario, tool, figure):
        """The median over the rounds of the ratio to the reference, or None."""
        return self.compared(scenario, tool, (scenario, REFERENCE), figure, over)


def number(value):
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def table(head, rows):
    return [row(*head), row("---", *["---:"] * (len(head) - 1)), *rows]


def targets_table(results):
    rows = []
    for target in TARGETS:
        judged = target.judged(results)
        if judged is None:
            has_failed = (target.scenario, target.tool) in results.failures
            rows.append(row(target.what, target.bound(), *(("failed", "-", "-", "**not met**") if has_failed
                                                           else ("-", "-", "-", NOT_MEASURED))))
            continue
        rows.append(row(target.what, target.bound(), *target.cells(results, judged),
                        "met" if target.met(judged) else "**not met**"))
    return table(["target", "at least / at most", OURS, REFERENCE, "ratio", ""], rows)


def figures_of(results, scenario, tools):
    names = {}
    for tool in tools:
        for figures in results.rounds.get((scenario, tool), {}).values():
            names.update(dict.fromkeys(figures))
    return list(names)


def all_figures_table(results, scenarios, tools):
    rows = []
    for scenario in scenarios:
        for figure in figures_of(results, scenario, tools):
            cells = [cell(results, scenario, tool, figure) for tool in tools]
            rows.append(row(f"{scenario}, {figure}", *cells))
    return table(["", *tools], rows)


def cell(results, scenario, tool, figure):
    value = results.value(scenario, tool, figure)
    if value is None:
        return "failed" if (scenario, tool) in results.failures else "-"
    ratio = results.ratio(scenario, tool, figure)
    if ratio is None or tool == REFERENCE:
        return number(value)
    return f"{number(value)} ({ratio:.2g}x)"


def environment(rounds):
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    return (f"Medians of {rounds} rounds on {os.cpu_count()} cores shared by everything, Linux "
            f"{platform.release().split('-')[0]}, {ssh.split(',')[0].strip()}, {CIPHER}; in brackets the median "
            f"ratio to `ssh -L` of the same round.")


def markdown(results, scenarios, tools, rounds):
    """The whole report, and a last plain line that says what holds."""
    lines = [environment(rounds), "", *targets_table(results), "",
             *all_figures_table(results, scenarios, tools)]
    if results.failures:
        lines += ["", "Failed:", ""]
        lines += [f"- {scenario}, {tool}: {reason}"
                  for (scenario, tool), reason in sorted(results.failures.items())]
    return "\n".join(lines) + "\n"


def verdict(results):
    """One plain line: which of the targets that were measured are met."""
    rows = targets_table(results)[2:]
    unknown = sum(NOT_MEASURED in text for text in rows)
    rows = [text for text in rows if NOT_MEASURED not in text]
    missed = [text.split(" | ")[0].removeprefix("| ") for text in rows if "not met" in text]
    if not rows:
        return "no target was measured"
    rest = f" ({unknown} not measured)" if unknown else ""
    if missed:
        return f"NOT MET: {len(missed)} of {len(rows)} targets: {'; '.join(missed)}{rest}"
    return f"MET: all {len(rows)} targets measured{rest}"


def put_into(path, text):
    """Replaces what stands between the markers of a file."""
    whole = path.read_text()
    before, _, rest = whole.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"bench: {path} has no {BEGIN} ... {END}")
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}")
