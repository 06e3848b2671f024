# SPDX-License-Identifier: BSD-3-Clause
"""What one reads: a line per row while it is measured, and the same as JSON."""

import json
import pathlib
import platform
import statistics
import sys
import time

import frame

SCALES = {"ns": 1e9, "us": 1e6, "ms": 1e3}
NOISY_SHARE = 0.10  # above this part of the machine's CPU time used by others, a line is marked

OF_A_SIDE = ("median", "mean", "CPU")
HEADINGS = ("row", "unit", *OF_A_SIDE, *OF_A_SIDE, "faster by", "goal", "min..max", "of means", "others")
WIDTHS = (32, 4, 9, 9, 9, 9, 9, 9, 9, 8, 15, 9, 7)


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(ratio: float) -> str:
    return f"{number(ratio)} x"


def columns(words) -> str:
    first, *rest = zip(words, WIDTHS, strict=True)
    name, width = first
    begin = f"{name:<{width}}" if len(name) <= width else f"{name}\n{'':{width}}"  # a long name has a line of its own
    return begin + "".join(f" {word:>{width}}" for word, width in rest)


def heading() -> str:
    sides = f"{'':{WIDTHS[0] + 5}}{'ours':-^30}{'theirs':-^30}"
    return f"{sides}\n{columns(HEADINGS)}"


def side_words(result: frame.Result, side: str) -> list[str]:
    if side not in result.samples:
        return ["", "", ""]
    scale = SCALES[result.row.unit]
    seconds, cpu = result.seconds(side), result.cpu_per_operation(side)
    figures = [statistics.median(seconds), statistics.fmean(seconds), cpu]
    return [number(figure if figure is None else figure * scale) for figure in figures]


def goal_word(result: frame.Result) -> str:
    reached = result.reaches_goal()
    return "" if reached is None else f"{result.row.goal:.3g} x" + ("  " if reached else " <")


def line(result: frame.Result) -> str:
    name = result.row.name
    if result.skipped:
        return f"{name:<{WIDTHS[0]}}  skipped: {result.skipped}"
    if result.failed:
        return f"{name:<{WIDTHS[0]}}  FAILED: {result.failed}"
    ratio_words = ["", "", "", ""]
    if result.row.theirs:
        ratios = result.ratios()
        spread = f"{number(min(ratios))}..{number(max(ratios))}"
        ratio_words = [times(result.ratio()), goal_word(result), spread, times(result.ratio_of_means())]
    others = f"{result.foreign_share:.0%}" + ("!" if result.foreign_share > NOISY_SHARE else " ")
    sides = side_words(result, frame.OURS) + side_words(result, frame.THEIRS)
    own_line = columns([name, result.row.unit, *sides, *ratio_words, others]).rstrip()
    return "\n".join([own_line, *single_calls(result)])


def single_calls(result: frame.Result) -> list[str]:
    """A line about single calls, if they were timed."""
    scale, words = SCALES[result.row.unit], []
    for side in result.row.sides():
        timed = result.of_single_calls(side)
        if timed:
            words.append(f"{side} p50 {number(timed[0] * scale)}, p99 {number(timed[1] * scale)}")
    return [f"{'':{WIDTHS[0]}} single calls: {'; '.join(words)} {result.row.unit}"] if words else []


def means(results: list[frame.Result], goals: dict[str, float]) -> list[str]:
    """A line for each family of which at least two rows were measured: the geometric mean of their ratios."""
    lines = []
    for family, goal in goals.items():
        ratios = [result.ratio() for result in results if result.row.family == family and result.has_ratio()]
        if len(ratios) > 1:
            mean = statistics.geometric_mean(ratios)
            verdict = "reached" if mean >= goal else "MISSED"
            lines.append(f"{family}: geometric mean of {len(ratios)} rows {times(mean)}, goal {goal:.3g} x, {verdict}")
    return lines


def verdict(results: list[frame.Result]) -> list[str]:
    """How many rows reach their goals and keep under their limits, and which do not."""
    rated = [result for result in results if result.reaches_goal() is not None]
    limited = [result for result in results if result.keeps_limit() is not None]
    lines = []
    if rated:
        missed = [result for result in rated if not result.reaches_goal()]
        lines += [f"{len(rated) - len(missed)} of {len(rated)} rows reach their goal"]
        lines += [f"  missed: {each.row.name}, {times(each.ratio())} of {each.row.goal:.3g} x" for each in missed]
    if limited:
        over = [result for result in limited if not result.keeps_limit()]
        lines += [f"{len(limited) - len(over)} of {len(limited)} rows keep under their limit"]
        lines += [f"  over: {each.row.name}, {limit_words(each)}" for each in over]
    return lines


def limit_words(result: frame.Result) -> str:
    scale, unit = SCALES[result.row.unit], result.row.unit
    mean = statistics.fmean(result.seconds(frame.OURS))
    return f"mean {number(mean * scale)} of at most {number(result.row.limit * scale)} {unit}"


LEGEND = f"""
Time of one operation: median and mean of the rounds; CPU: CPU time of one operation, of all processes of that side.
faster by: median, over the pairs of rounds, of theirs / ours, with the least and the greatest; of means: mean time of
theirs / mean time of ours. goal: what `faster by` is to be at least; < where it is not. others: the part of the
machine's CPU time that other processes used while the row ran (over {NOISY_SHARE:.0%} is marked with !), the busy
ones that belong to the row not counted. single calls: median and 99th percentile, where each call was timed."""


def write_json(path: pathlib.Path, results: list[frame.Result]) -> None:
    about = {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rows": [result.as_dict() for result in results],
    }
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
