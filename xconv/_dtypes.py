"""DTypes: what is computed in what, by the standard's own words for their kinds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xconv._errors import Refusal, refuse, refuse_type
from xconv._namespace import Array, DType, Namespace, library_name


@dataclass(frozen=True, slots=True)
class SumDTypes:
    """What products are computed and summed in, and what the result is given in."""

    compute: DType
    result: DType
    kind: str
    itemsize: int


@lru_cache
def sum_dtypes(xp: Namespace, x: DType, w: DType, dtype: DType | None, terms: int) -> SumDTypes:
    """DTypes of a sum of ``terms`` products of an ``x`` and a ``w``.

    Integers are computed in floating point where that is provably exact: every partial sum is at most
    ``terms * max|x| * max|w|``, and a float with p bits of significand holds all integers up to 2**p.
    """
    for name, given in (("x", x), ("w", w)):
        if dtype_kind(xp, given) == "bool":
            refuse_type(name, str(given), "not be boolean; convert it to integers first")
    result = _result_dtype(xp, x, w) if dtype is None else dtype
    try:
        kind = dtype_kind(xp, result)
    except (TypeError, ValueError, AttributeError):
        refuse_type("dtype", dtype, f"be a dtype of {library_name(xp)}")
    if kind == "bool" or any(_ORDER[dtype_kind(xp, d)] > _ORDER[kind] for d in (x, w)):
        refuse_type("dtype", str(dtype), f"hold products of {x} and {w} ('integer' < 'float' < 'complex')")
    if kind == "integer":
        compute = _exact_float(xp, x, w, terms) or _sum_dtype(xp, result)
        return SumDTypes(compute, result, dtype_kind(xp, compute), itemsize(xp, compute))
    compute = xp.float32 if kind == "float" and itemsize(xp, result) < 4 else result
    return SumDTypes(compute, result, kind, itemsize(xp, compute))


def check_bias_dtype(xp: Namespace, b: Array | None, result: DType, name: str = "b") -> None:
    """A bias, or another array to be added, that the result can hold."""
    kind = "integer" if b is None else dtype_kind(xp, b.dtype)
    if kind == "bool" or _ORDER[kind] > _ORDER[dtype_kind(xp, result)]:
        refuse_type(name, b, f"be of a kind that a result of dtype {result} can hold")


_ORDER = {"bool": 0, "integer": 1, "float": 2, "complex": 3}


@lru_cache(maxsize=256)
def dtype_kind(xp: Namespace, dtype: DType) -> str:
    """Which of "bool", "integer", "float" and "complex" it is."""
    for kind, name in (
        ("float", "real floating"),
        ("integer", "integral"),
        ("complex", "complex floating"),
        ("bool", "bool"),
    ):
        if xp.isdtype(dtype, name):
            return kind
    raise Refusal(TypeError, f"arrays must hold numbers of the array API standard; got dtype {dtype}")


@lru_cache(maxsize=256)
def itemsize(xp: Namespace, dtype: DType) -> int:
    """Bytes of one number."""
    if dtype_kind(xp, dtype) == "integer":
        return int(xp.iinfo(dtype).bits) // 8
    return int(xp.finfo(dtype).bits) // 8 * (2 if dtype_kind(xp, dtype) == "complex" else 1)


def _result_dtype(xp: Namespace, x: DType, w: DType) -> DType:
    kinds = {dtype_kind(xp, x), dtype_kind(xp, w)}
    if kinds == {"integer"}:
        common = xp.result_type(x, w) if x != w else x
        if dtype_kind(xp, common) != "integer":
            refuse_type("w", str(w), f"have a common integer dtype with x ({x}); or give dtype=")
        return _sum_dtype(xp, common)
    if "integer" in kinds:
        return w if dtype_kind(xp, x) == "integer" else x
    return xp.result_type(x, w)


@lru_cache
def _sum_dtype(xp: Namespace, dtype: DType) -> DType:
    return xp.sum(xp.zeros((1,), dtype=dtype)).dtype


def _exact_float(xp: Namespace, x: DType, w: DType, terms: int) -> DType | None:
    def largest(dtype: DType) -> int:
        return max(-int(xp.iinfo(dtype).min), int(xp.iinfo(dtype).max))

    bound = terms * largest(x) * largest(w)
    if bound <= 2**24:
        return xp.float32
    has_float64 = itemsize(xp, default_integer(xp)) == 8  # a library held to 32 bits has 32-bit integers
    return xp.float64 if bound <= 2**53 and has_float64 else None


def check_value(xp: Namespace, value: Any, dtype: DType) -> None:
    """A number that stands beside those of an array of this dtype."""
    kind = dtype_kind(xp, dtype)
    if not isinstance(value, _NUMBERS[kind]):
        refuse_type("value", value, f"be a number that a {kind} array can hold")
    if kind == "integer" and not (info := xp.iinfo(dtype)).min <= value <= info.max:
        refuse("value", value, f"be from {info.min} to {info.max}, what {dtype} can hold")


_NUMBERS: dict[str, Any] = {
    "bool": int,
    "integer": int,
    "float": int | float,
    "complex": int | float | complex,
}


@lru_cache
def default_integer(xp: Namespace) -> DType:
    """The library's integer dtype for counts and indices."""
    return xp.asarray([0]).dtype


@lru_cache
def default_float(xp: Namespace) -> DType:
    """The library's floating dtype when nothing else asks for one."""
    return xp.asarray([0.0]).dtype


@lru_cache
def wide(xp: Namespace, dtype: DType) -> DType:
    """The dtype in which numbers of ``dtype`` are summed: 16-bit floats in float32, integers as ``sum`` does."""
    kind = dtype_kind(xp, dtype)
    if kind == "integer":
        return _sum_dtype(xp, dtype)
    return xp.float32 if kind == "float" and itemsize(xp, dtype) < 4 else dtype


def identity(xp: Namespace, reduction: str, dtype: DType) -> float | int:
    """The value that leaves a reduction of numbers of ``dtype`` as it is."""
    if reduction in ("max", "min"):
        if dtype_kind(xp, dtype) == "integer":
            info = xp.iinfo(dtype)
            return int(info.min if reduction == "max" else info.max)
        return float("-inf" if reduction == "max" else "inf")
    return 1 if reduction == "prod" else 0
