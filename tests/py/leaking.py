# SPDX-License-Identifier: BSD-3-Clause
"""Does work leave memory behind?"""

import gc
import sys
import tracemalloc

ROUNDS = 50
SMALLEST_OBJECT = 16  # bytes; the measuring itself may give back some


def run(work, rounds):
    for i in range(rounds):
        work()
        if i % 50 == 0:
            gc.collect()  # or the tables of what waits for collection grow by themselves
    gc.collect()
    sys._clear_type_cache()  # it keeps names of attributes until their place is taken


def blocks_grow(work, by, rounds=60):
    """Are there `by` more allocated blocks after each round of work? Tables that fill up have their end."""
    before = None
    for _ in range(rounds):
        work()
        gc.collect()
        blocks = sys.getallocatedblocks()
        if before is not None and blocks - before < by:
            return False
        before = blocks
    return True


def leaks(work, rounds=ROUNDS):
    """Do so many rounds of work leave memory behind, again and again? A cache or a table that grows has its end."""
    run(work, rounds)
    gc.freeze()  # the many collections have only the work's objects to look at
    tracemalloc.start()
    try:
        run(work, rounds // 5)
        for _ in range(15):
            before = tracemalloc.get_traced_memory()[0]
            run(work, rounds)
            if tracemalloc.get_traced_memory()[0] - before < rounds * SMALLEST_OBJECT / 2:
                return False
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    return True
