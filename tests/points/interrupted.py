# SPDX-License-Identifier: BSD-3-Clause
"""Ctrl-C just when another thread has found memory for a submission that waits for it; prints what was left over."""

import os
import signal
import tempfile
import threading

import numpy

import shoal
from rounds import used
from work import wait_for

LARGE = numpy.zeros(6 << 20, numpy.uint8)


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs us in the background ignores it
    os.environ.update(SHOAL_KILL_SPARE=str(os.getpid()), SHOAL_KILL_AT="")
    used()
    before = used()
    handle, name = tempfile.mkstemp()
    os.close(handle)
    go = os.pipe()
    with shoal.Pool(1) as pool:
        running = pool.apply_async(wait_for, (go[0], LARGE))
        reader = threading.Thread(target=running.get)
        reader.start()
        while pool._engine.stats()["arena_used"] < LARGE.nbytes:
            pass
        os.environ.update(SHOAL_KILL_AT="memory: block found", SHOAL_KILL_WHEN="1", SHOAL_KILL_LOG=name)
        timer = threading.Timer(0.3, os.write, (go[1], b"."))
        timer.start()
        try:
            pool.apply(len, (LARGE,))  # does not fit before the first one has ended
            print("no KeyboardInterrupt")
        except KeyboardInterrupt:
            pass
        os.environ["SHOAL_KILL_AT"] = ""
        reader.join()
        timer.join()
        assert pool.apply(len, (LARGE,)) == LARGE.nbytes
        pool._engine.verify()
    for descriptor in go:
        os.close(descriptor)
    print("arrivals", os.stat(name).st_size)
    os.unlink(name)
    del running, reader, timer
    after = used()
    print("same" if before == after else f"left over: {before} {after}")


main()
