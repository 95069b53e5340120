"""`python -m benchmarks.autoscaling`: the picture of a burst of jobs, docs/autoscaling.svg.

It is drawn from what Prometheus saw in the end-to-end tests (`.build/e2e/burst.json`, written by
tests/e2e/test_06_monitoring.py), nothing is made up or smoothed.
"""

import json
import math
import sys
from pathlib import Path
from typing import Final

from benchmarks.plot import INK, PALETTE, WIDTH, text

CHECKOUT: Final = Path(__file__).resolve().parents[1]
RECORDED: Final = CHECKOUT / ".build" / "e2e" / "burst.json"
PICTURE: Final = CHECKOUT / "docs" / "autoscaling.svg"
HEIGHT, LEFT, RIGHT, GAP = 130, 50, 130, 46

Line = list[tuple[float, float]]
"""(second, value), in order of time."""

PANELS: Final = {
    "Jobs that wait": ["waiting jobs"],
    "Oldest waiting job, seconds": ["oldest waiting job, seconds"],
    "Pods and busy slots": ["pods desired", "pods ready", "slots busy"],
}


def steps(line: Line) -> Line:
    """The corners of a line that keeps a value until the next one."""
    corners: Line = []
    for at, value in line:
        if corners:
            corners.append((at, corners[-1][1]))
        corners.append((at, value))
    return corners


def ceiling(value: float) -> float:
    """A round number that is not below."""
    if value <= 0:
        return 1.0
    unit = 10 ** math.floor(math.log10(value))
    return float(next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= value))


def panel(title: str, lines: dict[str, Line], end: float, top: float) -> list[str]:
    """One diagram of lines over the seconds up to `end`."""
    right, bottom = WIDTH - RIGHT, top + HEIGHT
    most = ceiling(max((value for line in lines.values() for _, value in line), default=0.0))

    def x(at: float) -> float:
        return LEFT + (right - LEFT) * at / end

    def y(value: float) -> float:
        return bottom - HEIGHT * value / most

    parts = [text(LEFT, top - 10, title, size=14)]
    for share in (0, 0.5, 1):
        at = y(share * most)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e4e7eb"/>')
        parts.append(text(LEFT - 6, at + 4, f"{share * most:g}", anchor="end"))
    for second in range(0, math.floor(end) + 1, 10):
        parts.append(f'<line x1="{x(second):.1f}" x2="{x(second):.1f}" y1="{top}" y2="{bottom}" stroke="#e4e7eb"/>')
        parts.append(text(x(second), bottom + 14, str(second), anchor="middle", size=10, color=INK))
    for number, (name, line) in enumerate(lines.items()):
        color = PALETTE[number]
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in steps(line))
        dash = ' stroke-dasharray="6 4"' if name.endswith("desired") else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
        parts.append(text(right + 10, top + 14 + 18 * number, name.partition(",")[0], color=color))
    return parts


def svg(lines: dict[str, Line]) -> str:
    """The picture of all panels, over the same seconds."""
    end = max(line[-1][0] for line in lines.values() if line)
    body: list[str] = []
    top = 34
    for title, names in PANELS.items():
        body += panel(title, {name: lines[name] for name in names}, end, top)
        top += HEIGHT + GAP
    body.append(text(LEFT, top - 8, "seconds; jobs were handed in after 5", size=11))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{top}" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def main() -> int:
    """Draw."""
    if not RECORDED.exists():
        print(f"{RECORDED} is not there: run `make test-e2e` first", file=sys.stderr)
        return 1
    PICTURE.write_text(svg(json.loads(RECORDED.read_text())["lines"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
