"""What xconv found: versions, the machine, settings, BLAS, array libraries, and what was tuned."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pkgutil import iter_modules

from threadpoolctl import threadpool_info

from xconv import _bridges
from xconv._blocks import small_products
from xconv._config import settings
from xconv._errors import door
from xconv._machine import cache_bytes, cores, cpu_model
from xconv._namespace import KNOWN_LIBRARIES, bridge_state
from xconv._remembered import count, location

Section = tuple[str, list[tuple[str, str]]]


@door
def show_config() -> None:
    """Print versions, cores and caches, the settings that hold here, BLAS, array libraries, and what was tuned.

    Nothing is imported for it, and nothing is measured. Text like this belongs into a report about speed.

    Examples
    --------
    >>> import xconv
    >>> xconv.show_config()  # doctest: +ELLIPSIS
    xconv ...
    """
    sys.stdout.write(_text(_sections()))


def _sections() -> Iterator[Section]:
    own = str(getattr(sys.modules.get("xconv"), "__version__", "unknown"))
    yield (
        f"xconv {own}",
        [
            ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
            ("system", f"{platform.system()} {platform.machine()}"),
            *_installed(("array-api-compat", "threadpoolctl")),
        ],
    )
    caches = [(f"L{level} cache", _size(cache_bytes(level))) for level in (1, 2, 3)]
    yield "machine", [("processor", cpu_model()), ("cores", str(cores())), *caches]
    here = settings()._asdict()
    yield "settings", [(name, "default" if value is None else str(value)) for name, value in here.items()]
    yield "BLAS", _blas() or [("none", "that threadpoolctl knows")]
    yield "array libraries", _installed(KNOWN_LIBRARIES)
    yield "bridges", [(name, bridge_state(name)) for name in _bridge_names()]
    yield "remembered tunings", [("on this machine", str(count())), ("file", location())]


def _blas() -> list[tuple[str, str]]:
    """The BLAS libraries that are loaded, how many threads each would use, and what NumPy's does with products."""
    found = [
        (
            str(info["internal_api"]),
            f"{info['version']}, {info.get('architecture')}, threads {info['num_threads']}",
        )
        for info in threadpool_info()
        if info["user_api"] == "blas"
    ]
    most = small_products()
    done = f"in blocks of up to {most:,} multiplications, where they stand" if most else "packed"
    return [*found, ("products", done)] if found else []


def _installed(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Those of these packages that are installed, whether or not they are imported, and their versions."""
    found = []
    for name in names:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def _bridge_names() -> list[str]:
    return sorted(module.name for module in iter_modules(_bridges.__path__))


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 2**20:g} MiB" if count >= 2**20 else f"{count / 2**10:g} KiB"


def _text(sections: Iterator[Section]) -> str:
    """A title for each section, and below it two columns."""
    found = list(sections)
    width = max(len(name) for _, rows in found for name, _ in rows)
    lines = []
    for title, rows in found:
        lines.append(title)
        lines += [f"  {name:<{width}}  {value}".rstrip() for name, value in rows]
    return "\n".join(lines) + "\n"
