"""What is inside the wheel, and whether it works where nothing else is installed. Standard library only.

``python tests/wheel_contents.py look FILE`` compares the wheel with the checkout: ``xconv/`` and its dist-info only.
``python tests/wheel_contents.py smoke`` is run by a Python that has the wheel installed: one convolution, and no
array library but NumPy.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]


def expected_files(package: Path) -> set[str]:
    """What the checkout has under xconv/, caches aside."""
    return {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def complaints(inside: list[str], expected: set[str]) -> list[str]:
    """What a list of file names in a wheel has too much or too little."""
    package = {name for name in inside if PurePosixPath(name).parts[0] == "xconv"}
    rest = [PurePosixPath(name) for name in inside if name not in package]
    found = [f"should not be in the wheel: {path}" for path in rest if not _is_dist_info(path)]
    found += [f"should not be in the wheel: {name}" for name in sorted(package - expected)]
    found += [f"missing from the wheel: {name}" for name in sorted(expected - package)]
    for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE"):
        if not any(_is_dist_info(path) and str(path).endswith(f".dist-info/{name}") for path in rest):
            found.append(f"missing from the wheel: dist-info/{name}")
    if "xconv/py.typed" not in package:
        found.append("missing from the wheel: xconv/py.typed")
    return found


def _is_dist_info(path: PurePosixPath) -> bool:
    return path.parts[0].startswith("xconv-") and path.parts[0].endswith(".dist-info")


def look(file: Path) -> int:
    """Print what is wrong with the wheel; 1 if anything is."""
    with zipfile.ZipFile(file) as wheel:
        inside = wheel.namelist()
    found = complaints(inside, expected_files(ROOT / "xconv"))
    good = f"wheel: {file.name} holds {len(inside)} files, xconv and dist-info only"
    print("\n".join(found) if found else good)
    return 1 if found else 0


def smoke() -> int:
    """One convolution by the installed package; 1 if it is not installed, wrong, or brings another array library."""
    import numpy as np

    import xconv

    if Path(xconv.__file__).is_relative_to(ROOT / "xconv"):
        print(f"wheel: {xconv.__file__} is the checkout, not the installed package")
        return 1
    x = np.asarray([[[1.0], [2.0], [3.0], [4.0]]])  # (1, 4, 1)
    w = np.asarray([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    y = xconv.conv(x, w, stride=2, padding="same")
    if y.ravel().tolist() != [321.0, 43.0]:
        print(f"wheel: conv gives {y.ravel().tolist()}, not [321.0, 43.0]")
        return 1
    others = {"cupy", "dask", "jax", "torch"} & set(sys.modules)
    if others:
        print(f"wheel: {sorted(others)} were imported for a NumPy array")
        return 1
    print(f"wheel: xconv {xconv.__version__} installed and at work, with NumPy {np.__version__}")
    return 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["look", file]:
            sys.exit(look(Path(file)))
        case ["smoke"]:
            sys.exit(smoke())
        case _:
            sys.exit(f"usage: {sys.argv[0]} look FILE | smoke")
