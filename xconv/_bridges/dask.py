"""Dask: blocks are cut lazily and computed by Dask's own scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import dask
import dask.array as da


def chunk_edges(x: Any) -> tuple[tuple[int, ...], ...]:
    """Where the blocks of ``x`` begin and end, along every axis."""
    return tuple((0, *accumulate(sizes)) for sizes in x.chunks)


def defer(
    function: Callable[..., Any], arrays: Sequence[Any], results: Sequence[tuple[tuple[int, ...], Any]]
) -> tuple[Any, ...]:
    """The results of ``function(*arrays)``, given as (shape, dtype) each, as arrays that compute it when asked."""
    calls = dask.delayed(function, pure=True)(*arrays)
    if len(results) == 1:
        shape, dtype = results[0]
        return (da.from_delayed(calls[0], shape, dtype=dtype, meta=arrays[0]._meta),)
    return tuple(
        da.from_delayed(calls[i], shape, dtype=dtype, meta=arrays[0]._meta)
        for i, (shape, dtype) in enumerate(results)
    )
