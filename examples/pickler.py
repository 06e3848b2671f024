# SPDX-License-Identifier: BSD-3-Clause
"""The pickler alone: a closure travels by value, and plain pickle reads it."""

import pickle

import shoal


def make_adder(step):
    return lambda number: number + step


stream = shoal.dumps({"add three": make_adder(3)})
print(pickle.loads(stream)["add three"](4))
