# SPDX-License-Identifier: BSD-3-Clause
"""All rows, in the order in which they are shown."""

import frame
import rows_arrays
import rows_async
import rows_by_value
import rows_data
import rows_ends
import rows_limits
import rows_native
import rows_plain
import rows_pool
import rows_seeing
import rows_shared
import rows_workers


def all_rows() -> frame.Registry:
    registry = frame.Registry()
    rows_pool.add_to(registry)
    rows_async.add_to(registry)
    rows_data.add_to(registry)
    rows_workers.add_to(registry)
    rows_ends.add_to(registry)
    rows_limits.add_to(registry)
    rows_seeing.add_to(registry)
    rows_plain.add_to(registry)
    rows_by_value.add_to(registry)
    rows_arrays.add_to(registry)
    rows_shared.add_to(registry)
    rows_native.add_to(registry)
    return registry
