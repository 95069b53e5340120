"""Results as people read them and as JSON: medians, spread, and the ratio to GoQueue of the same round."""

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.systems import System

OURS = "goqueue"


@dataclass
class Results:
    """All figures of one invocation: measure → figure → system → one value a round."""

    machine: dict[str, str]
    versions: dict[str, str]
    options: dict[str, Any]
    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    waits_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, measure: str, system: str, round_figures: dict[str, float]) -> None:
        """Keep one round's figures."""
        for name, value in round_figures.items():
            self.figures.setdefault(measure, {}).setdefault(name, {}).setdefault(system, []).append(value)

    def ratio(self, by_system: dict[str, list[float]], system: str) -> float | None:
        """The median over the rounds of this system's value divided by GoQueue's of the same round."""
        pairs = zip(by_system.get(system, []), by_system.get(OURS, []), strict=False)
        ratios = [value / ours for value, ours in pairs if ours]
        return statistics.median(ratios) if ratios else None

    def to_json(self) -> str:
        """Everything, with the raw value of each round."""
        return json.dumps(
            {
                "machine": self.machine,
                "versions": self.versions,
                "options": self.options,
                "figures": {
                    measure: {
                        figure: {
                            system: {
                                "rounds": values,
                                "median": statistics.median(values),
                                "min": min(values),
                                "max": max(values),
                                "ratio_to_goqueue": self.ratio(by_system, system),
                            }
                            for system, values in by_system.items()
                        }
                        for figure, by_system in figures.items()
                    }
                    for measure, figures in self.figures.items()
                },
                "failures": self.failures,
            },
            indent=2,
        )

    def write(self, path: Path) -> None:
        """Write the JSON file."""
        path.write_text(self.to_json() + "\n")


def number(value: float) -> str:
    """A figure with as many digits as it deserves."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(values: list[float], ratio: float | None) -> str:
    """`median (min–max) ratio×`."""
    spread = f" ({number(min(values))}–{number(max(values))})" if len(values) > 1 else ""
    return f"{number(statistics.median(values))}{spread}" + (f" · {ratio:.2f}×" if ratio is not None else "")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A markdown table whose columns line up in a terminal too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in [header, *rows]
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def measure_table(results: Results, measure: str, systems: list[System], units: dict[str, str]) -> str:
    """One measure: a row for each system, a column for each figure."""
    figures = results.figures.get(measure, {})
    header = ["system", "keeps jobs in", *(f"{name} [{units.get(name, '')}]" for name in figures)]
    rows = []
    for system in systems:
        if not any(system.name in by_system for by_system in figures.values()):
            continue
        row = [f"{system.name} {results.versions[system.name]}", system.keeps]
        for by_system in figures.values():
            values = by_system.get(system.name)
            row.append(cell(values, results.ratio(by_system, system.name)) if values else "–")
        rows.append(row)
    return table(header, rows)


def head(results: Results) -> str:
    """The machine and the conditions, as a list."""
    lines = [f"- {name}: {value}" for name, value in results.machine.items()]
    lines.append("- " + ", ".join(f"{name} {value}" for name, value in results.options.items()))
    return "\n".join(lines)


def document(results: Results, systems: list[System], measures: dict[str, dict[str, str]], how: str) -> str:
    """The whole report as markdown."""
    parts = ["# GoQueue beside its peers", head(results)]
    for title, units in measures.items():
        if title in results.figures:
            parts += [f"## {title}", measure_table(results, title, systems, units)]
    parts += ["Each cell: median (min–max) over the rounds · ratio to GoQueue in the same round.", how]
    if results.failures:
        parts.append("Failed:\n" + "\n".join(f"- {failure}" for failure in results.failures))
    return "\n\n".join(parts) + "\n"
