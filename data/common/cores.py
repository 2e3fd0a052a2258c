"""How many cores work may be shared among."""

import os


def usable_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has (affinity, containers)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
