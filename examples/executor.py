# SPDX-License-Identifier: BSD-3-Clause
"""The interface of concurrent.futures. An exception arrives as it was raised."""

import shoal

with shoal.ProcessPoolExecutor() as executor:
    print(executor.submit(lambda text: text.title(), "a school of fish").result())
    print(repr(executor.submit(lambda: 1 / 0).exception()))
