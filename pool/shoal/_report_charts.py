# SPDX-License-Identifier: BSD-3-Clause
"""The charts of a report that need no script: SVG, whose colours the page's style sheet gives."""

from __future__ import annotations

import math

from shoal._report_data import BINS_PER_DECADE, Recording, start_of_bin, thinned
from shoal._report_words import duration, number, round_duration, share, size

WIDTH, HEIGHT = 560.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 12.0, 30.0
LINES = (("parent", "this process"), ("workers", "its workers together"), ("arena", "shared arena"))


def histogram(recording: Recording) -> str:
    """How many elements took how long."""
    times = recording.element_times
    if not times:
        return '<p class="note">No task ended.</p>'
    first = math.floor(min(times) / BINS_PER_DECADE) * BINS_PER_DECADE
    last = max(math.ceil((max(times) + 1) / BINS_PER_DECADE) * BINS_PER_DECADE, first + BINS_PER_DECADE)
    most, total = max(times.values()), sum(times.values())
    step = (WIDTH - LEFT - RIGHT) / (last - first)
    top, ticks = _scale(most)
    parts = [_across(value / top, _short(value)) for value in ticks]
    for place in range(first, last):
        count = times[place]
        x, height = LEFT + (place - first) * step, (HEIGHT - TOP - BOTTOM) * count / top
        if count:
            says = f"{duration(start_of_bin(place))} to {duration(start_of_bin(place + 1))}: {number(count)} elements"
            parts.append(
                f'<rect class="run" x="{x + 1:.1f}" y="{HEIGHT - BOTTOM - max(height, 1):.1f}" '
                f'width="{max(step - 2, 1):.1f}" height="{max(height, 1):.1f}" rx="2">'
                f"<title>{says}, {share(count, total)}</title></rect>"
            )
    every = 1 if last - first <= 8 * BINS_PER_DECADE else 2
    for place in range(first, last + 1, BINS_PER_DECADE * every):
        parts.append(_below((place - first) / (last - first), round_duration(start_of_bin(place))))
    return _svg("histogram", "how many elements took how long", parts)


def memory_chart(recording: Recording) -> str:
    """What the processes had over time."""
    samples = thinned(recording.memory)
    if len(samples) < 2:
        return '<p class="note">It was too short to look at the memory twice.</p>'
    until = max(samples[-1].at, recording.duration / 1e6)
    top, ticks = _scale(max(max(one.parent, one.workers, one.arena) for one in samples) / 2**20)
    parts = [_across(value / top, size(value * 2**20)) for value in ticks]
    parts += [_below(part / 4, duration(part / 4 * until * 1e6)) for part in range(5)]
    for name, _ in LINES:
        points = [
            (LEFT + (WIDTH - LEFT - RIGHT) * one.at / until, _height(getattr(one, name) / 2**20 / top))
            for one in samples
        ]
        path = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
        floor = f"L{points[-1][0]:.1f} {HEIGHT - BOTTOM:.1f} L{points[0][0]:.1f} {HEIGHT - BOTTOM:.1f} Z"
        parts.append(f'<path class="area {name}" d="{path} {floor}"/><path class="line {name}" d="{path}"/>')
    keys = "".join(
        f'<span class="key"><i class="{name}"></i>{words}, at most {size(max(getattr(one, name) for one in samples))}'
        "</span>"
        for name, words in LINES
    )
    return f'<div class="keys">{keys}</div>' + _svg("memory", "memory over time", parts)


def _scale(most: float) -> tuple[float, list[float]]:
    """Where the axis ends, and what is written beside it: two to five round numbers."""
    if most <= 0:
        return 1.0, [0.0, 1.0]
    step = 10.0 ** math.floor(math.log10(most))
    step = next(step * part for part in (0.2, 0.5, 1, 2) if most / (step * part) <= 5)
    if most >= 1:
        step = max(step, 1.0)
    top = step * math.ceil(most / step * 1.0001)
    return top, [step * index for index in range(round(top / step) + 1)]


def _short(count: float) -> str:
    """A round number, as short as it can be."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            return f"{count / (1e3 if unit == 'k' else limit):g} {unit}"
    return number(round(count))


def _height(part: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part


def _across(part: float, label: str) -> str:
    y = _height(part)
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _below(part: float, label: str) -> str:
    x = LEFT + (WIDTH - LEFT - RIGHT) * part
    anchor = "end" if part == 1 else "middle"
    return f'<text class="axis" x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{label}</text>'


def _svg(name: str, says: str, parts: list[str]) -> str:
    return (
        f'<svg id="{name}" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{says}">'
        + "".join(parts)
        + "</svg>"
    )
