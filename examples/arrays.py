# SPDX-License-Identifier: BSD-3-Clause
"""An array that lies in shared memory: each worker reads it there, nothing is copied."""

import numpy as np

import shoal

squares = shoal.share(np.arange(8_000_000.0) ** 2)
with shoal.Pool() as pool:
    sums = pool.map(lambda begin: squares[begin : begin + 1_000_000].sum(), range(0, len(squares), 1_000_000))
print(f"{len(sums)} parts, {sum(sums):.6e}")
