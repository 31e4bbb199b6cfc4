"""The compiled movers under the names that the rest of the house calls them by."""

from xconv._bridges.numba.copies import columns, finished
from xconv._bridges.numba.direct import convolved, packed_rows
from xconv._bridges.numba.gathering import can_gather, gathered, maps
from xconv._bridges.numba.lanes import depthwise, running
from xconv._bridges.numba.maxima import first_maximum
from xconv._bridges.numba.winograd import winograd, winograd_kernel

__all__ = [
    "can_gather",
    "columns",
    "convolved",
    "depthwise",
    "finished",
    "first_maximum",
    "gathered",
    "maps",
    "packed_rows",
    "running",
    "winograd",
    "winograd_kernel",
]
