"""Plots as inline SVG: an interval beside its scale, a line over the runs, bars of counts.

Each says in words what it shows, for those who can not see it. Colours come from the style sheet around it. Knows
numbers and labels, and no report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 160, 20
LINE_HEIGHT = 48


def interval_plot(value: float, low: float, high: float, label: str) -> str:
    """Return a bar from ``low`` to ``high`` with a dot at ``value``, on a scale from 0 to 1."""
    x, start, end = (_place(number) for number in (value, low, high))
    middle = HEIGHT / 2
    shapes = [
        f'<line class="scale" x1="0" y1="{middle:g}" x2="{WIDTH}" y2="{middle:g}"/>',
        f'<line class="interval" x1="{start:.1f}" y1="{middle:g}" x2="{end:.1f}" y2="{middle:g}"/>',
        f'<circle class="value" cx="{x:.1f}" cy="{middle:g}" r="4"/>',
    ]
    return _svg(WIDTH, HEIGHT, f"{label}: {value:.3f}, interval {low:.3f} to {high:.3f}", shapes)


def line_plot(values: Sequence[float], label: str) -> str:
    """Return a line through values from 0 to 1, the oldest first, with a dot on the last; empty for less than two."""
    if len(values) < 2:
        return ""
    step = WIDTH / (len(values) - 1)
    points = [
        (number * step, LINE_HEIGHT - 4 - (LINE_HEIGHT - 8) * min(1.0, max(0.0, value)))
        for number, value in enumerate(values)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    shapes = [
        f'<line class="scale" x1="0" y1="{LINE_HEIGHT - 4}" x2="{WIDTH}" y2="{LINE_HEIGHT - 4}"/>',
        f'<polyline class="line" points="{path}"/>',
        f'<circle class="value" cx="{x:.1f}" cy="{y:.1f}" r="3"/>',
    ]
    said = f"{label} over {len(values)} runs: from {values[0]:.3f} to {values[-1]:.3f}"
    return _svg(WIDTH, LINE_HEIGHT, said, shapes)


def bar_plot(counts: Mapping[str, int], label: str) -> str:
    """Return a bar for each count with its name and number beside it; empty if all are 0."""
    most = max(counts.values(), default=0)
    if not most:
        return ""
    row, left, room = 24, 150, 220
    shapes = []
    for number, (name, count) in enumerate(counts.items()):
        y = number * row
        shapes += [
            f'<text x="0" y="{y + 16}">{escape(name)}</text>',
            f'<rect class="bar" x="{left}" y="{y + 4}" width="{room * count / most:.1f}" height="16"/>',
            f'<text x="{left + room * count / most + 6:.1f}" y="{y + 16}">{count}</text>',
        ]
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    return _svg(left + room + 50, row * len(counts), f"{label}: {told}", shapes)


def _place(number: float) -> float:
    return 4 + (WIDTH - 8) * min(1.0, max(0.0, number))


def _svg(width: int, height: int, said: str, shapes: Sequence[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(said)}" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}">{"".join(shapes)}</svg>'
    )
