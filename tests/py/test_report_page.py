# SPDX-License-Identifier: BSD-3-Clause
"""The page of a report, made of traces that the tests write, as a real browser shows it."""

import io
import json
import random

import pytest

import browser
from shoal import _report_data as data
from shoal import _report_page as pages

HOSTILE = [
    "</script><script>document.title='taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "<b>\"quoted\" & 'single'</b>",
    "<lambda>",
    "naïve ☃ \u2028 \u202e",
]
needs_browser = pytest.mark.skipif(
    browser.find() is None, reason="no chromium on this machine: apt-get install chromium"
)


def event(number, worker, start, parts, name="work", outcome="done", **more):
    unpickle, run, pickle = parts
    args = {
        "task": number,
        "worker": worker,
        "attempt": 0,
        "started": start + unpickle,
        "ended": start + unpickle + run,
        "elements": 1,
        "bytes_in": 100,
        "bytes_out": 50,
        "outcome": outcome,
        **more,
    }
    return {"ph": "X", "cat": "task", "name": name, "ts": start, "dur": sum(parts), "pid": 500 + worker, "args": args}


def many(count, workers=4, names=("simulate", "load", "score"), failing=0.0):
    chance = random.Random(1)
    ends = [0.0] * workers
    for number in range(count):
        worker = min(range(workers), key=ends.__getitem__)
        start = ends[worker] + chance.expovariate(1 / 50)
        parts = (chance.expovariate(1 / 5), chance.lognormvariate(6, 1), chance.expovariate(1 / 5))
        ends[worker] = start + sum(parts)
        outcome = "raised" if chance.random() < failing else "done"
        yield event(number, worker, start, parts, chance.choice(names), outcome)


def recording_of(events, **other):
    return data.gather(events, {"workers": 4, "started_unix": 1.7e9, **other})


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if browser.find() is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def shown(chromium, tmp_path):
    """Show a recording; at the end, nothing may have been logged, or asked of the network."""
    path = tmp_path / "page.html"
    chromium.logged.clear()
    chromium.requests.clear()

    def show(recording):
        path.write_text(pages.page(recording), encoding="utf-8")
        chromium.open(path)
        return chromium

    yield show
    chromium.value("1")  # what it has logged meanwhile comes before the answer
    assert not chromium.logged
    assert {url for url in chromium.requests if not url.startswith("data:")} == {path.as_uri()}


def drawn(page):
    return int(page.value("document.getElementById('timeline').dataset.drawn"))


def test_every_task_is_drawn_and_none_twice(shown):
    page = shown(recording_of(many(1500, failing=0.01)))
    assert drawn(page) == 1500
    assert page.value("document.getElementById('timeline').dataset.recorded") == "1500"


def test_something_is_to_be_seen(shown):
    image = pytest.importorskip("matplotlib.image")
    recording = recording_of(many(400))
    recording.memory = [data.Memory(at / 100, 10**8 + at, 2 * 10**8, at * 10**5) for at in range(100)]
    picture = image.imread(io.BytesIO(shown(recording).screenshot()))
    colours = {tuple(pixel) for row in (picture[::7, ::7, :3] * 255).astype(int) for pixel in row}
    assert picture.shape[0] > 1000 and len(colours) > 12


def test_it_can_be_looked_at_more_closely_and_as_a_whole_again(shown):
    page = shown(recording_of(many(2000)))
    for button, fewer in (("in", True), ("in", True), ("all", False)):
        page.value(f"document.getElementById('{button}').click()")
        assert (drawn(page) < 2000) == fewer
    box = page.value("(({x, y, width}) => [x, y, width])(document.getElementById('timeline').getBoundingClientRect())")
    left, top = box[0] + 200, box[1] + 40
    page.mouse("mousePressed", left, top, button="left", clickCount=1)
    page.mouse("mouseMoved", left + 150, top, button="left")
    page.mouse("mouseReleased", left + 150, top, button="left", clickCount=1)
    assert 0 < drawn(page) < 600
    for key, fewer in (("ArrowRight", True), ("-", True), ("0", False)):
        page.value(f"document.getElementById('timeline').dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))")
        assert (drawn(page) < 2000) == fewer


def test_what_is_under_the_pointer_is_told(shown):
    page = shown(recording_of([event(1, 0, 0.0, (2e5, 6e5, 2e5), "slow", "raised"), event(2, 1, 0.0, (0, 10, 0))]))
    x, y = page.value(
        "(({x, y, width}) => [x + width / 2, y + 40])(document.getElementById('timeline').getBoundingClientRect())"
    )
    page.mouse("mouseMoved", x, y)
    said = page.value("document.getElementById('tip').textContent")
    assert "slow" in said and "worker 0" in said and "user code 600 ms" in said and "raised an exception" in said


def test_names_are_text_whatever_is_in_them(shown):
    recording = recording_of(many(100, names=HOSTILE))
    recording.title = HOSTILE[0]
    recording.facts = [(HOSTILE[1], HOSTILE[0])]
    page = shown(recording)
    assert drawn(page) == 100
    assert page.value("document.title").startswith("</script>")
    assert page.value("document.querySelectorAll('img, b:not(.bars b), script:not([id])').length") == 1  # its own
    cells = page.value("[...document.querySelectorAll('td')].map(cell => cell.textContent)")
    assert set(HOSTILE) <= set(cells)
    assert page.value("document.querySelector('h1').textContent") == HOSTILE[0]


@pytest.mark.parametrize("count", [0, 1])
def test_few_tasks_are_a_page_too(shown, count):
    page = shown(recording_of(many(count)))
    assert drawn(page) == count
    assert "worker 3" in page.value("document.body.textContent")


def test_a_hundred_thousand_tasks_are_a_page(shown):
    assert drawn(shown(recording_of(many(100_000)))) == 100_000


def test_of_more_neighbours_are_drawn_as_one_and_none_is_forgotten(shown, monkeypatch):
    monkeypatch.setattr(data.drawn, "__defaults__", (2000,))
    recording = recording_of(many(20_000))
    records, counts = data.drawn(recording.tasks)
    assert len(records) <= 2 * 2000 and sum(counts) == 20_000
    assert sum(one.run for one in records) == pytest.approx(sum(one.run for one in recording.tasks))
    assert drawn(shown(recording)) == 20_000


def test_it_is_dark_where_that_is_wanted_and_can_be_changed(shown):
    page = shown(recording_of(many(50)))
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.value(ground)
    page.value("document.getElementById('theme').click()")
    dark = page.value(ground)
    page.value("document.getElementById('theme').click()")
    assert light == page.value(ground) != dark


def test_nothing_is_wider_than_a_small_screen(shown):
    page = shown(recording_of(many(300, names=["a_function_with_a_very_long_name_" * 5, "f"])))
    try:
        page.ask("Emulation.setDeviceMetricsOverride", width=420, height=900, deviceScaleFactor=1, mobile=False)
        assert page.value("document.documentElement.scrollWidth") <= 420
    finally:
        page.ask("Emulation.setDeviceMetricsOverride", width=1300, height=1800, deviceScaleFactor=1, mobile=False)


# ---- what it is made of ----


def test_the_page_needs_nothing_else():
    page = pages.page(recording_of(many(30)))
    assert "default-src 'none'" in page
    assert not any(word in page for word in ("http://", "https://", "@import", "url("))


def test_sums_are_those_of_all_tasks():
    events = list(many(500, failing=0.02))
    recording = recording_of(events)
    by_function, by_worker = recording.by_function(), recording.by_worker()
    run = sum(one["args"]["ended"] - one["args"]["started"] for one in events)
    assert sum(one.run for one in by_function.values()) == pytest.approx(run)
    assert sum(one.run for one in by_worker.values()) == pytest.approx(run)
    assert sum(recording.element_times.values()) == 500
    assert [one.run for one in recording.longest()] == sorted((one.run for one in recording.tasks), reverse=True)[:5]
    assert len(recording.troubles()) == sum(one["args"]["outcome"] == "raised" for one in events) > 0


def test_elements_that_are_told_one_by_one_are_counted_as_they_were():
    task = event(7, 0, 0.0, (1, 1000, 1), elements=100, first=0)
    told = {"ph": "X", "cat": "element", "name": "work[0:99]", "ts": 1, "dur": 99, "args": {"task": 7, "count": 99}}
    last = {"ph": "X", "cat": "element", "name": "work[99]", "ts": 100, "dur": 901, "args": {"task": 7, "count": 1}}
    times = recording_of([told, last, task]).element_times
    assert times == {data.bin_of(1): 99, data.bin_of(901): 1}


def test_a_worker_that_was_replaced_is_told():
    events = [event(1, 0, 0.0, (0, 10, 0), outcome="lost"), {**event(2, 0, 50.0, (0, 10, 0)), "pid": 777}]
    recording = recording_of(events)
    assert recording.restarts() == 1
    page = pages.page(recording)
    assert "Worker 0 was replaced once: processes 500, 777" in page and "its worker died" in page


def test_missing_and_odd_times_harm_nothing():
    broken = [
        event(1, 0, 5.0, (1, 2, 3), started=None, ended=None, outcome="lost"),
        event(2, 0, 20.0, (1, 2, 3), started=999.0, ended=-5.0),
        {"cat": "task", "name": "bare"},
        {"cat": "phase"},
        {},
    ]
    recording = recording_of(broken)
    assert [one.unpickle >= 0 and one.run >= 0 and one.pickle >= 0 for one in recording.tasks] == [True] * 3
    assert "bare" in pages.page(recording)


@pytest.mark.parametrize("form", ["lines", "one line", "indented"])
def test_a_trace_is_read_in_whatever_form_it_is_written(tmp_path, form):
    events, other = list(many(20)), {"workers": 4, "shoal": "0.1.0", "dropped": 3}
    path = tmp_path / "trace.json"
    whole = {"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}
    if form == "lines":
        lines = ",\n".join(map(json.dumps, events))
        path.write_text(f'{{"traceEvents": [\n{lines}\n],\n"otherData": {json.dumps(other)}}}\n')
    else:
        path.write_text(json.dumps(whole, indent=1 if form == "indented" else None))
    read_events, read_other = data.read(path)
    recording = data.gather(read_events, read_other)
    assert len(recording.tasks) == 20 and read_other == other
    assert "3 events" in pages.page(recording)
