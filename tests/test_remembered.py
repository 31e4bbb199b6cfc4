"""What was tuned is remembered on disk: whole or not at all, beside what others write, and never in the way."""

import json
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import fields, replace
from pathlib import Path

import pytest

from descriptions import ROOT
from xconv import _remembered
from xconv._geometry import Axis, ConvProblem
from xconv._namespace import NUMPY, Traits
from xconv._remembered import choice, count, forget, location, question, remember, reread

AXIS = Axis(28, 3, low=1, high=1)
PROBLEM = ConvProblem(1, (AXIS, AXIS), 16, 32)
OTHER = replace(PROBLEM, batch=8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache folder that does not exist yet, and a process that has tuned nothing."""
    folder = tmp_path / "cache" / "xconv"
    monkeypatch.setenv("XCONV_CACHE_DIR", str(folder))
    monkeypatch.setattr(_remembered, "_own", {})
    reread()
    yield folder
    reread()


def new_process():
    """As a process that starts now would see it."""
    _remembered._own.clear()
    reread()


def put(algorithm, problem=PROBLEM, *, bound=False):
    remember(problem, NUMPY, bound=bound, algorithm=algorithm, seconds=0.001)


def put_all(winners):
    for algorithm, problem in winners.items():
        put(algorithm, problem)


def written(folder):
    return json.loads((folder / "tunings.json").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------- remembering


def test_nothing_is_remembered_at_first_and_nothing_written(folder):
    assert choice(PROBLEM, NUMPY, bound=False) is None
    assert count() == 0
    assert not folder.exists()


def test_a_winner_is_remembered_here_and_by_later_processes(folder):
    put("winograd")
    for _ in range(2):
        assert choice(PROBLEM, NUMPY, bound=False) == "winograd"
        assert choice(PROBLEM, NUMPY, bound=True) is None
        assert choice(OTHER, NUMPY, bound=False) is None
        assert count() == 1
        new_process()
    assert {path.name for path in folder.iterdir()} == {"tunings.json", "tunings.lock"}


def test_another_process_really_sees_it(folder):
    put("winograd", bound=True)
    program = (
        "from xconv._geometry import *; from xconv._namespace import NUMPY; from xconv._remembered import choice;"
        f"print(choice({PROBLEM!r}, NUMPY, bound=True))"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "winograd"


def test_later_winners_replace_earlier_ones_and_leave_the_others():
    put("winograd")
    put("fft", OTHER)
    put("direct", bound=True)
    put("im2col")
    for _ in range(2):
        assert choice(PROBLEM, NUMPY, bound=False) == "im2col"
        assert choice(PROBLEM, NUMPY, bound=True) == "direct"
        assert choice(OTHER, NUMPY, bound=False) == "fft"
        new_process()


def test_everything_can_be_forgotten(folder):
    put("winograd")
    forget()
    assert choice(PROBLEM, NUMPY, bound=False) is None
    assert not (folder / "tunings.json").exists()
    forget()


def test_the_file_is_read_once(folder, monkeypatch):
    put("winograd")
    new_process()
    reads = []
    read = _remembered._read
    monkeypatch.setattr(_remembered, "_read", lambda: reads.append(1) or read())
    for _ in range(3):
        choice(PROBLEM, NUMPY, bound=False)
        choice(OTHER, NUMPY, bound=False)
    assert len(reads) == 1


def test_where_nothing_is_remembered_nothing_is_computed(monkeypatch):
    choice(PROBLEM, NUMPY, bound=False)
    monkeypatch.setattr(_remembered, "question", None)
    assert choice(PROBLEM, NUMPY, bound=False) is None


# ------------------------------------------------------------------------------------------------------ keys


def changed(value):
    """Some other value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (value[0]._replace(size=99), *value[1:])
    return value + (1 if isinstance(value, int) else "-other")


@pytest.mark.parametrize("name", [field.name for field in fields(ConvProblem)])
def test_every_field_of_a_problem_counts(name):
    other = replace(PROBLEM, **{name: changed(getattr(PROBLEM, name))})
    assert question(other, NUMPY, bound=False) != question(PROBLEM, NUMPY, bound=False)


@pytest.mark.parametrize("name", Axis._fields)
def test_every_field_of_an_axis_counts(name):
    other = replace(PROBLEM, axes=(AXIS, AXIS._replace(**{name: getattr(AXIS, name) + 1})))
    assert question(other, NUMPY, bound=False) != question(PROBLEM, NUMPY, bound=False)


@pytest.mark.parametrize("name", [field.name for field in fields(Traits)])
def test_every_trait_counts(name):
    other = replace(NUMPY, **{name: changed(getattr(NUMPY, name))})
    assert question(PROBLEM, other, bound=False) != question(PROBLEM, NUMPY, bound=False)


def test_a_bound_kernel_and_the_version_of_the_library_count(monkeypatch):
    before = question(PROBLEM, NUMPY, bound=False)
    assert question(PROBLEM, NUMPY, bound=True) != before
    monkeypatch.setattr(sys.modules["numpy"], "__version__", "99.1")
    after = question(PROBLEM, NUMPY, bound=False)
    assert after != before
    assert "99.1" in after


def test_a_key_can_be_read_by_a_person():
    key = question(PROBLEM, NUMPY, bound=True)
    assert "size=28, window=3" in key
    assert "channels_out=32" in key
    assert "kernel bound" in key


def test_the_machine_is_described_by_what_decides_speed(monkeypatch):
    libraries = [
        {"user_api": "openmp", "internal_api": "openmp", "filepath": "/lib/libgomp.so"},
        {
            "user_api": "blas",
            "internal_api": "mkl",
            "version": "2024",
            "filepath": "/site/other/lib/libmkl_rt.so",
        },
        {
            "user_api": "blas",
            "internal_api": "openblas",
            "version": "0.3.99",
            "architecture": "Zen",
            "filepath": "/site/numpy.libs/libopenblas.so",
        },
    ]
    monkeypatch.setattr(_remembered.threadpoolctl, "threadpool_info", lambda: libraries)
    monkeypatch.setattr(_remembered, "cpu_model", lambda: "A CPU")
    monkeypatch.setattr(_remembered, "cores", lambda: 7)
    here = _remembered.machine.__wrapped__
    assert here().startswith("A CPU, 7 cores, openblas 0.3.99 Zen, numpy ")
    assert "xconv 0." in here()
    del libraries[2]  # where NumPy's own cannot be told from the others
    assert ", mkl 2024 None, " in here()
    libraries.clear()
    assert ", unknown BLAS, " in here()


def test_what_was_measured_elsewhere_is_kept_and_not_used(folder, monkeypatch):
    monkeypatch.setattr(_remembered, "machine", lambda: "another machine")
    put("fft")
    monkeypatch.undo()
    monkeypatch.setenv("XCONV_CACHE_DIR", str(folder))
    new_process()
    assert choice(PROBLEM, NUMPY, bound=False) is None
    put("winograd")
    new_process()
    assert choice(PROBLEM, NUMPY, bound=False) == "winograd"
    algorithms = [
        [entry["algorithm"] for entry in here.values()] for here in written(folder)["machines"].values()
    ]
    assert sorted(algorithms) == [["fft"], ["winograd"]]


# -------------------------------------------------------------------------------------------- damaged files

KEY = "some key"
DAMAGED = {
    "empty": "",
    "truncated": '{"format": "xconv tunings", "version": 1, "machi',
    "binary": "\x00\x01\x02",
    "deep": "[" * 100_000,
    "foreign": '{"name": "somebody else\'s"}',
    "foreign-list": "[1, 2, 3]",
    "without-machines": '{"format": "xconv tunings", "version": 1}',
    "machines-list": '{"format": "xconv tunings", "version": 1, "machines": []}',
    "machine-number": '{"format": "xconv tunings", "version": 1, "machines": {"a": 1}}',
    "entry-number": '{"format": "xconv tunings", "version": 1, "machines": {"a": {"b": 1}}}',
    "algorithm-number": '{"format": "xconv tunings", "version": 1, "machines": {"a": {"b": {"algorithm": 1}}}}',
    "version-text": '{"format": "xconv tunings", "version": "x", "machines": {}}',
    "version-old": '{"format": "xconv tunings", "version": 0, "machines": {}}',
}


def place(folder, text):
    folder.mkdir(parents=True)
    (folder / "tunings.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_or_foreign_file_is_ignored_with_one_warning(folder, name):
    place(folder, DAMAGED[name])
    with pytest.warns(UserWarning, match=r"xconv: .*tunings\.json is ignored \(") as record:
        found = [choice(PROBLEM, NUMPY, bound=False), choice(OTHER, NUMPY, bound=False), count()]
    assert found == [None, None, 0]
    assert len(record) == 1
    assert str(folder / "tunings.json") in str(record[0].message)
    assert (folder / "tunings.json").read_text(encoding="utf-8") == DAMAGED[name]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_or_foreign_file_is_replaced_when_something_is_tuned(folder, name):
    place(folder, DAMAGED[name])
    with pytest.warns(UserWarning, match="is replaced") as record:
        put("winograd")
    assert len(record) == 1
    new_process()
    assert choice(PROBLEM, NUMPY, bound=False) == "winograd"


def test_bytes_that_are_no_text_are_ignored(folder):
    folder.mkdir(parents=True)
    (folder / "tunings.json").write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="is ignored"):
        assert choice(PROBLEM, NUMPY, bound=False) is None


def test_a_sound_file_raises_no_warning(folder):
    put("winograd")
    new_process()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choice(PROBLEM, NUMPY, bound=False) == "winograd"


def test_a_file_of_a_newer_version_is_left_alone(folder):
    text = '{"format": "xconv tunings", "version": 2, "anything": {}}'
    place(folder, text)
    with pytest.warns(UserWarning, match="newer xconv"):
        assert choice(PROBLEM, NUMPY, bound=False) is None
    with pytest.warns(UserWarning, match="this process alone remembers"):
        put("winograd")
    assert choice(PROBLEM, NUMPY, bound=False) == "winograd"
    assert (folder / "tunings.json").read_text(encoding="utf-8") == text


# ----------------------------------------------------------------------------------------- no place to write


def test_a_folder_that_cannot_be_made_leaves_this_process_its_memory(folder):
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"tunings\.json is ignored"):
        assert choice(PROBLEM, NUMPY, bound=False) is None
    with pytest.warns(UserWarning, match=r"tunings\.json cannot be written") as record:
        put_all({"winograd": PROBLEM, "fft": OTHER})
    assert len(record) == 1
    assert choice(PROBLEM, NUMPY, bound=False) == "winograd"
    assert choice(OTHER, NUMPY, bound=False) == "fft"


