# SPDX-License-Identifier: BSD-3-Clause
"""Times, sizes and numbers as a person reads them."""

from __future__ import annotations


def duration(microseconds: float) -> str:
    """As "1.23 ms"; three digits that count."""
    if microseconds <= 0:
        return "0"
    for limit, factor, unit in ((1e3, 1.0, "µs"), (1e6, 1e3, "ms"), (120e6, 1e6, "s")):
        if microseconds < limit * 0.9995:
            return f"{_three(microseconds / factor)} {unit}"
    seconds = round(microseconds / 1e6)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def round_duration(microseconds: float) -> str:
    """The same of a power of ten, as "10 ms"."""
    for limit, factor, unit in ((0.5, 1e-3, "ns"), (5e2, 1.0, "µs"), (5e5, 1e3, "ms")):
        if microseconds < limit:
            return f"{microseconds / factor:.0f} {unit}"
    return f"{microseconds / 1e6:.0f} s"


def size(count: float) -> str:
    """As "1.5 MiB"."""
    if count <= 0:
        return "0"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{_three(count)} {unit}"
        count /= 1024
    return f"{_three(count)} TiB"


def number(count: int) -> str:
    """With a thin space between thousands."""
    return f"{count:,}".replace(",", "\u202f")


def share(part: float, whole: float) -> str:
    """As "12 %"; what is there and rounds to nothing is "< 0.1 %"."""
    percent = 100 * part / whole if whole > 0 else 0.0
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"


def _three(value: float) -> str:
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f}"
