# SPDX-License-Identifier: BSD-3-Clause
"""A browser for tests: chromium without a window, told what to do over the pipe of its debugging protocol."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess

START_S = 90


def find():
    """The path of a browser, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page. What it logs and what it asks the network for is kept."""

    def __init__(self, profile, width=1300, height=1800, dark=False):
        to_it, own_out = os.pipe()
        own_in, from_it = os.pipe()
        moved = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in (to_it, from_it)]  # not 3 or 4 themselves
        command = [
            find(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            command,
            pass_fds=(3, 4),
            preexec_fn=lambda: (os.dup2(moved[0], 3), os.dup2(moved[1], 4)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},  # not under our sanitizers
        )
        for descriptor in (to_it, from_it, *moved):
            os.close(descriptor)
        self._out, self._in = os.fdopen(own_out, "wb"), os.fdopen(own_in, "rb")
        self._number, self._said = 0, b""
        self.logged, self.requests, self.events = [], [], []
        self._session = None
        target = next(one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)

    def ask(self, method, **parameters):
        self._number += 1
        question = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            question["sessionId"] = self._session
        self._out.write(json.dumps(question).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self):
        while b"\0" not in self._said:
            more = self._in.read1(1 << 16)
            assert more, "the browser has ended"
            self._said += more
        said, _, self._said = self._said.partition(b"\0")
        message = json.loads(said)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method, about):
        self.events.append(method)
        if method == "Runtime.exceptionThrown":
            self.logged.append(about["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled":
            self.logged.append(about["args"])
        elif method == "Log.entryAdded":
            self.logged.append(about["entry"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    def open(self, path):
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self.events:
            self._read()

    def value(self, expression):
        """What the expression is in the page."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self):
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def mouse(self, kind, x, y, **more):
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def close(self):
        with contextlib.suppress(Exception):
            self._session = None
            self.ask("Browser.close")
        for file in (self._out, self._in):
            with contextlib.suppress(OSError):
                file.close()
        try:
            self._process.wait(START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
