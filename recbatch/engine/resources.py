"""How much of this machine is ours."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_limit: int | None = None


def limit_cpus(count: int) -> None:
    """From now on this process may use so many cores: others of ours stand on the same machine."""
    global _limit
    _limit = count


def cpus_available(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use: affinity and the container's quota, at least one."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        count = os.cpu_count() or 1
    if _limit is not None:
        count = min(count, _limit)
    quota = cpu_quota(cgroup)
    return max(1, min(count, int(quota)) if quota is not None else count)


def cpu_quota(cgroup: Path) -> float | None:
    """Cores by the container's quota, version 2 or 1; None without one."""
    try:
        limit, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota = int((cgroup / "cpu/cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = int((cgroup / "cpu/cpu.cfs_period_us").read_text(encoding="ascii"))
        return quota / period_us if quota > 0 else None
    except (OSError, ValueError):
        return None
