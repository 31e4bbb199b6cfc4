"""What the machine says of itself: how many cores this process may use, and how large their caches are.

Everything is read when it is first asked for, and never raises: what cannot be read is None.
"""

from __future__ import annotations

import os
import platform
import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

_CPU = Path("/sys/devices/system/cpu/cpu0/cache")
_CGROUPS = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_MEMBERSHIP = Path("/proc/self/cgroup")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@lru_cache(maxsize=1)
def cores() -> int:
    """CPUs this process may use: those it is allowed to run on, and no more than its share of time fills."""
    allowed = _allowed_cpus()
    share = _quota()
    return allowed if share is None else max(min(allowed, share), 1)


@lru_cache(maxsize=3)
def cache_bytes(level: int) -> int | None:
    """Bytes of the data (or unified) cache of this level, 1 to 3, that one core works through."""
    try:
        return {"win32": _windows_cache, "darwin": _mac_cache}.get(sys.platform, _linux_cache)(level)
    except Exception:  # a machine that cannot be asked is an unknown one
        return None


@lru_cache(maxsize=1)
def cpu_model() -> str:
    """What the maker calls the processor, or at least its architecture."""
    architecture = platform.machine() or "unknown"
    try:
        ask = {"win32": _windows_model, "darwin": _mac_model}.get(sys.platform, _linux_model)
        return ask() or architecture
    except Exception:  # as above
        return architecture


def _allowed_cpus() -> int:
    for ask in ("process_cpu_count", "sched_getaffinity", "cpu_count"):  # the first is new in Python 3.13
        function = getattr(os, ask, None)
        if function is None:
            continue
        try:
            count = len(function(0)) if ask == "sched_getaffinity" else function()
        except (OSError, NotImplementedError):
            continue
        if count:
            return int(count)
    return 1


def _quota() -> int | None:
    """CPUs that the control groups of this process give it time for, rounded up; None if there is no limit."""
    shares = [quota / period for quota, period in _quotas() if quota > 0 and period > 0]
    return max(ceil(min(shares)), 1) if shares else None


def _quotas() -> Iterator[tuple[int, int]]:
    """(microseconds, of so many) of every group from this process's own up to the root, version 2 and 1."""
    for line in _read(_MEMBERSHIP).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        folders: tuple[Path, ...]
        if controllers == "":
            folders = (_CGROUPS,)
        elif "cpu" in controllers.split(","):
            folders = (_CGROUPS / "cpu", _CGROUPS / controllers)
        else:
            continue
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for folder in folders:
            for depth in range(len(parts), -1, -1):  # inside a container the group's own folder may be hidden
                yield from _limit(folder.joinpath(*parts[:depth]))


def _limit(folder: Path) -> Iterator[tuple[int, int]]:
    words = _read(folder / "cpu.max").split() or [
        *_read(folder / "cpu.cfs_quota_us").split(),
        *_read(folder / "cpu.cfs_period_us").split(),
    ]
    try:
        quota, period = map(int, words)
    except ValueError:  # "max 100000" is no limit, and neither is a file that is not there
        return
    yield quota, period


def _linux_cache(level: int) -> int | None:
    for index in sorted(_CPU.glob("index*")):
        kind = _read(index / "type").strip()
        if _read(index / "level").strip() == str(level) and kind in ("Data", "Unified"):
            size = _read(index / "size").strip()
            count = int(size[:-1]) * _UNITS[size[-1]] if size[-1:] in _UNITS else int(size)
            return count or None
    return None


def _linux_model() -> str:
    """The name, where the kernel gives one; on ARM the numbers that stand for it."""
    first = _read(_CPUINFO).strip().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    if name := facts.get("model name"):
        return name
    numbers = [facts[key] for key in ("CPU implementer", "CPU part") if facts.get(key)]
    return " ".join([platform.machine(), *numbers]) if numbers else ""


def _mac_cache(level: int) -> int | None:
    name = f"l{level}{'d' if level == 1 else ''}cachesize"
    answers = (_sysctl(f"hw.perflevel0.{name}"), _sysctl(f"hw.{name}"))  # first that of the fast cores
    return next((size for answer in answers if (size := int.from_bytes(answer, sys.byteorder))), None)


def _mac_model() -> str:
    return _sysctl("machdep.cpu.brand_string").rstrip(b"\0").decode("ascii", "replace")


def _sysctl(key: str) -> bytes:
    import ctypes

    ask: Any = ctypes.CDLL(None).sysctlbyname
    value, length = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
    failed = ask(key.encode(), value, ctypes.byref(length), None, ctypes.c_size_t(0))
    return b"" if failed else value.raw[: length.value]


def _windows_model() -> str:
    return os.environ.get("PROCESSOR_IDENTIFIER", "")


def _windows_cache(level: int) -> int | None:
    import ctypes

    library: Any = getattr(ctypes, "WinDLL")  # noqa: B009 - the name is there on Windows only
    ask = library("kernel32").GetLogicalProcessorInformation
    length = ctypes.c_uint32(0)
    ask(None, ctypes.byref(length))  # says how long the answer is
    buffer = ctypes.create_string_buffer(length.value)
    if not ask(buffer, ctypes.byref(length)):
        return None
    return _cache_record(buffer.raw[: length.value], level, ctypes.sizeof(ctypes.c_void_p))


def _cache_record(records: bytes, level: int, pointer: int) -> int | None:
    """The first data or unified cache of this level among SYSTEM_LOGICAL_PROCESSOR_INFORMATION records."""
    form = struct.Struct("=QIxxxxBBHIIxxxx" if pointer == 8 else "=IIBBHIIxxxx")
    whole = records[: len(records) // form.size * form.size]
    for _, relation, found, _, _, size, kind in form.iter_unpack(whole):
        if relation == 2 and found == level and kind in (0, 2):  # RelationCache; CacheUnified, CacheData
            return int(size) or None
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except (OSError, ValueError):
        return ""
