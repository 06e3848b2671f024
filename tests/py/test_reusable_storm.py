# SPDX-License-Identifier: BSD-3-Clause
"""`shoal.get_reusable_executor` asked for and used by several threads while it goes idle all the time."""

import random
import threading
import time

import pytest

import shoal
from resizing import let_go
from tasks import TIMEOUT, square

# pytest keeps each warning: from 3.12 on Python warns of a fork while there are threads.
pytestmark = [pytest.mark.leakcheck, pytest.mark.filterwarnings("ignore:.*fork.*")]


def test_threads_may_call_just_when_it_goes_idle(doorbell):
    """Whatever comes first, the call or the end of the workers, each call has its result."""
    wrong = []

    def work(seed):
        dice = random.Random(seed)
        for n in range(60):
            time.sleep(dice.random() * 0.004)
            executor = shoal.get_reusable_executor(dice.choice([1, 2]), timeout=0.001)
            if n % 5:
                if executor.submit(square, n).result(TIMEOUT) != n * n:
                    wrong.append(n)
            elif list(executor.map(square, range(3), timeout=TIMEOUT)) != [0, 1, 4]:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    executor = shoal.get_reusable_executor(1, timeout=0.001)
    let_go(executor)
    executor.shutdown()
