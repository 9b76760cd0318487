"""The processor cores that this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
MINE = Path("/proc/self/cgroup")


def cores() -> int:
    """Those that it may run on, or fewer where a quota, as of a container, grants less time than all of them give; 1 or more."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Cores' worth of time granted to this process's control groups and to those around them (Linux, cgroup v1 and v2)."""
    try:
        mine = [line.split(":", 2) for line in MINE.read_text().splitlines()]
    except (OSError, UnicodeDecodeError):  # another system
        return
    for _, controllers, path in mine:
        if not controllers:
            root, files = GROUPS, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            root, files = GROUPS / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        inner = root / path.strip("/")  # inside a container it need not be there: its own group is then the root
        for group in (inner, *(above for above in inner.parents if above.is_relative_to(root))):
            try:
                quota, period = " ".join((group / name).read_text() for name in files).split()
                if quota not in ("max", "-1"):
                    yield int(quota) / int(period)
            except (OSError, ValueError, ZeroDivisionError):
                continue