def test_a_folder_that_is_read_only_is_still_read(folder, monkeypatch):
    put("winograd")
    new_process()
    before = written(folder)

    def refused(
        *args, **kwargs
    ):  # the owner of this process may be allowed everything, so the system is not asked
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_remembered.tempfile, "mkstemp", refused)
    with pytest.warns(UserWarning, match="cannot be written"):
        put("fft", OTHER)
    assert choice(PROBLEM, NUMPY, bound=False) == "winograd"
    assert choice(OTHER, NUMPY, bound=False) == "fft"
    assert written(folder) == before


def test_a_file_that_cannot_be_read_is_not_overwritten(folder, monkeypatch):
    put("winograd")
    new_process()
    before = written(folder)

    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refused)
        with pytest.warns(UserWarning, match="is ignored"):
            assert choice(PROBLEM, NUMPY, bound=False) is None
        with pytest.warns(UserWarning, match="cannot be written"):
            put("fft", OTHER)
    assert written(folder) == before


def test_without_a_home_nothing_fails(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XCONV_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(_remembered.Path, "home", homeless)
    assert choice(PROBLEM, NUMPY, bound=False) is None
    assert location() == "there is no home folder, and XCONV_CACHE_DIR is not set"
    with pytest.warns(UserWarning, match="there is no home folder"):
        put("winograd")
    assert choice(PROBLEM, NUMPY, bound=False) == "winograd"


@pytest.mark.parametrize(
    ("system", "environment", "expected"),
    [
        ("linux", {}, "home/.cache/xconv"),
        ("linux", {"XDG_CACHE_HOME": "ABSOLUTE/caches"}, "caches/xconv"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache/xconv"),
        ("darwin", {"XDG_CACHE_HOME": "ABSOLUTE/caches"}, "home/Library/Caches/xconv"),
        ("win32", {"LOCALAPPDATA": "ABSOLUTE/local"}, "local/xconv"),
        ("win32", {}, "home/AppData/Local/xconv"),
        ("linux", {"XCONV_CACHE_DIR": "ABSOLUTE/mine"}, "mine"),
        ("linux", {"XCONV_CACHE_DIR": ""}, "home/.cache/xconv"),
    ],
)
def test_the_folder_is_where_the_system_keeps_caches(tmp_path, monkeypatch, system, environment, expected):
    for name in ("XCONV_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("ABSOLUTE", str(tmp_path)))
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(_remembered.Path, "home", lambda: tmp_path / "home")
    assert _remembered.path() == tmp_path / expected / "tunings.json"


# ------------------------------------------------------------------------------------------------- atomicity


class Killed(BaseException):
    """The end of the process, or Ctrl-C."""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_write_that_ends_early_leaves_the_old_file(folder, monkeypatch, moment):
    put("winograd")
    before = written(folder)

    def killed(*args):
        raise Killed

    monkeypatch.setattr(*((os, "fsync") if moment == "fsync" else (Path, "replace")), killed)
    with pytest.raises(Killed):
        put("fft", OTHER)
    assert written(folder) == before
    assert {path.name for path in folder.iterdir()} == {"tunings.json", "tunings.lock"}
    assert choice(OTHER, NUMPY, bound=False) is None
    monkeypatch.undo()
    monkeypatch.setenv("XCONV_CACHE_DIR", str(folder))
    put("fft", OTHER)  # nothing is left locked
    assert choice(OTHER, NUMPY, bound=False) == "fft"


def test_the_file_is_never_seen_half_written(folder, monkeypatch):
    """What stands under the file's name when the new one takes its place is the old one, whole."""
    put("winograd")
    seen = []
    replace_file = Path.replace

    def look(self, target):
        seen.append((json.loads(target.read_text()), json.loads(self.read_text())))
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", look)
    put("fft", OTHER)
    ((old, new),) = seen
    sizes = [sum(map(len, content["machines"].values())) for content in (old, new)]
    assert sizes == [1, 2]


WRITER = """
import sys
from dataclasses import replace
from xconv._geometry import *
from xconv._namespace import NUMPY
from xconv._remembered import remember
first = int(sys.argv[1])
sys.stdin.readline()
for batch in range(first, first + 20):
    problem = ConvProblem(batch, (Axis(28, 3),), 16, 32)
    remember(problem, NUMPY, bound=False, algorithm=f"from {first}", seconds=0.1)
"""


def test_processes_that_write_at_once_lose_nothing(folder):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(first)], cwd=ROOT, stdin=subprocess.PIPE)
        for first in (100, 200, 300)
    ]
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    for writer in writers:
        writer.stdin.close()
    assert count() == 60
    for first in (100, 200, 300):
        for batch in (first, first + 19):
            problem = ConvProblem(batch, (Axis(28, 3),), 16, 32)
            assert choice(problem, NUMPY, bound=False) == f"from {first}"


def test_threads_that_write_at_once_lose_nothing():
    def write(first):
        for batch in range(first, first + 10):
            put("fft", replace(PROBLEM, batch=batch))

    threads = [threading.Thread(target=write, args=(first,)) for first in (100, 200, 300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count() == 40
    new_process()
    assert count() == 40


def test_a_lock_that_is_never_given_back_is_not_waited_for_long(folder, monkeypatch):
    monkeypatch.setattr(_remembered, "PATIENCE", 0.05)
    attempts = []
    monkeypatch.setattr(_remembered, "_lock", lambda handle: attempts.append(handle))
    put("winograd")
    new_process()
    assert choice(PROBLEM, NUMPY, bound=False) == "winograd"
    assert len(attempts) > 1


@pytest.mark.skipif(sys.platform == "win32", reason="the lock is that of Unix")
def test_one_holds_the_lock_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(_remembered, "PATIENCE", 0.05)
    with (tmp_path / "lock").open("ab") as one, (tmp_path / "lock").open("ab") as other:
        assert _remembered._lock(one.fileno())
        assert not _remembered._lock(other.fileno())
        one.close()
        assert _remembered._lock(other.fileno())
