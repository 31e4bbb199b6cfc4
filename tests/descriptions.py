"""The files of backends/: what each key means, and one strict reader for them. Standard library only.

========================  ============================================================================================
namespace                 module whose arrays are tested, with a function ``zeros``: ``"torch"``, ``"dask.array"``
requires                  what pip installs to get it, beside xconv itself; may be empty
extras (optional)         extras of xconv itself that are installed with it, of those in pyproject.toml. With ``"fast"``
                          compiled code must be at work; without it numba cannot be imported, installed or not
devices                   where its arrays can live; the first is the default of the tests. Without ``"cpu"`` a CUDA
                          device is needed, and the session skips where there is none
lazy                      whether a call can run before there are values (a task graph, a trace). The tests then run
                          every call under a guard that fails if a value is read
sync                      what makes a clock wait for a result: ``""`` nothing, ``".name"`` a method of the array, a
                          dotted name a function without arguments, called when the array is on a device other than
                          ``"cpu"``
environment (optional)    variables that are set before the library is imported, unless the caller has set them
expected_failures (opt.)  tables ``test`` (an id as pytest prints it, with or without its ``[case]``), ``reason``,
                          ``link``. Such a test must fail; one that passes, or no longer exists, is an error
========================  ============================================================================================
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "backends"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]  # name: what pip installs for it


@dataclass(frozen=True)
class ExpectedFailure:
    """One test that is known to fail on one backend."""

    test: str
    reason: str
    link: str

    def covers(self, node_id: str) -> bool:
        """Whether this is that test, or one of its cases."""
        return node_id == self.test or node_id.startswith(self.test + "[")


@dataclass(frozen=True)
class Description:
    """One file of backends/, read and checked."""

    name: str
    namespace: str
    requires: tuple[str, ...]
    devices: tuple[str, ...]
    lazy: bool
    sync: str
    environment: dict[str, str]
    expected_failures: tuple[ExpectedFailure, ...]
    extras: tuple[str, ...] = ()

    @property
    def installed(self) -> tuple[str, ...]:
        """What pip installs beside what every user of xconv has: `requires`, and what the extras stand for."""
        return (*self.requires, *(requirement for extra in self.extras for requirement in EXTRAS[extra]))


def names(folder: Path | None = None) -> list[str]:
    """The names of all backends, in alphabetical order."""
    return sorted(path.stem for path in (folder or FOLDER).glob("*.toml"))


def load(name: str, folder: Path | None = None) -> Description:
    """Read ``backends/NAME.toml``. ValueError if it does not exist or is not exactly of the form above."""
    folder = folder or FOLDER
    path = folder / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"backend must be one of {', '.join(names(folder))}; got backend={name!r}")
    table = tomllib.loads(path.read_text(encoding="utf-8"))

    def complain(rule: str) -> ValueError:
        return ValueError(f"{path.name}: {rule}")

    def take(key: str, kind: type, default: object = None) -> object:
        value = table.pop(key, default)
        if not isinstance(value, kind):
            raise complain(f"{key} must be a {kind.__name__}; got {key}={value!r}")
        return value

    def take_strings(key: str, default: object = None) -> tuple[str, ...]:
        values = take(key, list, default)
        if not all(isinstance(value, str) for value in values):
            raise complain(f"{key} must hold strings; got {key}={values!r}")
        return tuple(values)

    def take_failure(entry: object) -> ExpectedFailure:
        if not isinstance(entry, dict) or set(entry) != {"test", "reason", "link"}:
            raise complain(f"expected_failures must hold test, reason and link; got {entry!r}")
        if not all(isinstance(value, str) and value for value in entry.values()):
            raise complain(f"expected_failures must say its test, reason and link; got {entry!r}")
        if not entry["link"].startswith("https://"):
            raise complain(f"link must be an address https://…; got link={entry['link']!r}")
        return ExpectedFailure(**entry)

    environment = take("environment", dict, {})
    if not all(isinstance(value, str) for value in environment.values()):
        raise complain(f"environment must hold strings; got environment={environment!r}")
    description = Description(
        name=name,
        namespace=take("namespace", str),
        requires=take_strings("requires"),
        devices=take_strings("devices"),
        lazy=take("lazy", bool),
        sync=take("sync", str),
        environment=environment,
        expected_failures=tuple(take_failure(entry) for entry in take("expected_failures", list, [])),
        extras=take_strings("extras", []),
    )
    if unknown := set(description.extras) - set(EXTRAS):
        raise complain(f"extras must be of {', '.join(EXTRAS)}; got {sorted(unknown)[0]!r}")
    if not description.devices:
        raise complain("devices must name at least one device; got devices=[]")
    if table:
        raise complain(f"there is no key {sorted(table)[0]!r}")
    return description
