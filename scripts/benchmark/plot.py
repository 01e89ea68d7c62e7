"""Pictures of the figures as SVG: throughput against round trip time, and against the number of flows."""

from dataclasses import dataclass
from math import ceil, floor, log10
from statistics import median

from .scenarios import DIRECTIONS, PLOT_FLOWS, PLOT_RTTS, at_name

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50
COLOURS = ("#0b6e4f", "#c0392b", "#2c5aa0", "#b8860b", "#7d3c98")
DASHES = {"download": "", "upload": "6 4"}
FIGURE = "Mbit/s"


@dataclass
class Picture:
    """One picture: its x values, and the scenario that measures each for a direction."""

    file: str
    title: str
    axis: str
    places: tuple
    scenario: callable


PICTURES = (
    Picture("throughput-rtt.svg", "One flow, by round trip time", "round trip time, ms", PLOT_RTTS,
            lambda direction, rtt: at_name(f"{direction}1", rtt)),
    Picture("throughput-flows.svg", "By the number of flows, no delay", "flows at the same time", PLOT_FLOWS,
            lambda direction, flows: f"{direction}{flows}"),
)


def scenarios():
    """What has to be measured for all pictures."""
    return list(dict.fromkeys(picture.scenario(direction, place) for picture in PICTURES
                              for direction in DIRECTIONS for place in picture.places))


def draw(results, tools, folder):
    """Writes each picture of which there are figures; their paths."""
    written = []
    for picture in PICTURES:
        lines = {(tool, direction): line(results, picture, tool, direction)
                 for tool in tools for direction in DIRECTIONS}
        lines = {of: points for of, points in lines.items() if points}
        if lines:
            path = folder / picture.file
            path.write_text(svg(picture, lines, list(tools)))
            written.append(path)
    return written


def line(results, picture, tool, direction):
    """[(which place, median, least, most)]"""
    points = []
    for index, place in enumerate(picture.places):
        values = list(results.values(picture.scenario(direction, place), tool, FIGURE).values())
        if values:
            points.append((index, median(values), min(values), max(values)))
    return points


def svg(picture, lines, tools):
    values = [value for points in lines.values() for _, _, least, most in points for value in (least, most)]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    span = max(1, high - low)

    def x(index):
        return LEFT + (WIDTH - LEFT - RIGHT) * index / max(1, len(picture.places) - 1)

    def y(value):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (log10(value) - low) / span

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="22" font-size="15">{picture.title}: {FIGURE}</text>']
    for power in range(low, high + 1):
        at = y(10 ** power)
        out.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10 ** power:,}</text>')
    for index, place in enumerate(picture.places):
        out.append(f'<text x="{x(index):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{place}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{picture.axis}</text>')
    for number, ((tool, direction), points) in enumerate(lines.items()):
        colour = COLOURS[tools.index(tool) % len(COLOURS)]
        path = "L".join(f"{x(index):.1f} {y(value):.1f}" for index, value, _, _ in points)
        dash = f' stroke-dasharray="{DASHES[direction]}"' if DASHES[direction] else ""
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for index, value, least, most in points:
            out.append(f'<path d="M{x(index):.1f} {y(least):.1f}V{y(most):.1f}" stroke="{colour}" opacity="0.5"/>')
            out.append(f'<circle cx="{x(index):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>')
        at = TOP + 20 * number
        out.append(f'<path d="M{WIDTH - RIGHT + 12} {at}h24" stroke="{colour}" stroke-width="2"{dash}/>')
        out.append(f'<text x="{WIDTH - RIGHT + 42}" y="{at + 4}">{tool}, {direction}</text>')
    return "\n".join([*out, "</svg>", ""])
