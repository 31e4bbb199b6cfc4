"""What a run ran on, for the head of its report."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from peers import Peer

import xconv


def describe(threads: int, peers: dict[str, Peer], threadpoolctl: Any) -> dict[str, str]:
    """Machine, threads, versions and commit."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (names := re.findall(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE)):
        cpu = names[0]
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    blas = {f"{p['internal_api']} {p['version']} ({p.get('architecture', '?')})" for p in pools}
    load = f", load {os.getloadavg()[0]:.1f} before the start" if hasattr(os, "getloadavg") else ""
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "threads": f"{threads} for every engine{load}",
        "blas": ", ".join(sorted(blas)) or "none that threadpoolctl knows",
        "python": f"{platform.python_version()}, NumPy {np.__version__}",
        **{name: peer.about() for name, peer in peers.items()},
        "xconv": xconv.__version__,
        "commit": commit(),
    }


def commit() -> str:
    """The commit of this folder, and whether it was changed since."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
