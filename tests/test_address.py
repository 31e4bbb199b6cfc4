"""Where the elements of an array begin: what is read from memory is what NumPy says."""

import sys

import numpy as np
import pytest

from cases import numbers
from xconv import _address
from xconv._written import Written

pytestmark = pytest.mark.backends("numpy")

WHOLE = numbers((4, 5, 6))
ARRAYS = {
    "whole": WHOLE,
    "part": WHOLE[1:, 2:, 3:],
    "reversed": WHOLE[::-1, :, ::-1],
    "turned": WHOLE.T,
    "one-number": WHOLE[1, 2, 3:4].reshape(()),
    "broadcast": np.broadcast_to(WHOLE[0], WHOLE.shape),
    "empty": WHOLE[:0],
    "bytes": np.arange(9, dtype="int8")[3:],
    "structured": np.zeros(3, [("a", "i1"), ("b", "f8")])["b"],
    "read-only": np.frombuffer(b"12345678", "float64"),
    "written": WHOLE.view(Written),
    "masked": np.ma.masked_array(WHOLE, WHOLE > 0),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("way", [_address.address, _address._asked])
def test_the_address_is_numpys(name, way):
    x = ARRAYS[name].view(np.ndarray) if name == "written" else ARRAYS[name]
    assert way(ARRAYS[name]) == x.__array_interface__["data"][0]
    assert type(way(x)) is int


def test_it_is_read_where_python_allows_it(monkeypatch):
    assert (_address.address is _address._read) == (sys.implementation.name == "cpython")
    monkeypatch.setattr(sys.implementation, "name", "another")
    assert not _address._is_there()


def test_it_is_asked_for_where_it_stands_elsewhere(monkeypatch):
    monkeypatch.setattr(_address, "_HEAD", _address._HEAD + 8)
    assert not _address._is_there()


def test_a_file_is_an_array_as_well(tmp_path):
    x = np.memmap(tmp_path / "x", "float32", "w+", shape=(5, 6))
    assert _address.address(x[2:]) == x[2:].__array_interface__["data"][0]
