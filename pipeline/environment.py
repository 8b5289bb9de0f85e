"""The environment variables of a process that trains."""

from __future__ import annotations

import os


def training_environment() -> dict[str, str]:
    """Returns the environment variables of a process that trains; what the user has set goes before them.

    With pages of 2 MB, the address of the page that a row of a large embedding table is on is mostly at hand. The
    threads of one operation are half of the cores: a thread that has done its part waits for the others busily, on a
    core that could have parsed the next batch.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    return {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "TF_NUM_INTRAOP_THREADS": str(threads)}
