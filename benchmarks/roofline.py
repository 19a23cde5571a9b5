"""What the machine allows: the time one thread needs to read a block of memory once, by summing it."""

import numpy as np

from benchmarks.timing import race
from theoryrl._jit import compiled


def _total(block):
    total = 0.0
    for i in range(block.shape[0]):
        total += block[i]
    return total


total = compiled(_total, "any-order", cache=False)


def read_call(table):
    """A call that reads `table` once."""
    block = table.reshape(-1)
    return lambda: total(block)


def measure():
    """One record per working set, with its bandwidth in GB/s."""
    for megabytes in (0.4, 4, 40, 80, 400):
        block = np.ones(int(megabytes * 2**20 / 8))
        for record in race(f"read {megabytes:g} MB", {"read": read_call(block)}, seconds=1):
            yield record | {"gigabytes_per_second": block.nbytes / record["cpu_ms_min"] / 1e6}
