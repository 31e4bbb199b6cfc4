"""The machine is read, not guessed: cores, caches and the processor's name, from files as systems write them."""

import os
import struct
import subprocess
import sys

import pytest

from descriptions import ROOT
from xconv import _machine
from xconv._machine import cache_bytes, cores, cpu_model


@pytest.fixture(autouse=True)
def _asked_afresh():
    def forget():
        for function in (cores, cache_bytes, cpu_model):
            function.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """An empty Linux machine: a function that writes its files."""
    monkeypatch.setattr(sys, "platform", "linux")
    places = {"_CPU": "cpu0/cache", "_CGROUPS": "cgroup", "_CPUINFO": "cpuinfo", "_MEMBERSHIP": "membership"}
    for name, place in places.items():
        monkeypatch.setattr(_machine, name, tmp_path / place)
    allow(monkeypatch, 16)

    def write(place, text):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")

    return write


def allow(monkeypatch, count):
    monkeypatch.setattr(os, "process_cpu_count", lambda: count, raising=False)


# ---------------------------------------------------------------------------------------------- this machine


def test_this_machine_is_read():
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert cpu_model()
    for level in (1, 2, 3):
        assert cache_bytes(level) is None or 2**10 <= cache_bytes(level) < 2**40


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the files are those of Linux")
def test_the_files_of_this_machine_are_where_they_are_looked_for():
    assert _machine._MEMBERSHIP.exists()
    assert _machine._CPUINFO.exists()
    assert _machine._CPU.is_dir() == (cache_bytes(1) is not None)


def test_nothing_is_read_at_import():
    program = (
        "import sys; sys.addaudithook(lambda name, args: name == 'open' and str(args[0]).startswith(('/sys', '/proc'))"
        " and sys.exit(f'opened {args[0]}'));"
        "import xconv._machine as m; print('imported'); m.cpu_model()"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "imported", run.stderr
    if sys.platform.startswith("linux"):  # the hook can see it
        assert "opened /proc/cpuinfo" in run.stderr


# ------------------------------------------------------------------------------------------------------ cores


def test_cores_are_those_the_process_may_use(monkeypatch, linux):
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cores() == 3


@pytest.mark.parametrize(("count", "expected"), [(64, 64), (None, 1)])
def test_cores_without_affinity(monkeypatch, linux, count, expected):
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert cores() == expected


def test_cores_where_affinity_is_forbidden(monkeypatch, linux):
    def forbidden(pid):
        raise PermissionError

    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", forbidden, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert cores() == 4


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 16),
        ("200000 100000", 2),
        ("150000 100000", 2),  # rounded up: half a core is of use
        ("10000 100000", 1),
        ("9900000 100000", 16),
        ("0 100000", 16),
        ("200000 0", 16),
        ("nonsense", 16),
        ("", 16),
    ],
)
def test_a_quota_of_version_2_bounds_the_cores(linux, limit, expected):
    linux("membership", "0::/jobs/mine\n")
    linux("cgroup/jobs/mine/cpu.max", f"{limit}\n")
    assert cores() == expected


def test_the_least_quota_on_the_way_to_the_root_counts(linux):
    linux("membership", "0::/jobs/mine\n")
    linux("cgroup/cpu.max", "800000 100000\n")
    linux("cgroup/jobs/cpu.max", "300000 100000\n")
    linux("cgroup/jobs/mine/cpu.max", "max 100000\n")
    linux("cgroup/others/cpu.max", "100000 100000\n")
    assert cores() == 3


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("500000", 5)])
def test_a_quota_of_version_1(linux, folder, quota, expected):
    linux("membership", "4:memory:/other\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/\n")
    linux(f"cgroup/{folder}/cpu.cfs_quota_us", f"{quota}\n")  # the container sees its own group as the root
    linux(f"cgroup/{folder}/cpu.cfs_period_us", "100000\n")
    assert cores() == expected


def test_a_group_cannot_lead_out_of_the_tree(linux):
    linux("membership", "0::/../../elsewhere\n")
    linux("elsewhere/cpu.max", "100000 100000\n")
    assert cores() == 16


# ----------------------------------------------------------------------------------------------------- caches


