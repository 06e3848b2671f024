# SPDX-License-Identifier: BSD-3-Clause
"""All rows, in the order in which they are shown."""

import frame
import rows_native
import rows_pickle
import rows_pool


def all_rows() -> frame.Registry:
    registry = frame.Registry()
    rows_pool.add_to(registry)
    rows_pickle.add_to(registry)
    rows_native.add_to(registry)
    return registry
