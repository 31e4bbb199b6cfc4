"""The algorithms that `tune` found fastest, remembered on disk: one file for each user, read once by each process.

The file is a note to oneself. What cannot be read is ignored with one warning, what was measured on another machine
or with other versions is kept but not used, and a write is seen whole or not at all.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeGuard

import threadpoolctl

from xconv._geometry import ConvProblem
from xconv._machine import cores, cpu_model
from xconv._namespace import NUMPY, Traits

FORMAT = "xconv tunings"
VERSION = 1
PATIENCE = 5.0  # seconds to wait for another process that is writing

Table = dict[
    str, dict[str, dict[str, Any]]
]  # machine -> question -> {"algorithm": name, "seconds": of one call}

_own: dict[
    str, str
] = {}  # question -> algorithm, as found by this process, whether or not it could be written
_known: dict[str, str] | None = None  # the same with what the file says; None until it is asked for
_warned: set[str] = set()


def choice(problem: ConvProblem, traits: Traits, *, bound: bool) -> str | None:
    """The algorithm that was fastest when this problem was measured on this machine, or None."""
    known = _load() if _known is None else _known
    return known.get(question(problem, traits, bound=bound)) if known else None


def remember(problem: ConvProblem, traits: Traits, *, bound: bool, algorithm: str, seconds: float) -> None:
    """Write down a winner, beside all that other processes wrote meanwhile."""
    global _known
    asked = question(problem, traits, bound=bound)
    try:
        found = _add(asked, {"algorithm": algorithm, "seconds": seconds})
    except OSError as error:
        _warn(
            "write", f"{location()} cannot be written ({error}); this process alone remembers what it tunes"
        )
        found = _load() if _known is None else _known
    _own[asked] = algorithm
    _known = {**found, **_own}


def forget() -> None:
    """Remove everything that is remembered, on disk and in this process."""
    _own.clear()
    reread()
    path().unlink(missing_ok=True)


def reread() -> None:
    """Look into the file again when something is next asked, and warn again."""
    global _known
    _known = None
    _warned.clear()


def count() -> int:
    """How many winners this process would use."""
    return len(_load() if _known is None else _known)


def path() -> Path:
    """The file."""
    return _folder() / "tunings.json"


def location() -> str:
    """The file, or why there is none."""
    try:
        return str(path())
    except OSError as error:
        return str(error)


# -------------------------------------------------------------------------------------------------------- its keys


def question(problem: ConvProblem, traits: Traits, *, bound: bool) -> str:
    """Everything the answer may depend on, as text that a person can read and a program can compare."""
    kernel = "bound" if bound else "given"
    return f"{problem!r}, kernel {kernel}, {traits!r} {_version(traits.namespace)}"


@lru_cache(maxsize=1)
def machine() -> str:
    """What decides how fast an algorithm is, besides the problem."""
    infos = [info for info in threadpoolctl.threadpool_info() if info.get("user_api") == "blas"]
    ours = [info for info in infos if NUMPY.namespace in _folders(info)]  # others come and go by import
    blas = sorted({" ".join(str(info.get(key)) for key in _BLAS) for info in ours or infos}) or [
        "unknown BLAS"
    ]
    versions = [f"{name} {_version(name)}" for name in (NUMPY.namespace, "xconv")]
    return ", ".join([cpu_model(), f"{cores()} cores", *blas, *versions])


_BLAS = ("internal_api", "version", "architecture")


def _folders(info: dict[str, Any]) -> set[str]:
    """The folders that a library lies in, with ``numpy.libs`` as ``numpy``."""
    return {part.partition(".")[0] for part in Path(str(info.get("filepath"))).parts}


def _version(module: str) -> str:
    return str(getattr(sys.modules.get(module), "__version__", "unknown"))


# -------------------------------------------------------------------------------------------------------- the file


def _folder() -> Path:
    if chosen := os.environ.get("XCONV_CACHE_DIR"):
        return Path(chosen)
    return {"win32": _windows_caches, "darwin": _mac_caches}.get(sys.platform, _other_caches)() / "xconv"


def _windows_caches() -> Path:
    local = os.environ.get("LOCALAPPDATA")
    return Path(local) if local else _home() / "AppData" / "Local"


def _mac_caches() -> Path:
    return _home() / "Library" / "Caches"


def _other_caches() -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))  # the rule is that a relative one does not count
    return caches if caches.is_absolute() else _home() / ".cache"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise FileNotFoundError("there is no home folder, and XCONV_CACHE_DIR is not set") from error


def _load() -> dict[str, str]:
    global _known
    try:
        table = _read()
    except (OSError, ValueError, RecursionError) as error:
        _warn("read", f"{location()} is ignored ({error}): nothing that was tuned is used")
        table = {}
    _known = {**_answers(table), **_own}
    return _known


def _answers(table: Table) -> dict[str, str]:
    """What the file says about this machine."""
    return (
        {asked: entry["algorithm"] for asked, entry in table[machine()].items()} if machine() in table else {}
    )


def _read() -> Table:
    """What is in the file: OSError if that cannot be known, another error if it is nothing of use."""
    try:
        content = json.loads(path().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError("it was not written by xconv")
    version, machines = content.get("version"), content.get("machines")
    if isinstance(version, int) and version > VERSION:
        raise OSError("it was written by a newer xconv")
    if version != VERSION or not _sound(machines):
        raise ValueError("it is damaged")
    return machines


def _sound(machines: Any) -> TypeGuard[Table]:
    if not isinstance(machines, dict) or not all(isinstance(here, dict) for here in machines.values()):
        return False
    entries = [entry for here in machines.values() for entry in here.values()]
    return all(isinstance(entry, dict) and isinstance(entry.get("algorithm"), str) for entry in entries)


def _add(asked: str, entry: dict[str, Any]) -> dict[str, str]:
    """Put one entry into the file and give what it then says about this machine."""
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    with _alone(file.with_suffix(".lock")):
        try:
            table = _read()
        except (ValueError, RecursionError) as error:
            _warn("read", f"{file} is replaced ({error})")
            table = {}
        table.setdefault(machine(), {})[asked] = entry
        _replace(file, json.dumps({"format": FORMAT, "version": VERSION, "machines": table}, indent=1))
    return _answers(table)


def _replace(file: Path, text: str) -> None:
    """Write all of it beside the file, then let it take the file's place in one step."""
    handle, name = tempfile.mkstemp(prefix=f"{file.stem}-", suffix=".tmp", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as temporary:
            temporary.write(text + "\n")
            temporary.flush()
            os.fsync(temporary.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Inside, no other process or thread is in here; the system gives the lock back if this process dies."""
    with file.open("ab") as opened:
        deadline = monotonic() + PATIENCE
        while (
            not _lock(opened.fileno()) and monotonic() < deadline
        ):  # an entry lost is better than waiting for ever
            sleep(0.01)
        yield


def _lock(handle: int) -> bool:
    """Whether the lock was free, or this system has none."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except OSError as error:
        return not isinstance(error, BlockingIOError | PermissionError)
    return True


def _warn(kind: str, message: str) -> None:
    """Warn once of each kind."""
    if kind not in _warned:
        _warned.add(kind)
        warnings.warn(f"xconv: {message}", stacklevel=2)