def describe(linux, index, level, kind, size):
    for name, text in {"level": level, "type": kind, "size": size}.items():
        linux(f"cpu0/cache/index{index}/{name}", f"{text}\n")


def test_caches_of_linux_are_data_or_unified(linux):
    describe(linux, 0, 1, "Instruction", "64K")
    describe(linux, 1, 1, "Data", "48K")
    describe(linux, 2, 2, "Unified", "2M")
    describe(linux, 3, 3, "Unified", "491520K")
    assert [cache_bytes(level) for level in (1, 2, 3)] == [48 * 2**10, 2 * 2**20, 480 * 2**20]
    assert cache_bytes(4) is None


@pytest.mark.parametrize("size", ["", "many", "K", "0K", "0"])
def test_a_cache_of_unknown_size_is_unknown(linux, size):
    describe(linux, 0, 2, "Unified", size)
    assert cache_bytes(2) is None


def test_a_machine_without_the_files_has_unknown_caches(linux):
    assert [cache_bytes(level) for level in (1, 2, 3)] == [None, None, None]


@pytest.mark.parametrize("pointer", [4, 8])
def test_records_of_windows(pointer):
    """ULONG_PTR mask, int relationship, then BYTE level, BYTE ways, WORD line, DWORD size, int type in 16 bytes."""

    def record(relation, level, size, kind):
        head = struct.pack("=Q", 1) if pointer == 8 else struct.pack("=I", 1)
        middle = struct.pack("=I", relation) + b"\xff" * (4 if pointer == 8 else 0)
        return head + middle + struct.pack("=BBHII", level, 8, 64, size, kind) + b"\xff" * 4

    records = b"".join(
        [
            record(0, 2, 111, 0),  # a core, not a cache
            record(2, 1, 222, 1),  # instructions
            record(2, 1, 32768, 2),
            record(2, 2, 1048576, 0),
            record(2, 2, 333, 0),  # of another core
        ]
    )
    assert len(records) == 5 * (32 if pointer == 8 else 24)
    assert _machine._cache_record(records, 1, pointer) == 32768
    assert _machine._cache_record(records, 2, pointer) == 1048576
    assert _machine._cache_record(records, 3, pointer) is None
    assert _machine._cache_record(records[:-1], 2, pointer) == 1048576


def test_caches_of_a_mac_are_those_of_its_fast_cores(monkeypatch):
    answers = {
        "hw.perflevel0.l1dcachesize": struct.pack("=q", 131072),
        "hw.perflevel0.l2cachesize": struct.pack("=i", 16777216),
        "hw.l1dcachesize": struct.pack("=q", 65536),
        "hw.l3cachesize": struct.pack("=q", 0),
        "machdep.cpu.brand_string": b"Apple M1 Pro\0",
    }
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(_machine, "_sysctl", lambda key: answers.get(key, b""))
    assert [cache_bytes(level) for level in (1, 2, 3)] == [131072, 16777216, None]
    assert cpu_model() == "Apple M1 Pro"


@pytest.mark.parametrize("system", ["win32", "darwin", "emscripten"])
def test_a_system_that_cannot_be_asked_is_unknown(monkeypatch, linux, system):
    """The calls into the system fail here, on Linux; nothing of that is seen."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.delenv("PROCESSOR_IDENTIFIER", raising=False)
    assert cache_bytes(2) is None
    assert cpu_model() == _machine.platform.machine()
    assert cores() == 16


# -------------------------------------------------------------------------------------------------- processor


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (
            "processor\t: 0\nmodel name\t: Some CPU @ 2: 3 GHz\n\nprocessor\t: 1\nmodel name\t: Other\n",
            "Some CPU @ 2: 3 GHz",
        ),
        ("processor : 0\nCPU implementer : 0x41\nCPU part : 0xd0c\n", "aarch64 0x41 0xd0c"),
        ("", "aarch64"),
        ("no colon here\n", "aarch64"),
    ],
)
def test_the_processor_by_name_or_numbers(monkeypatch, linux, cpuinfo, expected):
    monkeypatch.setattr(_machine.platform, "machine", lambda: "aarch64")
    linux("cpuinfo", cpuinfo)
    assert cpu_model() == expected


def test_answers_are_kept(monkeypatch, linux):
    assert cores() == 16
    allow(monkeypatch, 3)
    assert cores() == 16
