# SPDX-License-Identifier: BSD-3-Clause
"""The page of a report: HTML that needs nothing else, made of a Recording.

Sums, charts and tables are there without a script; the timeline is drawn by report.js into a canvas, from columns that
lie in the page as JSON. A policy in the page forbids it to load anything. Names come from users: whatever is put into
the page is escaped here, and the script writes text only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from shoal._report_charts import histogram, memory_chart
from shoal._report_data import Recording, Sum, Task, drawn
from shoal._report_words import duration, number, share, size

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
PHASES = (("run", "user code"), ("unpickle", "unpickling"), ("pickle", "pickling"), ("wait", "waiting"))
ROWS_MAX = 50
COLOURED = 8  # functions with a colour of their own; report.css has as many


def page(recording: Recording) -> str:
    """Return the whole page."""
    functions = recording.by_function()
    body = "\n".join(
        [
            _header(recording),
            _tiles(recording),
            _timeline(recording, list(functions)),
            _where(recording, functions),
            '<div class="pair">',
            _section("How long elements took", histogram(recording), "Time in user code, on a logarithmic scale."),
            _section("Memory", memory_chart(recording), "What belongs to each process alone, and the shared arena."),
            "</div>",
            _functions(functions),
            _longest(recording),
            _troubles(recording),
            _facts(recording),
        ]
    )
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(recording.title)}: report</title>\n"
        f"<style>\n{_resource('report.css')}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f'<script type="application/json" id="data">{_data(recording, list(functions))}</script>\n'
        f"<script>\n{_resource('report.js')}</script>\n</body>\n</html>\n"
    )


def _resource(name: str) -> str:
    return resources.files("shoal").joinpath(name).read_text(encoding="utf-8")


def _data(recording: Recording, functions: list[str]) -> str:
    """The columns of the timeline. No "<" in it: it could end the element that it lies in."""
    tasks, counts = drawn(recording.tasks)
    place = {name: index for index, name in enumerate(functions)}
    columns = {
        "workers": list(recording.by_worker()),
        "functions": functions,
        "duration": recording.duration,
        "worker": [task.worker for task in tasks],
        "start": [round(task.start, 1) for task in tasks],
        "length": [round(task.duration, 1) for task in tasks],
        "unpickle": [round(task.unpickle, 1) for task in tasks],
        "run": [round(task.run, 1) for task in tasks],
        "pickle": [round(task.pickle, 1) for task in tasks],
        "function": [place[task.function] for task in tasks],
        "elements": [task.elements for task in tasks],
        "bytesIn": [task.bytes_in for task in tasks],
        "bytesOut": [task.bytes_out for task in tasks],
        "outcome": [task.outcome for task in tasks],
        "tasks": counts,
    }
    return json.dumps(columns, separators=(",", ":")).replace("<", "\\u003c")


# ---- sections ----


def _section(title: str, body: str, says: str = "", kind: str = "") -> str:
    note = f'<p class="note">{says}</p>' if says else ""
    return f'<section class="card {kind}"><h2>{escape(title)}</h2>{note}{body}</section>'


def _header(recording: Recording) -> str:
    other = recording.other
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(other.get("started_unix", time.time()))))
    words = [_count(len(recording.by_worker()), "worker"), f"{duration(recording.duration)} recorded", f"from {began}"]
    dropped = int(other.get("dropped", 0) or 0)
    warning = ""
    if dropped:
        warning = (
            f'<p class="warning">{number(dropped)} events came faster than they could be written, and are missing '
            "here: sums and counts are too low.</p>"
        )
    return (
        f'<header><div><h1>{escape(recording.title)}</h1><p class="note">{escape(" · ".join(words))}</p></div>'
        f'<button id="theme" type="button" title="light or dark">◐</button></header>{warning}'
    )


def _tiles(recording: Recording) -> str:
    busy = sum(one.busy for one in recording.by_worker().values())
    run = sum(one.run for one in recording.by_worker().values())
    whole = recording.duration * max(1, len(recording.by_worker()))
    troubles = len(recording.troubles())
    elements = recording.elements
    seconds = recording.duration / 1e6
    tiles = [
        ("tasks", number(len(recording.tasks)), _count(elements, "element")),
        ("per second", number(round(elements / seconds)) if seconds else "–", "elements"),
        ("workers at work", share(busy, whole), f"{share(run, whole)} in user code"),
        ("mean of an element", duration(run / elements) if elements else "–", "in user code"),
        ("errors", number(troubles), _count(recording.restarts(), "worker", "replaced")),
    ]
    if recording.memory:
        peak = max(one.parent + one.workers for one in recording.memory)
        tiles.append(("memory, at most", size(peak), f"arena {size(max(one.arena for one in recording.memory))}"))
    return '<div class="tiles">' + "".join(map(_tile, tiles)) + "</div>"


def _count(count: int, what: str, more: str = "") -> str:
    return f"{number(count)} {what}{'' if count == 1 else 's'} {more}".rstrip()


def _tile(tile: tuple[str, str, str]) -> str:
    label, value, below = map(escape, tile)
    kind = ' class="bad"' if label == "errors" and value != "0" else ""
    return f"<div{kind}><span>{label}</span><strong>{value}</strong><small>{below}</small></div>"


def _timeline(recording: Recording, functions: Sequence[str]) -> str:
    keys = "".join(
        f'<span class="key"><i class="f{index}"></i>{escape(name)}</span>'
        for index, name in enumerate(functions[:COLOURED])
    )
    if len(functions) > COLOURED:
        keys += f'<span class="key"><i class="f{COLOURED}"></i>{len(functions) - COLOURED} more</span>'
    if recording.troubles():
        keys += '<span class="key"><i class="failed"></i>raised, or lost its worker</span>'
    body = (
        f'<div class="tools"><div class="keys">{keys}</div><div class="buttons">'
        '<button type="button" id="in" title="closer (+)">+</button>'
        '<button type="button" id="out" title="further (−)">−</button>'
        '<button type="button" id="all" title="all of it (0)">all</button></div></div>'
        f'<canvas id="timeline" tabindex="0" role="img" data-recorded="{len(recording.tasks)}" '
        'aria-label="what each worker did, over time"></canvas><canvas id="overview" '
        'aria-label="how many workers were at work, over time"></canvas><div id="tip" hidden></div>'
        "<noscript><p>The timeline is drawn by a script.</p></noscript>"
    )
    says = "Drag over a stretch to look closer; Ctrl and wheel, + and −, arrow keys; double click for all of it."
    return _section("Timeline", body, says, "wide")


def _where(recording: Recording, functions: dict[str, Sum]) -> str:
    rows = [("all", list(recording.by_worker().values()))]
    rows += [(f"worker {worker}", [one]) for worker, one in list(recording.by_worker().items())[:ROWS_MAX]]
    keys = "".join(f'<span class="key"><i class="{kind}"></i>{label}</span>' for kind, label in PHASES)
    lines = "".join(_bar(label, sums, recording.duration) for label, sums in rows)
    return _section("Where the time went", f'<div class="keys">{keys}</div><div class="bars">{lines}</div>')


def _bar(label: str, sums: list[Sum], whole: float) -> str:
    spent = {kind: sum(float(getattr(one, kind)) for one in sums) for kind, _ in PHASES[:3]}
    spent["wait"] = max(0.0, whole * len(sums) - sum(spent.values()))
    total = sum(spent.values()) or 1.0
    parts = "".join(
        f'<i class="{kind}" style="flex-grow:{spent[kind] / total:.6f}" '
        f'title="{words}: {duration(spent[kind])}, {share(spent[kind], total)}"></i>'
        for kind, words in PHASES
    )
    told = ", ".join(f"{share(spent[kind], total)} {words}" for kind, words in PHASES if spent[kind] / total >= 0.0005)
    return f'<b>{escape(label)}</b><span class="bar">{parts}</span><small>{told}</small>'


def _functions(functions: dict[str, Sum]) -> str:
    total = sum(one.busy for one in functions.values()) or 1.0
    rows = [
        [
            name,
            number(one.tasks),
            number(one.elements),
            duration(one.busy),
            share(one.busy, total),
            duration(one.run / max(1, one.elements)),
            duration(one.percentile(0.5)),
            duration(one.percentile(0.99)),
            share(one.unpickle + one.pickle, one.busy),
            size(one.bytes_in),
            size(one.bytes_out),
            number(one.failed) if one.failed else "",
        ]
        for name, one in list(functions.items())[:ROWS_MAX]
    ]
    heads = "function,tasks,elements,time,share,mean,median,99 %,pickling,in,out,errors".split(",")
    says = "Mean, median and 99th percentile are those of an element in user code."
    return _section("By function", _table(heads, rows, text=1), says)


def _longest(recording: Recording) -> str:
    return _section("The longest tasks", _tasks(recording.longest()))


def _troubles(recording: Recording) -> str:
    troubles = recording.troubles()
    replaced = [(worker, pids) for worker, pids in recording.pids.items() if len(pids) > 1]
    if not troubles and not replaced:
        return _section("Errors and restarts", '<p class="good">No task failed, and no worker was replaced.</p>')
    body = "".join(
        f"<p>Worker {worker} was replaced {'once' if len(pids) == 2 else f'{len(pids) - 1} times'}: "
        f"processes {escape(', '.join(map(str, pids[:20])))}{' …' if len(pids) > 20 else ''}.</p>"
        for worker, pids in replaced
    )
    says = f"The first {ROWS_MAX} of {number(len(troubles))}." if len(troubles) > ROWS_MAX else ""
    return _section("Errors and restarts", body + (_tasks(troubles[:ROWS_MAX]) if troubles else ""), says)


def _tasks(tasks: Iterable[Task]) -> str:
    words = {
        "raised": "raised an exception",
        "lost": "its worker died",
        "unfinished": "was still running",
        "taken back": "cancelled",
    }
    rows = [
        [
            task.function,
            words.get(task.outcome, task.outcome),
            duration(task.run),
            duration(task.start),
            f"worker {task.worker}",
            number(task.elements),
            size(task.bytes_in),
            size(task.bytes_out),
        ]
        for task in tasks
    ]
    return _table("function,outcome,in user code,began after,where,elements,in,out".split(","), rows, text=2)


def _facts(recording: Recording) -> str:
    rows = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in recording.facts)
    return _section("Where it ran", f"<dl>{rows}</dl>") if rows else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], text: int) -> str:
    """A table whose first columns are text and the others numbers."""
    if not rows:
        return '<p class="note">There were none.</p>'
    kinds = ["text" if index < text else "figure" for index in range(len(heads))]
    head = "".join(f'<th class="{kind}">{escape(one)}</th>' for kind, one in zip(kinds, heads, strict=True))
    lines = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{escape(cell)}</td>' for kind, cell in zip(kinds, row)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
