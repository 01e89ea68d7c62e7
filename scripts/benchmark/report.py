"""The figures as Markdown: the targets first, then everything, each beside its ratio to `ssh -L` of the same round."""

import os
import platform
import subprocess
from dataclasses import dataclass
from statistics import median

from .lab import CIPHER

REFERENCE = "ssh-L"
OURS = "underpass"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


@dataclass
class Target:
    """What a figure of ours has to be: its ratio to the reference, or with `absolute` itself."""

    what: str
    scenario: str
    figure: str
    least: float | None = None
    most: float | None = None
    absolute: bool = False

    def met(self, value):
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def bound(self):
        sign, value = ("≥", self.least) if self.least is not None else ("≤", self.most)
        return f"{sign} {value:g}" + ("" if self.absolute else "x")


TARGETS = [
    Target("download, 1 flow", "download1", "Mbit/s", least=0.8),
    Target("download, 8 flows", "download8", "Mbit/s", least=1.0),
    Target("upload, 1 flow", "upload1", "Mbit/s", least=1.0),
    Target("upload, 8 flows", "upload8", "Mbit/s", least=0.9),
    Target("download, 1 flow, 100 ms RTT", "download1-100ms", "Mbit/s", least=3),
    Target("short connections, 1 at a time", "short1", "conn/s", least=0.8),
    Target("short connections, 1 at a time, p99", "short1", "p99 ms", most=1.5),
    Target("short connections, 32 at a time", "short32", "conn/s", least=0.8),
    Target("short connections, 32 at a time, p99", "short32", "p99 ms", most=1.5),
    Target("container behind MTU 1500, download", "box-download", "Mbit/s", least=0.6),
    Target("container behind MTU 1500, upload", "box-upload", "Mbit/s", least=0.8),
    Target("throughput beside 9,000 idle flows, of that alone", "beside9000", "of alone", least=0.9,
           absolute=True),
    Target("10,000 idle connections: failed", "idle10000", "failed", most=0, absolute=True),
    Target("10,000 idle connections: client memory, MB", "idle10000", "client MB", most=150,
           absolute=True),
    Target("echo beside a full download, p50", "echo-busy", "p50 ms", most=1.5),
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

    def ratio(self, scenario, tool, figure):
        """The median over the rounds of the ratio to the reference, or None."""
        reference = self.values(scenario, REFERENCE, figure)
        ratios = [value / reference[number]
                  for number, value in self.values(scenario, tool, figure).items()
                  if reference.get(number)]
        return median(ratios) if ratios else None


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
        ours = results.value(target.scenario, OURS, target.figure)
        ratio = results.ratio(target.scenario, OURS, target.figure)
        judged = ours if target.absolute else ratio
        if judged is None:
            if (target.scenario, OURS) in results.failures:
                rows.append(row(target.what, target.bound(), "failed", "-", "-", "**not met**"))
            continue
        rows.append(row(target.what, target.bound(), number(ours),
                        number(results.value(target.scenario, REFERENCE, target.figure)),
                        "-" if target.absolute else f"{ratio:.2f}x",
                        "met" if target.met(judged) else "**not met**"))
    if not rows:
        return []
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
    missed = [text.split(" | ")[0].removeprefix("| ") for text in rows if "not met" in text]
    if not rows:
        return "no target was measured"
    if missed:
        return f"NOT MET: {len(missed)} of {len(rows)} targets: {'; '.join(missed)}"
    return f"MET: all {len(rows)} targets measured"


def put_into(path, text):
    """Replaces what stands between the markers of a file."""
    whole = path.read_text()
    before, _, rest = whole.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"bench: {path} has no {BEGIN} ... {END}")
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}")
