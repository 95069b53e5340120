"""The plot as SVG, without a plotting library: throughput as bars, idle latency as a distribution."""

import math
import statistics
from html import escape

from benchmarks.report import OURS, Results

WIDTH, ROW, LEFT = 760, 22, 170
ACCENT, OTHER, INK = "#0b6bcb", "#9aa5b1", "#1f2933"
PALETTE = (ACCENT, "#d9480f", "#2b8a3e", "#862e9c", "#e67700", "#c2255c", "#0c8599", "#5c940d", "#495057")


def text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12, color: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}">{escape(words)}</text>'
    )


def _bars(title: str, values: dict[str, list[float]], top: int) -> tuple[list[str], int]:
    medians = {name: statistics.median(rounds) for name, rounds in values.items()}
    longest = max(medians.values())
    parts = [text(10, top + 16, title, size=14)]
    y = top + 28
    for name, value in sorted(medians.items(), key=lambda item: -item[1]):
        width = (WIDTH - LEFT - 90) * value / longest
        color = ACCENT if name == OURS else OTHER
        parts.append(text(LEFT - 8, y + 15, name, anchor="end"))
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{ROW - 5}" fill="{color}"/>')
        low, high = (LEFT + (WIDTH - LEFT - 90) * edge(values[name]) / longest for edge in (min, max))
        middle = y + (ROW - 5) / 2
        parts.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="{INK}"/>')
        parts.append(text(max(LEFT + width, high) + 6, y + 14, f"{value:,.0f}"))
        y += ROW
    return parts, y + 20


def _distribution(waits: dict[str, list[float]], top: int) -> tuple[list[str], int]:
    height, right = 220, WIDTH - 150
    smallest = max(0.1, min(min(values) for values in waits.values()))
    largest = max(statistics.quantiles(values, n=200)[-1] for values in waits.values())
    low, high = math.floor(math.log10(smallest)), math.ceil(math.log10(largest))

    def x(milliseconds: float) -> float:
        place = (math.log10(max(milliseconds, 10**low)) - low) / max(1, high - low)
        return LEFT / 2 + min(1.0, place) * (right - LEFT / 2)

    bottom = top + 30 + height
    parts = [text(10, top + 16, "idle enqueue → start: share of jobs that started within … ms", size=14)]
    for exponent in range(low, high + 1):
        at = x(10**exponent)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top + 30}" y2="{bottom}" stroke="#e4e7eb"/>')
        parts.append(text(at, bottom + 16, f"{10**exponent:g}", anchor="middle"))
    for share in (0, 0.5, 0.9, 1):
        y = bottom - share * height
        parts.append(f'<line x1="{LEFT / 2}" x2="{right}" y1="{y}" y2="{y}" stroke="#e4e7eb"/>')
        parts.append(text(LEFT / 2 - 6, y + 4, f"{share:.0%}", anchor="end"))
    names = sorted(waits, key=lambda name: (name != OURS, name))
    for number, name in enumerate(names):
        ordered = sorted(waits[name])
        step = max(1, len(ordered) // 200)
        points = " ".join(
            f"{x(ordered[i]):.1f},{bottom - (i + 1) / len(ordered) * height:.1f}" for i in range(0, len(ordered), step)
        )
        color = PALETTE[number % len(PALETTE)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(text(right + 12, top + 44 + 18 * number, name, color=color))
    return parts, bottom + 40


def svg(results: Results, bars: dict[str, str]) -> str:
    """The picture: bars for the figures named in `bars` (figure → title), then the distribution."""
    body: list[str] = []
    y = 10
    for figures in results.figures.values():
        for name, title in bars.items():
            if name in figures:
                parts, y = _bars(title, figures[name], y)
                body += parts
    if results.waits_ms:
        parts, y = _distribution(results.waits_ms, y)
        body += parts
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )
