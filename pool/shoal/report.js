// SPDX-License-Identifier: BSD-3-Clause
// The timeline of a report. However many tasks there are, what is drawn is bounded by the width of the page: tasks that
// are narrower than two pixels are summed up by pixel, in the colour of the function that had most of it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("timeline"), overview = document.getElementById("overview");
  const tip = document.getElementById("tip"), root = document.documentElement;
  const LEFT = 78, TOP = 24, STRIP = 40, COLOURED = 8;
  const workers = data.workers.length, count = data.start.length, whole = Math.max(data.duration, 1);
  const row = workers <= 8 ? 36 : workers <= 24 ? 22 : 14, gap = row > 20 ? 5 : 2;
  const rowOf = new Map(data.workers.map((worker, index) => [worker, index]));
  const first = new Array(workers + 1).fill(count); // tasks are in the order of workers, then of time
  for (let i = count - 1; i >= 0; i--) first[rowOf.get(data.worker[i])] = i;
  for (let r = workers - 1; r >= 0; r--) first[r] = Math.min(first[r], first[r + 1]);
  let from = 0, to = whole, drag = null, colours = {};

  const isDark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  function theme() {
    root.classList.toggle("dark", chosen === null ? isDark.matches : chosen);
    const style = getComputedStyle(root);
    for (const name of ["card", "ink", "soft", "line", "bad", "unpickle", "pickle", "run", "wait"])
      colours[name] = style.getPropertyValue("--" + name);
    colours.f = Array.from({ length: COLOURED + 1 }, (_, i) => style.getPropertyValue("--f" + i));
    draw();
  }

  function words(us) {
    if (us <= 0) return "0";
    for (const [limit, factor, unit] of [[999.5, 1, "µs"], [999500, 1e3, "ms"], [Infinity, 1e6, "s"]])
      if (us < limit) return String(Number((us / factor).toPrecision(4))) + " " + unit;
  }
  function size(bytes) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let i = 0;
    for (; bytes >= 1000 && i < 4; i++) bytes /= 1024;
    return String(Number(bytes.toPrecision(3))) + " " + units[i];
  }

  function prepare(element, height) {
    const scale = window.devicePixelRatio || 1, width = element.clientWidth;
    element.style.height = height + "px";
    element.width = Math.round(width * scale);
    element.height = Math.round(height * scale);
    const pen = element.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    return [pen, width];
  }

  function axis(pen, width, height) {
    const room = width - LEFT, rough = (to - from) / Math.max(2, room / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((part) => power * part >= rough);
    pen.textAlign = "center";
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      const x = Math.round(LEFT + ((at - from) / (to - from)) * room) + 0.5;
      pen.strokeStyle = colours.line;
      pen.beginPath(); pen.moveTo(x, TOP - 4); pen.lineTo(x, height); pen.stroke();
      pen.fillStyle = colours.soft;
      if (x < width - 24 && x > LEFT + 8) pen.fillText(words(at), x, 9);
    }
  }

  const colour = (function_) => colours.f[Math.min(function_, COLOURED)];

  // The first task of this row that ends after `at`; tasks of a worker do not overlap.
  function firstAfter(r, at) {
    let low = first[r], high = first[r + 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (data.start[middle] + data.length[middle] < at) low = middle + 1; else high = middle;
    }
    return low;
  }

  function wide(pen, i, x, y, width) { // one task that has room for its parts
    const total = data.unpickle[i] + data.run[i] + data.pickle[i] || 1, height = row - gap;
    pen.fillStyle = colour(data.function[i]);
    pen.fillRect(x, y, Math.max(width - 0.5, 1), height);
    const before = (width * data.unpickle[i]) / total, after = (width * data.pickle[i]) / total;
    pen.fillStyle = colours.unpickle;
    if (before > 1) pen.fillRect(x, y, before, height);
    pen.fillStyle = colours.pickle;
    if (after > 1) pen.fillRect(x + width - after - 0.5, y, after, height);
    if (width > 46 && height > 12) {
      const left = Math.max(x, LEFT), right = Math.min(x + width, pen.canvas.clientWidth);
      pen.save();
      pen.beginPath(); pen.rect(left, y, right - left - 4, height); pen.clip();
      pen.fillStyle = "#fff"; pen.textAlign = "left";
      const more = data.tasks[i] > 1 ? "  × " + data.tasks[i] : data.elements[i] > 1 ? "  [" + data.elements[i] + "]" : "";
      pen.fillText(data.functions[data.function[i]] + more, left + 6, y + height / 2 + 0.5);
      pen.restore();
    }
  }

  function drawRow(pen, r, width) {
    const y = TOP + r * row, height = row - gap, room = width - LEFT, perPixel = room / (to - from);
    pen.fillStyle = colours.soft; pen.textAlign = "left";
    if (row > 16 || r % 2 === 0) pen.fillText("worker " + data.workers[r], 0, y + height / 2);
    pen.globalAlpha = 0.35; pen.fillStyle = colours.wait;
    pen.fillRect(LEFT, y, room, height);
    pen.globalAlpha = 1;
    const cover = new Float64Array(room + 2), most = new Float64Array(room + 2), best = new Int32Array(room + 2).fill(-1);
    const failed = [];
    let tasks = 0;
    for (let i = firstAfter(r, from); i < first[r + 1] && data.start[i] <= to; i++) {
      const x = (data.start[i] - from) * perPixel, w = data.length[i] * perPixel;
      tasks += data.tasks[i];
      if (data.outcome[i] === "raised" || data.outcome[i] === "lost") failed.push([x, w]);
      if (w >= 2) {
        const left = Math.max(x, -2);
        wide(pen, i, LEFT + left, y, Math.min(x + w, room + 2) - left);
        continue;
      }
      const pixel = Math.min(Math.max(Math.floor(x), 0), room | 0), share = Math.max(w, 0.02);
      cover[pixel] += share;
      if (share > most[pixel]) { most[pixel] = share; best[pixel] = data.function[i]; }
    }
    for (let pixel = 0; pixel <= room; pixel++) {
      if (best[pixel] < 0) continue;
      pen.globalAlpha = Math.min(1, 0.3 + 0.7 * cover[pixel]);
      pen.fillStyle = colour(best[pixel]);
      pen.fillRect(LEFT + pixel, y, 1, height);
    }
    pen.globalAlpha = 1;
    pen.fillStyle = colours.bad;
    for (const [x, w] of failed) pen.fillRect(LEFT + Math.max(x, 0), y + height - 4, Math.max(Math.min(w, room - x), 3), 4);
    return tasks;
  }

  function draw() {
    const height = TOP + workers * row + 2;
    const [pen, width] = prepare(canvas, height);
    if (width <= LEFT) return;
    axis(pen, width, height);
    let tasks = 0;
    for (let r = 0; r < workers; r++) tasks += drawRow(pen, r, width);
    canvas.dataset.drawn = tasks;
    if (drag && drag.kind === "select") {
      pen.globalAlpha = 0.15; pen.fillStyle = colours.ink;
      pen.fillRect(Math.min(drag.x, drag.now), TOP - 4, Math.abs(drag.now - drag.x), height - TOP + 4);
      pen.globalAlpha = 1;
    }
    drawOverview();
  }

  let busy = null; // by column of the overview: how many workers were at work
  function busyBy(columns) {
    if (busy && busy.length === columns) return busy;
    busy = new Float64Array(columns);
    const column = whole / columns;
    for (let i = 0; i < count; i++) {
      const end = data.start[i] + data.length[i];
      for (let c = Math.floor(data.start[i] / column); c < columns && c * column < end; c++)
        busy[c] += Math.max(0, Math.min(end, (c + 1) * column) - Math.max(data.start[i], c * column)) / column;
    }
    return busy;
  }

  function drawOverview() {
    const [pen, width] = prepare(overview, STRIP);
    const room = Math.floor(width - LEFT);
    if (room < 4) return;
    const columns = busyBy(Math.floor(room / 2)), wide = room / columns.length;
    pen.fillStyle = colours.soft; pen.textAlign = "left";
    pen.fillText("at work", 0, STRIP / 2);
    pen.fillStyle = colours.run; pen.globalAlpha = 0.55;
    columns.forEach((value, c) => {
      const height = (STRIP - 2) * Math.min(1, value / workers);
      pen.fillRect(LEFT + c * wide, STRIP - 1 - height, wide, height);
    });
    pen.globalAlpha = 1;
    pen.strokeStyle = colours.line; pen.strokeRect(LEFT + 0.5, 0.5, room - 1, STRIP - 1);
    const left = LEFT + (from / whole) * room, right = LEFT + (to / whole) * room;
    pen.fillStyle = colours.card; pen.globalAlpha = 0.7;
    pen.fillRect(LEFT, 0, left - LEFT, STRIP); pen.fillRect(right, 0, LEFT + room - right, STRIP);
    pen.globalAlpha = 1;
    pen.strokeStyle = colours.ink; pen.lineWidth = 1.5;
    pen.strokeRect(left + 0.75, 0.75, Math.max(right - left - 1.5, 2), STRIP - 1.5);
  }

  function look(a, b) {
    const least = Math.min(whole, Math.max(whole / 1e7, 1));
    let span = Math.min(Math.max(b - a, least), whole);
    from = Math.min(Math.max((a + b - span) / 2, 0), whole - span);
    to = from + span;
    tip.hidden = true;
    draw();
  }
  const zoom = (factor, at = (from + to) / 2) => look(at - (at - from) * factor, at + (to - at) * factor);
  const timeAt = (x) => from + ((Math.max(x, LEFT) - LEFT) / (canvas.clientWidth - LEFT)) * (to - from);

  function tell(event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const r = Math.floor((y - TOP) / row);
    tip.hidden = true;
    if (r < 0 || r >= workers || x < LEFT) return;
    const pixel = (to - from) / (canvas.clientWidth - LEFT), at = timeAt(x);
    let i = firstAfter(r, at - pixel), last = i, tasks = 0;
    for (; last < first[r + 1] && data.start[last] <= at + pixel; last++) tasks += data.tasks[last];
    if (i === last) return;
    for (let j = i; j < last; j++) if (data.length[j] > data.length[i]) i = j;
    const lines = [data.functions[data.function[i]] + (data.elements[i] > 1 ? ", " + data.elements[i] + " elements" : "")];
    lines.push("worker " + data.workers[r] + ", after " + words(data.start[i]));
    lines.push("user code " + words(data.run[i]) + ", unpickling " + words(data.unpickle[i]) + ", pickling " +
               words(data.pickle[i]));
    if (data.bytesIn[i] || data.bytesOut[i])
      lines.push(size(data.bytesIn[i]) + " in, " + size(data.bytesOut[i]) + " out");
    if (data.outcome[i] !== "done")
      lines.push({ raised: "raised an exception", lost: "its worker died", unfinished: "was still running" }
        [data.outcome[i]] || data.outcome[i]);
    if (data.tasks[i] > 1) lines.push(data.tasks[i] + " tasks, drawn as one");
    else if (tasks > 1) lines.push("the longest of " + tasks + " tasks here");
    tip.textContent = lines.join("\n");
    tip.hidden = false;
    const card = canvas.parentElement.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(event.clientX - card.left + 14, card.width - tip.offsetWidth - 12)) + "px";
    tip.style.top = event.clientY - card.top + 16 + "px";
  }

  canvas.addEventListener("pointerdown", (event) => {
    drag = { kind: event.shiftKey ? "pan" : "select", x: event.offsetX, now: event.offsetX, from, to };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return tell(event);
    drag.now = event.offsetX;
    const moved = ((drag.x - drag.now) / (canvas.clientWidth - LEFT)) * (drag.to - drag.from);
    if (drag.kind === "pan") look(drag.from + moved, drag.to + moved); else draw();
  });
  canvas.addEventListener("pointerup", () => {
    const done = drag;
    drag = null;
    if (done && done.kind === "select" && Math.abs(done.now - done.x) > 4)
      look(Math.min(timeAt(done.x), timeAt(done.now)), Math.max(timeAt(done.x), timeAt(done.now)));
    else draw();
  });
  canvas.addEventListener("pointercancel", () => { drag = null; draw(); });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("dblclick", () => look(0, whole));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(event.deltaY * 0.002), timeAt(event.offsetX));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const span = to - from;
    const does = { "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => look(0, whole),
                   ArrowLeft: () => look(from - span / 4, to - span / 4),
                   ArrowRight: () => look(from + span / 4, to + span / 4) }[event.key];
    if (does) { event.preventDefault(); does(); }
  });
  function slide(event) {
    const at = ((event.offsetX - LEFT) / (overview.clientWidth - LEFT)) * whole, half = (to - from) / 2;
    look(at - half, at + half);
  }
  overview.addEventListener("pointerdown", (event) => { overview.setPointerCapture(event.pointerId); slide(event); });
  overview.addEventListener("pointermove", (event) => { if (event.buttons) slide(event); });
  document.getElementById("in").addEventListener("click", () => zoom(0.5));
  document.getElementById("out").addEventListener("click", () => zoom(2));
  document.getElementById("all").addEventListener("click", () => look(0, whole));
  document.getElementById("theme").addEventListener("click", () => {
    chosen = !root.classList.contains("dark");
    theme();
  });
  isDark.addEventListener("change", theme);
  window.addEventListener("resize", draw);
  theme();
})();
